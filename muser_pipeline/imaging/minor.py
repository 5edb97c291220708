"""What a minor cycle is given and what it gives back, whatever its algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, namespace_of

Ended = Literal["limit", "floor", "diverged"]
Tell = Callable[[int], None]
"""Told every few milliseconds how many components a minor cycle has found; may raise.
"""


@dataclass(frozen=True, eq=False)
class Found:
    """What a minor cycle found.

    Attributes
    ----------
    places : ndarray of int64, shape (k, 2)
        y and x of components.
    flux : ndarray of float32, shape (k,)
        Of components.
    ended : str
        With as many components as there might be, at the floor, or because the peaks
        rose; then what was found before they did is given back.
    """

    places: NDArray[np.int64]
    flux: NDArray[np.float32]
    ended: Ended


class Minor(Protocol):
    """A minor cycle of CLEAN, with what it keeps between cycles.

    Attributes
    ----------
    finds_points : bool
        Whether components are points.
    is_exact : bool
        Whether `left` is what a subtraction of the beam gives, up to the edges.
    """

    finds_points: bool
    is_exact: bool

    def run(
        self, residual: Array, limit: int, floor: float, fraction: float, tell: Tell
    ) -> Found:
        """Find components.

        Parameters
        ----------
        residual : ndarray of float32, shape (N, N)
            The image; kept as it is.
        limit : int
            Components at most.
        floor : float
            Peak at which to stop.
        fraction : float
            Part of the first peak at which to stop, if that is higher.
        tell : callable
            See `Tell`.
        """
        ...

    def add(self, model: Array) -> None:
        """Add what was found to a model image, shape (N, N)."""
        ...

    def left(self, tell: Tell) -> Array:
        """Return what is left of the image, by the beam; shape (N, N)."""
        ...


def add_points(found: Found, model: Array) -> None:
    """Add points to a model image, shape (N, N)."""
    xp = namespace_of(model)
    places, flux = merged(found.places, found.flux)
    model[xp.asarray(places[:, 0]), xp.asarray(places[:, 1])] += xp.asarray(flux)


def merged(
    places: NDArray[np.int64], flux: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each place once, with all of its flux, summed in double precision."""
    once, which = np.unique(places, axis=0, return_inverse=True)
    sums = np.bincount(which.ravel(), weights=flux, minlength=len(once))
    return once, sums.astype(np.float32)
