"""Multi-scale CLEAN: components as wide as what is there.

The residual is looked at through round windows of several widths. Each of these views
is divided by the square root of what its window leaves of the beam: a peak then says
how much a component of that width takes away, in the units of the image, and noise is
as strong in all views.

Source: T. J. Cornwell, IEEE Journal of Selected Topics in Signal Processing 2, 793
(2008), with a Hann window in place of his prolate spheroidal function.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, namespace_of
from muser_pipeline.imaging.convolving import Convolver
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.hogbom import Search, search_of
from muser_pipeline.imaging.minor import Found, Tell
from muser_pipeline.imaging.thresholds import peak_of


def scale_window(scale: float) -> NDArray[np.float32]:
    """Return the shape of a component.

    Parameters
    ----------
    scale : float
        Its radius in pixels, where it has fallen to 0; 1.16 of its width at half
        height. A point if it is under 1.

    Returns
    -------
    ndarray of float32, shape (2 k + 1, 2 k + 1)
        (1 - r^2) (1 + cos pi r) / 2, with r the distance in radii, divided by its sum.
    """
    half = int(np.ceil(scale)) - 1 if scale > 1 else 0
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    r = np.hypot(y, x) / max(scale, 1.0)
    window = np.where(r < 1, (1 - r**2) * (1 + np.cos(np.pi * r)) / 2, 0.0)
    normalised: NDArray[np.float32] = (window / window.sum()).astype(np.float32)
    return normalised


class MultiScale:
    """Minor cycles of components of several widths.

    Parameters
    ----------
    psf : ndarray of float32, shape (N, N)
        The beam.
    gain : float
        Part of a peak that is taken away.
    mask : ndarray of bool, shape (N, N), or None
        Where the centres of components may be.
    negative : bool
        Whether components may be negative.
    divergence : float
        Stop at a peak so many times the least one; 0 for never.
    scales : sequence of float
        Radii of components in pixels.
    bias : float
        What peaks of the largest scale are multiplied by; in proportion for others.

    Raises
    ------
    ImagingError
        Where a scale does not fit into half the image (``"options"``).
    """

    finds_points = False
    is_exact = False

    def __init__(
        self,
        psf: Array,
        gain: float,
        mask: Array | None,
        negative: bool,
        divergence: float,
        scales: tuple[float, ...],
        bias: float,
    ) -> None:
        self._xp, self._psf, self._mask = namespace_of(psf), psf, mask
        self._gain, self._divergence = gain, divergence
        self._negative, self._bias = negative, bias
        self._scales = tuple(sorted(set(scales)))
        if self._scales[-1] > len(psf) / 4:
            raise ImagingError(
                "options",
                f"scale {self._scales[-1]:g} is too large for {len(psf)} pixels",
            )
        self._windows = [scale_window(scale) for scale in self._scales]
        self._search: Search | None = None

    def run(
        self, residual: Array, limit: int, floor: float, fraction: float, tell: Tell
    ) -> Found:
        """Find components; see `Minor`."""
        search = self._search or self._prepare(tell)
        self._residual = residual
        spectrum = self._views.transform(residual)
        views = self._xp.empty((len(self._windows), *residual.shape), np.float32)
        for k, window in enumerate(self._spectra):
            tell(0)
            views[k] = self._views.image(spectrum * window)
            views[k] *= self._weights[k]
        floor = max(floor, fraction * peak_of(views, self._mask, not self._negative))
        search.start(views)
        places, flux, ended = search.find(limit, floor, tell)
        tell(len(flux))
        self._part = self._xp.asarray(self._drawn(places, flux, len(residual)))
        return Found(places[:, 1:], flux, ended)

    def add(self, model: Array) -> None:
        """Add what was found to a model image, shape (N, N)."""
        model += self._part

    def left(self, tell: Tell) -> Array:
        """Return what is left of the image, by the beam; shape (N, N)."""
        tell(0)
        spectrum = self._wide.transform(self._part) * self._beam
        tell(0)
        left = self._residual - self._wide.image(spectrum)
        tell(0)
        return left

    def _prepare(self, tell: Tell) -> Search:
        """Compute what is the same in all cycles."""
        size, widest = len(self._psf), len(self._windows[-1])
        self._wide = Convolver(size, size, self._xp)
        self._beam = self._wide.centred(self._psf)
        tell(0)
        self._views = Convolver(size, 2 * widest, self._xp)
        self._spectra = [
            self._views.centred(self._xp.asarray(window)) for window in self._windows
        ]
        beams, pair = self._beams(tell)
        half = size // 2
        centre = np.array([float(beams[k, half, half]) for k in pair.diagonal()])
        relative = np.array(self._scales) / max(self._scales[-1], 1.0)
        favour = 1 - (1 - self._bias) * relative
        self._weights = (favour / np.sqrt(centre)).astype(np.float32)
        for k, (a, b) in enumerate(_pairs(len(self._scales))):
            beams[k] *= self._weights[a] * self._weights[b]
        self._search = search_of(self._psf)(
            beams,
            pair,
            (self._gain / favour**2).astype(np.float32),
            self._mask,
            self._negative,
            self._divergence,
        )
        return self._search

    def _beams(self, tell: Tell) -> tuple[Array, NDArray[np.int64]]:
        """Return what components of each scale leave in the view of each."""
        pairs = _pairs(len(self._windows))
        pair = np.zeros((len(self._windows),) * 2, np.int64)
        beams = self._xp.empty((len(pairs), *self._psf.shape), np.float32)
        spectrum = self._views.transform(self._psf)
        for k, (a, b) in enumerate(pairs):
            tell(0)
            pair[a, b] = pair[b, a] = k
            beams[k] = self._views.image(spectrum * self._spectra[a] * self._spectra[b])
        return beams, pair

    def _drawn(
        self, places: NDArray[np.int64], flux: NDArray[np.float32], size: int
    ) -> NDArray[np.float32]:
        """Return the image of components; what lies beyond its edges is left out."""
        margin = len(self._windows[-1]) // 2
        drawn = np.zeros((size + 2 * margin,) * 2)
        for (layer, y, x), height in zip(places, flux, strict=True):
            window = self._windows[layer]
            top, left = (at + margin - len(window) // 2 for at in (y, x))
            to = drawn[top : top + len(window), left : left + len(window)]
            to += float(height * self._weights[layer]) * window
        inner = drawn[margin : margin + size, margin : margin + size]
        return inner.astype(np.float32)


def _pairs(count: int) -> list[tuple[int, int]]:
    return list(itertools.combinations_with_replacement(range(count), 2))
