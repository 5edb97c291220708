"""Beams and fields to clean, and CLEAN as it is in the textbook."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

Point = tuple[int, int, float]


def make_beam(size: int, spacings: int = 400, seed: int = 0) -> Any:
    """Return the beam of so many random spacings, the short ones more often."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((size, size))
    v, u = np.rint(rng.normal(scale=size / 8, size=(2, spacings))).astype(int)
    for sign in (1, -1):
        np.add.at(weights, (sign * v % size, sign * u % size), 1.0)
    beam = np.fft.fftshift(np.fft.ifft2(weights).real)
    return (beam / beam.max()).astype(np.float32)


def shift(beam: Any, y: int, x: int) -> Any:
    """Return a beam moved so that its centre is there; 0 where it does not reach."""
    size = len(beam)
    wide = np.pad(beam, size)
    top, left = size + size // 2 - y, size + size // 2 - x
    return wide[top : top + size, left : left + size]


def seen(points: Iterable[Point], beam: Any) -> Any:
    """Return the dirty image of points."""
    images = [np.float32(flux) * shift(beam, y, x) for y, x, flux in points]
    return np.sum(images, axis=0, dtype=np.float32)


def textbook(
    dirty: Any, beam: Any, gain: float, iterations: int, mask: Any, negative: bool
) -> tuple[list[Point], Any]:
    """Return the components of plain Hogbom CLEAN and what it leaves."""
    residual = dirty.copy()
    found = []
    for _ in range(iterations):
        height = np.abs(residual) if negative else residual
        height = np.where(mask, height, -np.inf)
        y, x = divmod(int(np.argmax(height)), len(dirty))
        flux = np.float32(gain) * residual[y, x]
        found.append((y, x, float(flux)))
        residual -= flux * shift(beam, y, x)
    return found, residual
