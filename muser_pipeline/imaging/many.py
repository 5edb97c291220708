"""CLEAN of several images at once: what keeps a GPU busy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, namespace_of
from muser_pipeline.imaging.clean import Cleaned, CleanOptions, StoppedBy, check, clean
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.minor import Ended, Found, add_points
from muser_pipeline.imaging.thresholds import is_settled, single, threshold_of


def clean_many(
    dirty: Array,
    psf: Array,
    options: CleanOptions,
    mask: Array | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Cleaned]:
    """Clean images of the same size, without major cycles; as `clean`, one by one.

    On a GPU Hogbom's loop goes on in all of them at once; anything else is done one by
    one.

    Parameters
    ----------
    dirty : ndarray of float32, shape (image, N, N)
        The images.
    psf : ndarray of float32, shape (image or 1, N, N)
        Their beams, or one for all.
    options : CleanOptions
        How.
    mask : ndarray of bool, shape (N, N), optional
        Where components may be.
    progress : callable, optional
        As of `clean`.

    Returns
    -------
    list of Cleaned
        In the order of the images.

    Raises
    ------
    ImagingError
        As `clean`.
    """
    if len(psf) not in (1, len(dirty)):
        raise ImagingError("shape", f"{len(dirty)} images, {len(psf)} beams")
    beams = [psf[k if len(psf) > 1 else 0] for k in range(len(dirty))]
    if namespace_of(dirty) is np or options.algorithm != "hogbom":
        return [
            clean(image, beam, options, mask, progress=progress)
            for image, beam in zip(dirty, beams, strict=True)
        ]
    for image, beam in zip(dirty, beams, strict=True):
        check(image, beam, mask)
    return _Many(dirty, psf, options, mask, progress).done()


class _Many:
    """Rounds of Hogbom's loop, until no threshold falls any more."""

    def __init__(
        self,
        dirty: Array,
        psf: Array,
        options: CleanOptions,
        mask: Array | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        from muser_pipeline.imaging.kernels_cuda import DeviceBatch

        self._options, self._progress = options, progress
        self._images = namespace_of(dirty).array(dirty[:, np.newaxis], dtype=np.float32)
        self._batch = DeviceBatch(
            psf[:, np.newaxis],
            np.zeros((1, 1), np.int64),
            np.array([options.gain], np.float32),
            mask,
            options.negative,
            options.divergence,
        )
        self._limits = np.full(len(dirty), options.iterations)
        self._floors = np.full(len(dirty), np.inf, np.float32)
        self._thresholds = np.full(len(dirty), np.inf)
        self._wishes: list[StoppedBy] = ["threshold"] * len(dirty)
        self._stopped: dict[int, StoppedBy] = {}
        self._found: list[list[Found]] = [[] for _ in dirty]

    def done(self) -> list[Cleaned]:
        """Do it all."""
        while len(self._stopped) < len(self._images):
            self._round()
        return [self._cleaned(k) for k in range(len(self._images))]

    def _round(self) -> None:
        for k in self._going():
            before = self._thresholds[k]
            self._thresholds[k], self._wishes[k] = threshold_of(
                self._images[k, 0],
                self._options.threshold,
                self._options.threshold_sigma,
            )
            self._floors[k] = single(self._thresholds[k])
            if is_settled(self._thresholds[k], before):
                self._stop(k, self._wishes[k])
        going = self._going()
        if not going:
            return
        found = self._batch.find(self._images, self._limits, self._floors, self._tell)
        for k in going:
            self._take(k, *found[k])

    def _going(self) -> list[int]:
        return [k for k in range(len(self._images)) if k not in self._stopped]

    def _take(
        self,
        k: int,
        places: NDArray[np.int64],
        flux: NDArray[np.float32],
        ended: Ended,
    ) -> None:
        self._limits[k] -= len(flux)
        if len(flux):
            self._found[k].append(Found(places[:, 1:], flux, ended))
        if ended == "diverged":
            self._stop(k, "diverged")
        elif not self._limits[k]:
            self._stop(k, "iterations")
        elif not len(flux):
            self._stop(k, self._wishes[k] if self._thresholds[k] else "empty")

    def _stop(self, k: int, why: StoppedBy) -> None:
        self._stopped[k] = why
        self._limits[k], self._floors[k] = 0, np.inf

    def _tell(self, count: int) -> None:
        if self._progress is not None:
            self._progress(count, self._options.iterations)

    def _cleaned(self, k: int) -> Cleaned:
        residual = self._images[k, 0]
        model = namespace_of(residual).zeros_like(residual)
        for found in self._found[k]:
            add_points(found, model)
        columns = [np.column_stack([f.places, f.flux]) for f in self._found[k]]
        components = np.concatenate([np.zeros((0, 3)), *columns])
        return Cleaned(
            model,
            residual,
            len(components),
            self._stopped[k],
            float(self._thresholds[k]),
            components,
            len(self._found[k]),
        )
