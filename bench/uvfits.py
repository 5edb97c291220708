"""How fast raw frames become UVFITS files, with one worker and with several."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.figures import Figure
from bench.muser_data import START_NS, make_archive
from bench.processes import MIB, private_mib
from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.batch import UVFITSManager
from opencluster import WorkPiece
from opencluster.testing import LocalCluster

WORKER = "muser_pipeline.batch:UVFITSWorker"
SCALING_FRAMES = 1000
"""Of the paper's Figure 10."""
SCALING_INTEGRATE_S = 0.1
PAPER_PER_CORE = 3.3
"""Frames a second of one core in the paper: 0.3 s a frame."""
REAL_TIME = 320.0
"""Frames that the instrument makes a second."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    frames : int
        In the archive.
    runs : int
        How often each request is repeated.
    """

    frames: int
    runs: int


QUICK = Size(320, 1)
FULL = Size(6400, 3)


def measure(array: int, counts: list[int], is_quick: bool) -> list[Figure]:
    """Measure requests on clusters with so many workers.

    All bands and both hands are read, corrected, flagged, averaged and written. The
    time is from the request to the manifest, on workers that are warm.
    """
    size = QUICK if is_quick else FULL
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        archive = make_archive(array, size.frames, Path(folder) / "archive")
        for count in counts:
            with LocalCluster({WORKER: count}) as cluster:
                figures += _of_count(array, count, cluster, archive, size)
    return figures


def _of_count(
    array: int, count: int, cluster: LocalCluster, archive: Path, size: Size
) -> list[Figure]:
    pids = [row["pid"] for row in cluster.ask_factory("find", {"kind": "worker"})]
    _request(archive, min(size.frames, 320 * count), 0.1)
    rates, per_core, processor = [], [], []
    for _ in range(size.runs):
        used = _processor_s(pids)
        elapsed_s, found = _request(archive, size.frames, 1.0)
        processor.append((_processor_s(pids) - used) * 1e6 / found["frames"])
        rates.append(found["frames"] / elapsed_s)
        cores = min(count, len(os.sched_getaffinity(0)))
        per_core.append(rates[-1] / cores)
    some = min(size.frames, SCALING_FRAMES)
    elapsed = [
        _request(archive, some, SCALING_INTEGRATE_S)[0] for _ in range(size.runs)
    ]
    peaks = [_peak_mib(pid) for pid in pids]
    rows = [
        ("frames a second, averages of 1 s", "1/s", rates),
        ("of the instrument's", "", [rate / REAL_TIME for rate in rates]),
        ("frames a second and core", "1/s", per_core),
        ("of the paper's per core", "", [rate / PAPER_PER_CORE for rate in per_core]),
        ("processor time of workers per frame", "µs", processor),
        (f"elapsed for {some:,} frames, averages of 0.1 s", "s", elapsed),
        ("private memory of a worker", "MiB", [private_mib(pid) for pid in pids]),
        ("peak memory of a worker, mapped files too", "MiB", peaks),
    ]
    workers = f"{count} worker{'s' * (count > 1)}"
    name = f"{load_array(array).name}, {workers}"
    return [Figure(name, what, unit, values) for what, unit, values in rows]


def _request(archive: Path, frames: int, integrate_s: float) -> tuple[float, Any]:
    with tempfile.TemporaryDirectory() as out:
        task = WorkPiece(
            archive=archive,
            start=START_NS,
            end=START_NS + frames * FRAME_PERIOD_NS,
            out=out,
            integrate_s=integrate_s,
        )
        started = time.perf_counter()
        found = UVFITSManager().run(task)
        return time.perf_counter() - started, found


def _processor_s(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / MIB
    return 0.0


def draw(figures: list[Figure], path: Path) -> None:
    """Draw elapsed time against the number of workers, as the paper's Figure 10."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = [figure for figure in figures if figure.name.startswith("elapsed")]
    counts = [int(figure.measure.split()[-2]) for figure in found]
    plot, axis = pyplot.subplots(figsize=(6.4, 4.4))
    medians = [figure.median for figure in found]
    axis.plot(counts, medians, "-", marker="o", markersize=4, color="black")
    low, high = ([f(figure.runs) for figure in found] for f in (min, max))
    axis.fill_between(counts, low, high, color="black", alpha=0.12, linewidth=0)
    axis.plot(counts, [medians[0] * counts[0] / n for n in counts], "--", color="grey")
    axis.set_xlabel("workers")
    axis.set_ylabel("elapsed, s")
    axis.set_ylim(bottom=0)
    axis.set_xticks(counts)
    axis.set_title(found[0].name.removeprefix("elapsed for "), fontsize=10)
    axis.grid(alpha=0.25)
    plot.tight_layout()
    plot.savefig(path, dpi=100)
    pyplot.close(plot)
