"""Clark CLEAN: Hogbom's loop over the brightest pixels alone, for a while.

A pass lists the pixels above a part of the peak and finds components among them; all
other pixels wait until the pass is over. The listed ones see the whole beam, not a
patch of it, so that they are right as long as the pass lasts.

Source: B. G. Clark, Astronomy and Astrophysics 89, 377 (1980).
"""

from __future__ import annotations

import functools
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging import kernels_cpu
from muser_pipeline.imaging.backend import Array, namespace_of
from muser_pipeline.imaging.convolving import Convolver
from muser_pipeline.imaging.hogbom import search_of
from muser_pipeline.imaging.kernels_cpu import clark, compiled
from muser_pipeline.imaging.minor import Ended, Found, Tell, add_points, merged
from muser_pipeline.imaging.thresholds import peak_of, single

LEVEL = 0.5
"""Part of the peak above which pixels are listed."""
MOST = 8192
"""Pixels in a list: a step then takes 10 microseconds."""
NARROWEST = 0.9
"""Part of the peak down to which a pass goes at least, though there be more pixels."""
DIRECT = 150
"""Points that are subtracted one by one; more are folded with the beam, by Fourier
transforms that take as long."""
BUDGET = 2_000_000
"""Pixels between two calls of progress: about 3 ms."""


class Clark:
    """Minor cycles of points among the brightest pixels.

    Parameters
    ----------
    psf : ndarray of float32, shape (N, N)
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
        self._psf, self._gain, self._mask = psf, np.float32(gain), mask
        self._is_signed, self._divergence = not negative, divergence or np.inf
        self._xp = namespace_of(psf)
        self._search = search_of(psf)(
            psf[np.newaxis],
            np.zeros((1, 1), np.int64),
            np.array([gain], np.float32),
            None,
            negative,
            0.0,
        )
        self._folding: tuple[Convolver, Array] | None = None
        self._loop = list_loop_of(psf)

    def run(
        self, residual: Array, limit: int, floor: float, fraction: float, tell: Tell
    ) -> Found:
        """Find components; see `Minor`."""
        self._residual = residual
        peak = least = peak_of(residual, self._mask, self._is_signed)
        floor = max(floor, fraction * peak)
        parts: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        count = 0
        ended: Ended = "limit"
        while count < limit:
            if peak <= floor:
                ended = "floor"
                break
            tell_all = functools.partial(_tell_more, tell, count)
            places, flux = self._pass(peak, floor, limit - count, tell_all)
            left = self._subtract(places, flux, tell_all)
            peak = peak_of(left, self._mask, self._is_signed)
            if peak > self._divergence * least:
                ended = "diverged"
                break
            least = min(least, peak)
            self._residual = left
            parts.append((places, flux))
            count += len(flux)
        self._found = Found(
            np.concatenate([np.zeros((0, 2), np.int64), *(p for p, _ in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(f for _, f in parts)]),
            ended,
        )
        return self._found

    def add(self, model: Array) -> None:
        """Add what was found to a model image, shape (N, N)."""
        add_points(self._found, model)

    def left(self, tell: Tell) -> Array:
        """Return what is left of the image, by the beam; shape (N, N)."""
        return self._residual

    def _pass(
        self, peak: float, floor: float, limit: int, tell: Tell
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return components among the brightest pixels."""
        level, pixels = self._brightest(max(floor, LEVEL * peak))
        stop = max(floor, min(level, NARROWEST * peak))
        y, x = self._xp.divmod(pixels, len(self._residual))
        values = self._residual[y, x]
        return self._loop(
            values,
            y,
            x,
            self._psf,
            limit,
            self._gain,
            single(stop),
            self._is_signed,
            tell,
        )

    def _brightest(self, level: float) -> tuple[float, Array]:
        """Return a level, no lower than this, and the pixels above it, in order."""
        xp = self._xp
        height = self._residual if self._is_signed else xp.abs(self._residual)
        if self._mask is not None:
            height = xp.where(self._mask, height, np.float32(0))
        height = height.reshape(-1)
        pixels = xp.flatnonzero(height > level)
        if len(pixels) > MOST:
            found = height[pixels]
            level = float(xp.partition(found, len(found) - MOST)[len(found) - MOST])
            is_above = found > level
            pixels = pixels[is_above if is_above.any() else found == level][:MOST]
        return level, pixels

    def _subtract(
        self, places: NDArray[np.int64], flux: NDArray[np.float32], tell: Tell
    ) -> Array:
        """Return the image without components."""
        places, flux = merged(places, flux)
        if len(flux) <= DIRECT:
            layers = np.column_stack([np.zeros(len(flux), np.int64), places])
            self._search.start(self._residual[np.newaxis].copy())
            self._search.subtract(layers, flux, lambda _: tell(0))
            return self._search.images[0]
        size, xp = len(self._residual), self._xp
        if self._folding is None:
            convolver = Convolver(size, len(self._psf), xp)
            self._folding = convolver, convolver.centred(self._psf)
        convolver, beam = self._folding
        tell(0)
        points = xp.zeros((size, size), dtype=np.float32)
        points[xp.asarray(places[:, 0]), xp.asarray(places[:, 1])] = xp.asarray(flux)
        spectrum = convolver.transform(points) * beam
        tell(0)
        left = self._residual - convolver.image(spectrum)
        tell(0)
        return left


def _tell_more(tell: Tell, before: int, count: int) -> None:
    tell(before + count)


class ListLoop(Protocol):
    """Takes components away from a list of pixels."""

    def __call__(
        self,
        values: Array,
        y: Array,
        x: Array,
        psf: Array,
        limit: int,
        gain: np.float32,
        floor: np.float32,
        is_signed: bool,
        tell: Tell,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return y and x (k, 2) and flux (k,) of components."""
        ...


def host_loop(
    values: Array,
    y: Array,
    x: Array,
    psf: Array,
    limit: int,
    gain: np.float32,
    floor: np.float32,
    is_signed: bool,
    tell: Tell,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Take components away from a list of pixels, on a processor core.

    Parameters
    ----------
    values, y, x : ndarray of float32, int64 and int64, shape (n,)
        The pixels; the values are written to.
    psf : ndarray of float32, shape (m, m)
        The beam.
    limit : int
        Components at most.
    gain : float32
        Part of a peak that is taken away.
    floor : float32
        Stop at a peak that is not above this.
    is_signed : bool
        Look for positive peaks only.
    tell : callable
        See `Tell`.

    Returns
    -------
    places, flux : ndarray of int64 (k, 2) and float32 (k,)
        y and x of components, and their flux.
    """
    loop = compiled(clark)
    found, flux = np.zeros(limit, np.int64), np.zeros(limit, np.float32)
    count, reason = 0, kernels_cpu.PAUSED
    while reason == kernels_cpu.PAUSED:
        count, reason = loop(
            values,
            values.view(np.int32),
            y,
            x,
            psf,
            found,
            flux,
            count,
            limit,
            gain,
            floor,
            is_signed,
            BUDGET,
        )
        tell(count)
    found = found[:count]
    return np.column_stack([y[found], x[found]]), flux[:count]


def list_loop_of(array: Array) -> ListLoop:
    """Return the loop that works where an array is."""
    if namespace_of(array) is np:
        return host_loop
    from muser_pipeline.imaging.kernels_cuda import device_loop

    return device_loop
