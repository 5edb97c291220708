"""CLEAN: the points of which a dirty image is the beam's blurred view.

What is asked for, what comes out, and the major cycles that are common to all
algorithms. The minor cycles are in modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, namespace_of
from muser_pipeline.imaging.clark import Clark
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.hogbom import Hogbom
from muser_pipeline.imaging.minor import Found, Minor
from muser_pipeline.imaging.multiscale import MultiScale
from muser_pipeline.imaging.thresholds import is_settled, peak_of, threshold_of

Algorithm = Literal["hogbom", "clark", "multiscale", "none"]
StoppedBy = Literal["iterations", "threshold", "sigma", "cycles", "diverged", "empty"]
ALGORITHMS: tuple[Algorithm, ...] = ("hogbom", "clark", "multiscale", "none")
_CENTRE = 1e-3
"""How far the centre of a beam may be from 1."""


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
    scale_bias: float = 0.9
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
        ``"iterations"``, ``"threshold"``, ``"sigma"``, ``"cycles"``, ``"diverged"``
        (what there was before is given back), or ``"empty"`` where nothing was left.
    threshold : float
        The one in force at the end, in units of the image.
    components : ndarray of float64, shape (k, 3), or None
        y, x and flux of each, in the order found; None where they are not points.
    cycles : int
        Major cycles.
    """

    model: Array
    residual: Array
    iterations: int
    stopped_by: StoppedBy
    threshold: float
    components: NDArray[np.float64] | None
    cycles: int


def clean(
    dirty: Array,
    psf: Array,
    options: CleanOptions,
    mask: Array = None,
    residual_of: Callable[[Array], Array] | None = None,
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
        Where the image or the beam is not finite (``"not-finite"``), their shapes do
        not fit (``"shape"``), or the beam is not 1 in its centre (``"beam"``).
    """
    check(dirty, psf, mask)
    if options.algorithm == "none":
        options = replace(options, algorithm="hogbom", iterations=0)
    return _Cleaning(dirty, psf, options, mask, residual_of, progress).done()


class _Cleaning:
    """The major cycles of one image."""

    def __init__(
        self,
        dirty: Array,
        psf: Array,
        options: CleanOptions,
        mask: Array | None,
        residual_of: Callable[[Array], Array] | None,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        xp = namespace_of(dirty)
        if mask is not None:
            mask = xp.ascontiguousarray(mask, dtype=bool)
        self._options, self._mask = options, mask
        self._residual_of, self._progress = residual_of, progress
        self._dirty = self._residual = xp.ascontiguousarray(dirty, dtype=np.float32)
        self._model = xp.zeros_like(self._residual)
        beam = xp.ascontiguousarray(psf, dtype=np.float32)
        self._minor = _minor_of(beam, options, mask)
        self._fraction = options.cycle_fraction
        if residual_of is None and self._minor.is_exact:
            self._fraction = 0.0
        self._found: list[Found] = []
        self._count = 0
        self._threshold = np.inf
        self._least = np.inf
        if self._fraction:
            self._least = peak_of(self._residual, mask, not options.negative)

    def done(self) -> Cleaned:
        """Do it all."""
        stopped_by: StoppedBy | None = None
        while stopped_by is None:
            stopped_by = self._cycle()
        if self._residual is self._dirty:
            self._residual = self._dirty.copy()
        return Cleaned(
            self._model,
            self._residual,
            self._count,
            stopped_by,
            self._threshold,
            self._components(),
            len(self._found),
        )

    def _cycle(self) -> StoppedBy | None:
        """Do a major cycle; return why it was the last one, if it was."""
        options, before = self._options, self._threshold
        if self._found and self._count >= options.iterations:
            return "iterations"
        self._threshold, wish = threshold_of(
            self._residual, options.threshold, options.threshold_sigma
        )
        if not options.iterations:
            return "iterations"
        if self._fraction and len(self._found) == options.cycles:
            return "cycles"
        if not self._fraction and is_settled(self._threshold, before):
            return wish
        limit = options.iterations - self._count
        found = self._minor.run(
            self._residual, limit, self._threshold, self._fraction, self._tell
        )
        if len(found.flux):
            is_better = self._take(found)
        elif found.ended == "floor":
            return wish if self._threshold else "empty"
        if found.ended == "diverged" or not is_better:
            return "diverged"
        return None

    def _take(self, found: Found) -> bool:
        """Take what a minor cycle found, unless it makes the image worse."""
        model = self._model.copy() if self._fraction else self._model
        self._minor.add(model)
        if self._residual_of is None:
            residual = self._minor.left(self._tell)
        else:
            residual = self._residual_of(model)
        if self._fraction:
            peak = peak_of(residual, self._mask, not self._options.negative)
            worst = self._least * (self._options.divergence or np.inf)
            if not peak <= worst:
                return False
            self._least = min(self._least, peak)
        self._model, self._residual = model, residual
        self._found.append(found)
        self._count += len(found.flux)
        return True

    def _tell(self, count: int) -> None:
        if self._progress is not None:
            self._progress(self._count + count, self._options.iterations)

    def _components(self) -> NDArray[np.float64] | None:
        if not self._minor.finds_points:
            return None
        columns = [np.column_stack([f.places, f.flux]) for f in self._found]
        components: NDArray[np.float64] = np.concatenate([np.zeros((0, 3)), *columns])
        return components


def _minor_of(psf: Array, options: CleanOptions, mask: Array | None) -> Minor:
    """Return the minor cycle that is asked for."""
    common = (options.gain, mask, options.negative, options.divergence)
    match options.algorithm:
        case "clark":
            return Clark(psf, *common)
        case "multiscale":
            return MultiScale(psf, *common, options.scales_pixels, options.scale_bias)
    return Hogbom(psf, *common)


def check(dirty: Array, psf: Array, mask: Array | None = None) -> None:
    """Turn down images that cannot be cleaned.

    Raises
    ------
    ImagingError
        See `clean`.
    """
    shape = dirty.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] % 2:
        raise ImagingError("shape", f"an image is square and even, not {shape}")
    if psf.shape != shape:
        raise ImagingError("shape", f"image {shape}, beam {psf.shape}")
    if mask is not None and mask.shape != shape:
        raise ImagingError("shape", f"image {shape}, mask {mask.shape}")
    xp = namespace_of(dirty)
    for name, array in (("image", dirty), ("beam", psf)):
        if not xp.isfinite(array).all():
            raise ImagingError("not-finite", f"the {name} has values that are none")
    centre = float(psf[shape[0] // 2, shape[1] // 2])
    if abs(centre - 1) > _CENTRE:
        raise ImagingError("beam", f"a beam is 1 in its centre, not {centre:.4g}")
