"""Hogbom CLEAN: the highest peak again and again, each time a part of it.

Source: J. A. Hogbom, Astronomy and Astrophysics Supplement 15, 417 (1974).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging import kernels_cpu
from muser_pipeline.imaging.backend import Array, namespace_of
from muser_pipeline.imaging.kernels_cpu import TILE, compiled, hogbom, reach_of
from muser_pipeline.imaging.minor import Ended, Found, Tell, add_points
from muser_pipeline.imaging.thresholds import peak_of, single

BUDGET = 10_000
"""Subtractions of a beam from a tile between two calls of progress: 3 ms."""
_ENDED: dict[int, Ended] = {
    kernels_cpu.UNTIL: "limit",
    kernels_cpu.FLOOR: "floor",
    kernels_cpu.DIVERGED: "diverged",
}


class Search(Protocol):
    """Takes components away from layers of images, from the highest peak of all.

    Attributes
    ----------
    images : ndarray of float32, shape (layer, N, N)
        What `settle` has subtracted everything from.
    """

    images: Array

    def start(self, images: Array) -> None:
        """Begin with other images, shape (layer, N, N), which are written to."""
        ...

    def find(
        self, limit: int, floor: float, tell: Tell
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], Ended]:
        """Return layer, y and x (k, 3) and flux (k,) of components, and the end."""
        ...

    def settle(self, tell: Tell) -> None:
        """Subtract all that was found."""
        ...

    def subtract(
        self, places: NDArray[np.int64], flux: NDArray[np.float32], tell: Tell
    ) -> None:
        """Subtract other components: layer, y and x (k, 3) and flux (k,)."""
        ...


class TiledSearch:
    """The search on a processor core.

    Parameters
    ----------
    psf : ndarray of float32, shape (pair, n, n)
        Beams with their centres at n // 2.
    pair : ndarray of int64, shape (layer, layer)
        Which beam a component of one layer leaves in another.
    gain : ndarray of float32, shape (layer,)
        Part of a peak that is taken away.
    mask : ndarray of bool, shape (N, N), or None
        Where components may be.
    negative : bool
        Whether components may be negative.
    divergence : float
        Stop at a peak so many times the least one; 0 for never.
    """

    def __init__(
        self,
        psf: Array,
        pair: NDArray[np.int64],
        gain: NDArray[np.float32],
        mask: Array | None,
        negative: bool,
        divergence: float,
    ) -> None:
        self._psf = np.ascontiguousarray(psf, dtype=np.float32)
        self._pair, self._gain = pair, gain
        self._mask = np.zeros((0, 0), bool) if mask is None else mask
        self._is_signed = not negative
        self._divergence = np.float32(divergence or np.inf)
        self._reach: NDArray[np.float32] | None = None

    def start(self, images: Array) -> None:
        """Begin with other images, shape (layer, N, N), which are written to."""
        self.images = images
        layers, size = len(images), images.shape[1]
        rows, columns = (-(-size // side) for side in TILE)
        if self._reach is None:
            self._reach = np.stack([reach_of(psf, rows, columns) for psf in self._psf])
        self._bound = np.full((layers, rows, columns), np.inf, np.float32)
        if len(self._mask):
            starts = [
                np.arange(n) * side
                for n, side in zip((rows, columns), TILE, strict=True)
            ]
            some = np.logical_or.reduceat(self._mask, starts[0], axis=0)
            some = np.logical_or.reduceat(some, starts[1], axis=1)
            self._bound[:, ~some] = -np.inf
        self._settled = np.full(self._bound.shape, -1, np.int64)
        self._count, self._least = 0, np.array([np.inf, 0], np.float32)

    def find(
        self, limit: int, floor: float, tell: Tell
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], Ended]:
        """Return layer, y and x (k, 3) and flux (k,) of components, and the end."""
        self._places = np.zeros((limit, 3), np.int64)
        self._flux = np.zeros(limit, np.float32)
        reason = self._go_on(limit, single(floor), tell)
        found = self._count
        if reason == kernels_cpu.DIVERGED:
            found = int(self._least[1])
            self._take_back(found)
        return self._places[:found], self._flux[:found], _ENDED[reason]

    def settle(self, tell: Tell) -> None:
        """Subtract all that was found."""
        self._go_on(self._count, np.float32(0), tell, is_last=True)

    def subtract(
        self, places: NDArray[np.int64], flux: NDArray[np.float32], tell: Tell
    ) -> None:
        """Subtract other components: layer, y and x (k, 3) and flux (k,)."""
        self._places, self._flux, self._count = places, flux, len(flux)
        self.settle(tell)

    def _take_back(self, kept: int) -> None:
        """Have all components but so many subtracted once more, with other signs."""
        self._places = np.concatenate(
            [self._places[: self._count], self._places[kept:]]
        )
        self._flux = np.concatenate([self._flux[: self._count], -self._flux[kept:]])
        self._count += self._count - kept

    def _go_on(
        self, until: int, floor: np.float32, tell: Tell, is_last: bool = False
    ) -> int:
        loop = compiled(hogbom)
        reason = kernels_cpu.PAUSED
        while reason == kernels_cpu.PAUSED:
            self._count, reason = loop(
                self.images,
                self.images.view(np.int32),
                self._mask,
                self._psf,
                self._pair,
                self._reach,
                self._bound,
                self._bound.view(np.int32),
                self._settled,
                self._places,
                self._flux,
                self._count,
                until,
                self._gain,
                floor,
                self._divergence,
                self._least,
                self._is_signed,
                is_last,
                BUDGET,
            )
            tell(self._count)
        return reason


class Hogbom:
    """Minor cycles of points.

    Parameters
    ----------
    psf : ndarray of float32, shape (n, n)
        The beam.
    gain : float
        Part of a peak that is taken away.
    mask : ndarray of bool, shape (N, N), or None
        Where components may be.
    negative : bool
        Whether components may be negative.
    divergence : float
        Stop at a peak so many times the least one; 0 for never.
    """

    finds_points = True
    is_exact = True

    def __init__(
        self,
        psf: Array,
        gain: float,
        mask: Array | None,
        negative: bool,
        divergence: float,
    ) -> None:
        self._xp = namespace_of(psf)
        self._mask, self._is_signed = mask, not negative
        self._search = search_of(psf)(
            psf[np.newaxis],
            np.zeros((1, 1), np.int64),
            np.array([gain], np.float32),
            mask,
            negative,
            divergence,
        )

    def run(
        self, residual: Array, limit: int, floor: float, fraction: float, tell: Tell
    ) -> Found:
        """Find components; see `Minor`."""
        if fraction:
            floor = max(
                floor, fraction * peak_of(residual, self._mask, self._is_signed)
            )
        self._search.start(self._xp.array(residual[np.newaxis], dtype=np.float32))
        places, flux, ended = self._search.find(limit, floor, tell)
        self._found = Found(places[:, 1:], flux, ended)
        return self._found

    def add(self, model: Array) -> None:
        """Add what was found to a model image, shape (N, N)."""
        add_points(self._found, model)

    def left(self, tell: Tell) -> Array:
        """Return what is left of the image, by the beam; shape (N, N)."""
        self._search.settle(tell)
        return self._search.images[0]


def search_of(array: Array) -> Callable[..., Search]:
    """Return the search that works where an array is."""
    if namespace_of(array) is np:
        return TiledSearch
    from muser_pipeline.imaging.kernels_cuda import DeviceSearch

    return DeviceSearch
