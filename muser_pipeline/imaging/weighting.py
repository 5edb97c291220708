"""How much each visibility counts in an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S

Scheme = Literal["natural", "uniform", "briggs"]


@dataclass(frozen=True)
class Weighting:
    """A scheme of weights.

    Attributes
    ----------
    scheme : str
        "natural": as the visibilities come, for the least noise; "uniform": each cell
        of the uv plane alike, for the sharpest beam; "briggs": in between.
    robust : float
        Of Briggs: 2 is nearly natural, -2 nearly uniform.
    """

    scheme: Scheme = "natural"
    robust: float = 0.0

    def __post_init__(self) -> None:
        if self.scheme not in ("natural", "uniform", "briggs"):
            raise ImagingError(
                "weighting",
                f"weighting is natural, uniform or briggs, not {self.scheme!r}",
            )
        if not -5 <= self.robust <= 5:
            raise ImagingError(
                "weighting", f"robust is from -5 to 5, not {self.robust}"
            )


NATURAL = Weighting()


def weigh(
    uvw_m: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    weights: NDArray[np.float32],
    grid: Grid,
    weighting: Weighting = NATURAL,
    taper_rad: float = 0.0,
) -> NDArray[np.float32]:
    """Return the weights of visibilities in an image.

    Cells of the uv plane have a side of 1 / (size cell). All visibilities, of all
    channels, are counted together, and with each one its conjugate at -u, -v. One that
    lies beyond the grid, on a baseline that is too long for the cell of the image, gets
    the weight 0: it would be seen at wrong places.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Baselines in metres.
    frequency_hz : ndarray of float64, shape (channel,)
        Of the channels.
    weights : ndarray of float32, shape (row, channel)
        Of the visibilities; 0 where there is none.
    grid : Grid
        Of the image.
    weighting : Weighting, optional
        Natural by default.
    taper_rad : float, optional
        Full width at half maximum of the Gaussian that a taper smooths the image with;
        0 for none.

    Returns
    -------
    ndarray of float32, shape (row, channel)

    Raises
    ------
    ImagingError
        When nothing has a weight; its reason is "flagged", or "grid" when all lies
        beyond the grid.

    Notes
    -----
    Briggs: a visibility of weight w in a cell that holds W counts w / (1 + W f^2) with
    f^2 = (5 10^-robust)^2 sum(w) / sum(W^2). Source: Briggs 1995, High fidelity
    deconvolution of moderately resolved sources, chapter 3.
    """
    if not weights.any():
        raise ImagingError("flagged", "no visibility has a weight")
    per_m = frequency_hz / SPEED_OF_LIGHT_M_PER_S
    u = np.multiply.outer(uvw_m[:, 0], per_m)
    v = np.multiply.outer(uvw_m[:, 1], per_m)
    half = grid.size // 2
    column = np.rint(u * grid.extent_rad).astype(np.int64)
    row = np.rint(v * grid.extent_rad).astype(np.int64)
    inside = (np.abs(column) < half) & (np.abs(row) < half)
    weighed = np.where(inside, weights, 0).astype(np.float64)
    if not weighed.any():
        raise ImagingError(
            "grid",
            f"all baselines are too long for an image with {grid.size} cells of "
            f"{grid.cell_rad} rad",
        )
    if weighting.scheme != "natural":
        weighed = _by_density(weighed, column, row, inside, half, weighting)
    if taper_rad:
        fall = (np.pi * taper_rad) ** 2 / (4 * np.log(2))
        weighed *= np.exp(-fall * (u**2 + v**2))
    return weighed.astype(np.float32)


def _by_density(
    weights: NDArray[np.float64],
    column: NDArray[np.int64],
    row: NDArray[np.int64],
    inside: NDArray[np.bool_],
    half: int,
    weighting: Weighting,
) -> NDArray[np.float64]:
    """Return the weights divided by what the density of their cells asks for."""
    side = 2 * half
    cell = np.where(inside, (row + half) * side + column + half, 0)
    mirrored = np.where(inside, (half - row) * side + half - column, 0)
    density = np.bincount(
        np.concatenate([cell.ravel(), mirrored.ravel()]),
        np.concatenate([weights.ravel()] * 2),
        side * side,
    )
    own = density[cell]
    if weighting.scheme == "uniform":
        shared = np.where(weights > 0, own, 1.0)
    else:
        strength = (5.0 * 10.0**-weighting.robust) ** 2
        # the sums of W and of W^2 over cells, as sums over visibilities
        shared = 1.0 + own * (strength * np.sum(weights) / np.sum(weights * own))
    divided: NDArray[np.float64] = weights / shared
    return divided
