"""Whether raw frames come in at the full rate of an instrument for as long as asked."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.figures import Figure
from bench.processes import private_mib
from muser_pipeline.array import load_array
from muser_pipeline.raw.format import FORMATS

PROGRAMS = [sys.executable, "-m", "bench.ingest_programs"]
SAMPLE_S = 0.5
"""Between two looks at the server."""
SETTLED = 0.2
"""Part of the time after which memory should not grow any more."""


def measure(seconds: float, arrays: Sequence[int] = (1, 2)) -> list[Figure]:
    """Measure arrays at the rates of their instruments, 32 and 65.5 MB/s.

    One process sends; another one takes, spools, and decodes each second of frames.
    """
    return [figure for array in arrays for figure in _of_array(array, seconds)]


def _of_array(array: int, seconds: float) -> list[Figure]:
    from bench.ingest_programs import sample

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = sample(array, folder / "archive")
        server = subprocess.Popen(
            [*PROGRAMS, "serve", str(array), name], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            sender = subprocess.Popen(
                [*PROGRAMS, "send", str(array), port, str(seconds), str(path)],
                stdout=subprocess.PIPE,
                text=True,
            )
            watched = _watch(server, sender, folder / "status.json")
            sent = json.loads(sender.communicate()[0])
            ended = time.perf_counter()
            server.terminate()
            done = json.loads(server.communicate()[0].splitlines()[-1])
            caught_up_s = time.perf_counter() - ended
        finally:
            server.kill()
    rate = sent["frames"] * FORMATS[array].size / sent["elapsed_s"] / 1e6
    memory = watched["memory_mib"]
    later = memory[int(SETTLED * len(memory)) :]
    rows = [
        ("sent for", "s", sent["elapsed_s"]),
        ("rate", "MB/s", rate),
        ("frames sent", "", sent["frames"]),
        ("frames not decoded", "", sent["frames"] - done["decoded"]),
        ("frames rejected", "", sum(done["rejected"].values())),
        ("items accepted", "", done["accepted"]),
        ("items processed", "", done["processed"]),
        ("items dropped or failed", "", done["dropped"] + done["failed"]),
        ("most in the spool", "MB", max(watched["spooled_mb"])),
        ("until all was decoded, after the last frame", "s", caught_up_s),
        ("processor of the server", "cores", watched["cpu_s"] / sent["elapsed_s"]),
        ("processor of the sender", "cores", sent["cpu_s"] / sent["elapsed_s"]),
        ("private memory of the server, most", "MiB", max(memory)),
        ("its growth after a fifth of the time", "MiB", max(0.0, later[-1] - later[0])),
    ]
    name = f"ingest of {load_array(array).name}"
    return [Figure(name, what, unit, [float(value)]) for what, unit, value in rows]


def _watch(
    server: subprocess.Popen[str], sender: subprocess.Popen[str], status: Path
) -> dict[str, Any]:
    """Look at the server until the sender has ended."""
    process = psutil.Process(server.pid)
    memory, spooled = [private_mib(server.pid)], [0.0]
    cpu_before = sum(process.cpu_times()[:2])
    while sender.poll() is None:
        time.sleep(SAMPLE_S)
        memory.append(private_mib(server.pid))
        if status.exists():
            spooled.append(json.loads(status.read_text())["spooled_bytes"] / 1e6)
    cpu_s = sum(process.cpu_times()[:2]) - cpu_before
    return {"memory_mib": memory, "spooled_mb": spooled, "cpu_s": cpu_s}
