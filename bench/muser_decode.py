"""What it takes to decode raw frames and to take their fringes away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import Figure
from bench.muser_data import make_archive
from muser_pipeline.array import load_array
from muser_pipeline.calibration import correct_delays
from muser_pipeline.raw import open_raw

FRAMES = 64
"""So many at a time, as the workers do."""
ORIGINAL_US = {1: (31e3, 41e3), 2: (62e3, 94e3)}
"""Decoding and correcting a frame with the observatory's programs, as published."""


def measure(is_quick: bool) -> list[Figure]:
    """Measure processor time per frame, beside a copy of the same bytes."""
    runs = 3 if is_quick else 15
    return [figure for array in (1, 2) for figure in _of_array(array, runs)]


def _of_array(array: int, runs: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        path = make_archive(array, FRAMES, Path(folder))
        content = np.fromfile(path, dtype=np.uint8)
        with open_raw(path) as raw:
            frames = raw.read()
            decode = _times(raw.read, runs)
            turn = _times(lambda: correct_delays(frames), runs)
    target = np.empty_like(content)
    copy = _times(lambda: np.copyto(target, content), runs)
    name = load_array(array).name
    decode_original, turn_original = ORIGINAL_US[array]
    rows = [
        ("decode a frame", "µs", decode),
        ("copy its bytes", "µs", copy),
        ("decode, in copies", "", _ratios(decode, copy)),
        ("decode, the original in this", "", [decode_original / t for t in decode]),
        ("delays and fringes of a frame", "µs", turn),
        (
            "delays and fringes, the original in this",
            "",
            [turn_original / t for t in turn],
        ),
    ]
    return [Figure(name, what, unit, values) for what, unit, values in rows]


def _times(work: Callable[[], Any], runs: int) -> list[float]:
    """Return processor times in microseconds per frame, after one run in vain."""
    found = []
    for _ in range(runs + 1):
        started = time.process_time()
        work()
        found.append((time.process_time() - started) * 1e6 / FRAMES)
    return found[1:]


def _ratios(ours: list[float], theirs: list[float]) -> list[float]:
    return [a / max(b, 1e-3) for a, b in zip(ours, theirs, strict=True)]
