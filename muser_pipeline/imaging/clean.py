"""CLEAN: the points of which a dirty image is the beam's blurred view.

What is asked for, what comes out, and the major cycles that are common to all
algorithms. The minor cycles are in modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.errors import ImagingError

Algorithm = Literal["hogbom", "clark", "multiscale", "none"]
StoppedBy = Literal["iterations", "threshold", "sigma", "diverged", "empty"]
ALGORITHMS: tuple[Algorithm, ...] = ("hogbom", "clark", "multiscale", "none")


@dataclass(frozen=True)
class CleanOptions:
    """How an image is cleaned.

    Attributes
    ----------
    algorithm : str
        ``"hogbom"``, ``"clark"``, ``"multiscale"``, or ``"none"`` to leave it dirty.
    gain : float
        Part of a peak that one component takes away, above 0 and at most 1.
    iterations : int
        Components at most.
    threshold : float
        Peak of the residual at which to stop, in units of the image; 0 for never.
    threshold_sigma : float
        The same in units of the noise of the residual (its median absolute deviation
        times 1.4826), measured again until it does not fall any more; 0 for never.
    scales_pixels : tuple of float
        Widths of the components of multi-scale CLEAN; 0 is a point.
    scale_bias : float
        Multi-scale CLEAN prefers small scales the more, the smaller this is (0 to 1).
    cycle_fraction : float
        A minor cycle ends where the peak has fallen to this part of what it was.
    cycles : int
        Major cycles at most.
    negative : bool
        Whether components may be negative.
    divergence : float
        Stop where the peak has risen to this many times the least one seen; 0 for
        never.
    """

    algorithm: Algorithm = "hogbom"
    gain: float = 0.1
    iterations: int = 1000
    threshold: float = 0.0
    threshold_sigma: float = 0.0
    scales_pixels: tuple[float, ...] = (0.0, 3.0, 10.0, 30.0)
    scale_bias: float = 0.6
    cycle_fraction: float = 0.2
    cycles: int = 20
    negative: bool = True
    divergence: float = 2.0

    def __post_init__(self) -> None:
        """Turn down what cannot be meant.

        Raises
        ------
        ImagingError
            With reason ``"options"``.
        """
        wrong = [
            what
            for is_wrong, what in (
                (self.algorithm not in ALGORITHMS, f"one of {', '.join(ALGORITHMS)}"),
                (not 0 < self.gain <= 1, "a gain above 0 and at most 1"),
                (self.iterations < 0, "iterations, 0 or more"),
                (not self.threshold >= 0, "a threshold, 0 or more"),
                (not self.threshold_sigma >= 0, "a threshold in sigma, 0 or more"),
                (not self.scales_pixels, "scales"),
                (any(not s >= 0 for s in self.scales_pixels), "scales, 0 or more"),
                (not 0 < self.scale_bias <= 1, "a scale bias above 0, at most 1"),
                (not 0 < self.cycle_fraction < 1, "a cycle fraction between 0 and 1"),
                (self.cycles < 1, "one cycle or more"),
                (self.divergence < 0, "a divergence, 0 or more"),
            )
            if is_wrong
        ]
        if wrong:
            raise ImagingError("options", f"CLEAN wants {'; '.join(wrong)}: {self}")


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What CLEAN found.

    Attributes
    ----------
    model : ndarray of float32, shape (N, N)
        Sum of the components, flux per pixel.
    residual : ndarray of float32, shape (N, N)
        What is left of the dirty image.
    iterations : int
        Components taken.
    stopped_by : str
        ``"iterations"``, ``"threshold"``, ``"sigma"``, ``"diverged"``, or ``"empty"``
        where nothing was left or nothing was asked for.
    threshold : float
        The one in force at the end, in units of the image.
    components : ndarray of float64, shape (k, 3), or None
        y, x and flux of each, in the order found; None where they are not points.
    cycles : int
        Major cycles.
    """

    model: Any
    residual: Any
    iterations: int
    stopped_by: StoppedBy
    threshold: float
    components: NDArray[np.float64] | None
    cycles: int


def clean(
    dirty: Any,
    psf: Any,
    options: CleanOptions,
    mask: Any = None,
    residual_of: Callable[[Any], Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Cleaned:
    """Clean an image.

    Parameters
    ----------
    dirty : ndarray of float32, shape (N, N)
        The image.
    psf : ndarray of float32, shape (N, N)
        The beam, 1 at ``[N // 2, N // 2]``.
    options : CleanOptions
        How.
    mask : ndarray of bool, shape (N, N), optional
        Where components may be; everywhere by default.
    residual_of : callable, optional
        Returns the residual image of a model, through the visibilities; used in major
        cycles. Without it the beam is taken for exact.
    progress : callable, optional
        Called every few milliseconds with components found and components at most;
        what it raises ends the work.

    Returns
    -------
    Cleaned
        Model, residual and how it ended.

    Raises
    ------
    ImagingError
        Where the image or the beam is not finite (``"not-finite"``), or their shapes do
        not fit (``"shape"``).
    """
    check(dirty, psf, mask)
    residual = np.array(dirty, dtype=np.float32)
    model = np.zeros_like(residual)
    components: list[tuple[int, int, float]] = []
    size = len(residual)
    stopped_by: StoppedBy = "empty"
    if options.algorithm != "none":
        stopped_by = "iterations"
        while len(components) < options.iterations:
            height = np.abs(residual) if options.negative else residual
            if mask is not None:
                height = np.where(mask, height, -np.inf)
            y, x = divmod(int(np.argmax(height)), size)
            if height[y, x] <= options.threshold:
                stopped_by = "threshold"
                break
            flux = np.float32(options.gain) * residual[y, x]
            model[y, x] += flux
            _subtract(residual, psf, y, x, flux)
            components.append((y, x, float(flux)))
            if progress is not None:
                progress(len(components), options.iterations)
    found = np.array(components, dtype=np.float64).reshape(-1, 3)
    return Cleaned(model, residual, len(found), stopped_by, options.threshold, found, 1)


def _subtract(residual: Any, psf: Any, y: int, x: int, flux: np.float32) -> None:
    half = len(psf) // 2
    top, left = half - y, half - x
    rows = slice(max(0, -top), min(len(residual), len(psf) - top))
    columns = slice(max(0, -left), min(len(residual), len(psf) - left))
    beam = psf[
        rows.start + top : rows.stop + top,
        columns.start + left : columns.stop + left,
    ]
    residual[rows, columns] -= flux * beam


def check(dirty: Any, psf: Any, mask: Any = None) -> None:
    """Turn down images that cannot be cleaned.

    Raises
    ------
    ImagingError
        See `clean`.
    """
    shape = np.shape(dirty)
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] % 2:
        raise ImagingError("shape", f"an image is square and even, not {shape}")
    if np.shape(psf) != shape:
        raise ImagingError("shape", f"image {shape}, beam {np.shape(psf)}")
    if mask is not None and np.shape(mask) != shape:
        raise ImagingError("shape", f"image {shape}, mask {np.shape(mask)}")
    for name, array in (("image", dirty), ("beam", psf)):
        if not np.isfinite(array).all():
            raise ImagingError("not-finite", f"the {name} has values that are none")
