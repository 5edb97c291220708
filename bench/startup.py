"""How long a user waits from ``opencluster start`` to the first result."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from bench.figures import Figure
from bench.first_result import first_result
from bench.machine import ROOT
from bench.workers import TARGET
from opencluster.place import DIRECTORY_VARIABLE


def measure(is_quick: bool) -> list[Figure]:
    """Measure the real commands: each step is a new process, as in a shell."""
    runs = [_run() for _ in range(3 if is_quick else 7)]
    names = (
        "`opencluster start` with one worker",
        "then a manager, to its first result",
        "both",
    )
    return [
        Figure("startup", name, "s", [run[i] for run in runs])
        for i, name in enumerate(names)
    ]


def _run() -> tuple[float, float, float]:
    """Return the seconds of each step and of both."""
    before = os.environ.get(DIRECTORY_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.environ[DIRECTORY_VARIABLE] = directory
        try:
            started = time.perf_counter()
            _opencluster("start", "--workers", f"{TARGET}=1")
            ready = time.perf_counter()
            with first_result():
                done = time.perf_counter()
        finally:
            _opencluster("stop")
            if before is None:
                del os.environ[DIRECTORY_VARIABLE]
            else:
                os.environ[DIRECTORY_VARIABLE] = before
    return ready - started, done - ready, done - started


def _opencluster(*arguments: str) -> None:
    command = [sys.executable, "-m", "opencluster", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"opencluster {' '.join(arguments)}:\n{done.stderr}")
