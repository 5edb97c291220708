"""How fast one snapshot becomes a cleaned image, beside WSClean on the same data."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import Figure
from bench.imaging_data import make_snapshot, write_measurement_set
from muser_pipeline.imaging.backend import cupy_or_none
from muser_pipeline.imaging.clean import Cleaned, CleanOptions, clean
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.many import clean_many
from muser_pipeline.imaging.restoring import fit_beam, restore
from muser_pipeline.imaging.visibilities import Snapshot
from muser_pipeline.imaging.weighting import weigh

CASES = ((512, 500), (512, 1000), (1024, 500), (1024, 1000))
"""Pixels on a side, and components."""
FIELD_ARCSEC = 4096.0
GAIN = 0.1
ACCURACY = 1e-4
"""Of the gridders of both."""
BATCH = 16
"""Images that a GPU works on at once."""
WSCLEAN = (
    *("wsclean", "-j", "1", "-use-wgridder", "-no-small-inversion"),
    *("-weight", "natural", "-gain", str(GAIN), "-wgridder-accuracy", str(ACCURACY)),
)
PLAIN: tuple[str, ...] = ("-no-fast-subminor",)
LISTED: tuple[str, ...] = ()
"""WSClean's plain loop, and the one over lists of bright pixels that it prefers."""


@dataclass(frozen=True)
class Times:
    """What one run took, in seconds."""

    processor: float
    wall: float


def measure(is_quick: bool) -> list[Figure]:
    """Measure images of a snapshot of MUSER-I, from visibilities to the cleaned image.

    All is done on one thread, in turns. WSClean is a process of its own, which reads
    and writes files; where it is not installed, or no Measurement Set can be written,
    its figures are left out.
    """
    runs = 1 if is_quick else 5
    snapshot = make_snapshot()
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        data = _measurement_set(snapshot, Path(folder))
        for size, iterations in CASES[:1] if is_quick else CASES:
            figures += _of_case(snapshot, data, size, iterations, runs)
            if cupy_or_none() is not None:
                figures += _on_gpu(snapshot, size, iterations, runs)
    return figures


def _measurement_set(snapshot: Snapshot, folder: Path) -> Path | None:
    if shutil.which(WSCLEAN[0]) is None:
        return None
    try:
        write_measurement_set(snapshot, folder / "snapshot.ms")
    except ImportError:
        return None
    return folder / "snapshot.ms"


def _of_case(
    snapshot: Snapshot, data: Path | None, size: int, iterations: int, runs: int
) -> list[Figure]:
    grid = Grid(size, np.radians(FIELD_ARCSEC / 3600) / size)
    hogbom = CleanOptions("hogbom", GAIN, iterations)
    clark = CleanOptions("clark", GAIN, iterations)
    kept = _Kept(snapshot, grid)
    works: dict[str, Callable[[], Any]] = {
        "Hogbom": lambda: _Kept(snapshot, grid).image(hogbom),
        "Clark": lambda: _Kept(snapshot, grid).image(clark),
        "kept": lambda: kept.image(hogbom),
        "loop": lambda: clean(kept.dirty(), kept.beam, hogbom),
        "dirty": kept.dirty,
    }
    if data is not None:
        works["WSClean"] = lambda: _wsclean(data, size, iterations, PLAIN)
        works["its lists"] = lambda: _wsclean(data, size, iterations, LISTED)
    for name in ("Hogbom", "Clark"):
        works[name]()
    times: dict[str, list[Times]] = {name: [] for name in works}
    own_clock = []
    for _ in range(runs):
        for name, work in works.items():
            spent, found = _timed(work)
            times[name].append(spent)
            if name == "WSClean":
                own_clock.append(found)
    cpu = {name: [run.processor for run in each] for name, each in times.items()}
    wall = {name: [run.wall for run in each] for name, each in times.items()}
    loop = [a - b for a, b in zip(cpu["loop"], cpu["dirty"], strict=True)]
    rows = [
        ("Hogbom, processor time", "s", cpu["Hogbom"]),
        ("Hogbom, elapsed", "s", wall["Hogbom"]),
        ("Hogbom, images a second of a core", "1/s", _inverse(cpu["Hogbom"])),
        ("the same, gridder and beam kept", "1/s", _inverse(cpu["kept"])),
        ("Hogbom, its loop alone", "s", loop),
        ("Clark, processor time", "s", cpu["Clark"]),
    ]
    if data is not None:
        rows += [
            ("WSClean, processor time", "s", cpu["WSClean"]),
            ("WSClean, elapsed", "s", wall["WSClean"]),
            ("WSClean, its loop alone, its clock", "s", own_clock),
            ("WSClean in Hogbom, processor time", "", _over(cpu, "WSClean", "Hogbom")),
            ("WSClean in Hogbom, elapsed", "", _over(wall, "WSClean", "Hogbom")),
            ("WSClean by lists, processor time", "s", cpu["its lists"]),
            ("WSClean by lists in Clark", "", _over(cpu, "its lists", "Clark")),
            *_compared(data, size, iterations, kept.cleaned(clark)),
        ]
    name = f"imaging, {size} pixels, {iterations:,} iterations"
    return [Figure(name, what, unit, found) for what, unit, found in rows]


class _Kept:
    """What can be kept from one image to the next of the same baselines."""

    def __init__(self, snapshot: Snapshot, grid: Grid) -> None:
        self._grid = grid
        self._values, weights = snapshot.stokes("I")
        self._weights = weigh(snapshot.uvw_m, snapshot.frequency_hz, weights, grid)
        self._gridder = Gridder(
            snapshot.uvw_m, snapshot.frequency_hz, grid, epsilon=ACCURACY
        )
        self.beam = self._gridder.beam(self._weights)
        self._lobe = fit_beam(self.beam, grid.cell_rad)

    def dirty(self) -> Any:
        return self._gridder.image(self._values, self._weights)

    def cleaned(self, options: CleanOptions) -> Cleaned:
        return clean(self.dirty(), self.beam, options)

    def image(self, options: CleanOptions) -> Any:
        found = self.cleaned(options)
        return restore(found.model, found.residual, self._lobe, self._grid)


def _wsclean(data: Path, size: int, iterations: int, way: tuple[str, ...]) -> float:
    """Clean with WSClean; return how long its loop took by its own clock, seconds."""
    words = (
        *(*WSCLEAN, *way, "-niter", str(iterations), "-size", str(size), str(size)),
        *("-scale", f"{FIELD_ARCSEC / size}asec", "-name", str(_results(data))),
    )
    done = subprocess.run(
        [*words, str(data)], capture_output=True, text=True, check=True
    )
    clock = re.search(r"deconvolution: (\d+):(\d+):([\d.]+)", done.stdout)
    if clock is None:
        raise RuntimeError("WSClean did not say how long it took")
    hours, minutes, seconds = map(float, clock.groups())
    return 3600 * hours + 60 * minutes + seconds


def _compared(
    data: Path, size: int, iterations: int, clark: Cleaned
) -> list[tuple[str, str, list[float]]]:
    """Compare what is left, and Hogbom's components from WSClean's image and beam."""
    left = _read(data, "residual")
    rows = [("residual of Clark in WSClean's", "", [_rms(clark.residual) / _rms(left)])]
    _wsclean(data, size, iterations, PLAIN)
    dirty, beam, model = (_read(data, name) for name in ("dirty", "psf", "model"))
    beam /= beam[size // 2, size // 2]
    found = clean(dirty, beam, CleanOptions("hogbom", GAIN, iterations))
    wrong = float(np.abs(found.model - model).max())
    highest = float(np.abs(model).max())
    rows.append(
        ("components, largest difference in the highest", "", [wrong / highest])
    )
    others = np.count_nonzero((found.model != 0) != (model != 0))
    rows.append(("pixels that one has and the other has not", "", [float(others)]))
    return rows


def _results(data: Path) -> Path:
    return data.parent / "found"


def _read(data: Path, what: str) -> Any:
    from astropy.io import fits

    pixels = fits.getdata(f"{_results(data)}-{what}.fits")
    return np.array(pixels[0, 0], dtype=np.float32)


def _rms(image: Any) -> float:
    return float(np.sqrt(np.mean(np.square(image, dtype=np.float64))))


def _on_gpu(snapshot: Snapshot, size: int, iterations: int, runs: int) -> list[Figure]:
    """Measure batches of images on a GPU, of different data of the same baselines."""
    cupy = cupy_or_none()
    grid = Grid(size, np.radians(FIELD_ARCSEC / 3600) / size)
    options = CleanOptions("hogbom", GAIN, iterations)
    values, weights = snapshot.stokes("I")
    gridder = Gridder(
        snapshot.uvw_m, snapshot.frequency_hz, grid, epsilon=ACCURACY, device="cuda"
    )
    some = cupy.asarray(weights)
    beam = gridder.beam(some)
    lobe = fit_beam(beam, grid.cell_rad)
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((BATCH, *values.shape, 2), dtype=np.float32)
    frames = cupy.asarray(values + noise.view(np.complex64)[..., 0])

    def work() -> None:
        dirty = cupy.stack([gridder.image(frame, some) for frame in frames])
        for found in clean_many(dirty, beam[np.newaxis], options):
            restore(found.model, found.residual, lobe, grid)
        cupy.cuda.Device().synchronize()

    work()
    rates = [BATCH / _timed(work)[0].wall for _ in range(runs)]
    name = f"imaging, {size} pixels, {iterations:,} iterations"
    return [Figure(name, "GPU, Hogbom, images a second", "1/s", rates)]


def _timed(work: Callable[[], Any]) -> tuple[Times, Any]:
    """Return the time that some work took, in processes that it started too."""
    used, started = _processor_s(), time.perf_counter()
    found = work()
    return Times(_processor_s() - used, time.perf_counter() - started), found


def _processor_s() -> float:
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(who) for who in both]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _inverse(seconds: list[float]) -> list[float]:
    return [1 / each for each in seconds]


def _over(times: dict[str, list[float]], theirs: str, ours: str) -> list[float]:
    return [a / b for a, b in zip(times[theirs], times[ours], strict=True)]
