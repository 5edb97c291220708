"""Phases of antennas from the source itself, in turns with an image of it.

For arrays whose phases nobody has calibrated, as at short wavelengths, where the air
over each antenna changes them in seconds: the source is first taken for a disk that
fills a window, and phases are solved for on it; then an image is cleaned within the
window, and phases are solved for on its components, and so on. What three antennas see
together does not depend on their phases, and makes the image another one than the disk.

Source: Pearson and Readhead 1984, Image formation by self-calibration in radio
astronomy, ARA&A 22, 97.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1

from muser_pipeline.imaging.clean import CleanOptions, clean
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.selfcal import solve_phases
from muser_pipeline.imaging.visibilities import (
    SPEED_OF_LIGHT_M_PER_S,
    Snapshot,
    check,
)
from muser_pipeline.imaging.weighting import Weighting, weigh

PIXELS = 128
WINDOWS = 5
"""Side of the image on which components are found: it may not be small, or what is
outside of it is folded into it."""
_GAIN, _ITERATIONS = 0.05, 500
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class HybridOptions:
    """How phases are found.

    Attributes
    ----------
    window_rad : float
        Diameter of the disk that the source is within, about the phase centre.
    interval_s : float
        How long phases stay as they are.
    cycles : int
        How often phases and image take turns.
    systematic : float
        Part of a visibility, and of the usual one, that nobody knows, whatever its
        weight says.
    shortest_wavelengths : float
        Shorter baselines are not used: they see what is outside of the window too.
    """

    window_rad: float
    interval_s: float = 10.0
    cycles: int = 30
    systematic: float = 0.1
    shortest_wavelengths: float = 0.0

    def __post_init__(self) -> None:
        """Turn down what cannot be meant.

        Raises
        ------
        ImagingError
            With reason ``"options"``.
        """
        if not (self.window_rad > 0 and self.interval_s > 0 and self.cycles > 0):
            raise ImagingError(
                "options", f"a window, an interval and cycles are positive: {self}"
            )


def find_phases(
    snapshot: Snapshot,
    polarization: str,
    options: HybridOptions,
    progress: Callable[[str, int, int], None] | None = None,
) -> Snapshot:
    """Return visibilities with the phases of antennas taken away.

    Parameters
    ----------
    snapshot : Snapshot
        Of one source; its weights are one over the variances of the visibilities.
    polarization : str
        What phases are found on.
    options : HybridOptions
        How.
    progress : callable, optional
        As for `make_image`; called for each cycle.

    Returns
    -------
    Snapshot
        Of that polarisation alone, with weights that take account of what is not known
        of the visibilities.

    Raises
    ------
    ImagingError
        When there is no image in this, see `check`.
    """
    check(snapshot, polarization)
    data, weights = snapshot.stokes(polarization)
    per_m = snapshot.frequency_hz / SPEED_OF_LIGHT_M_PER_S
    lengths = (
        np.hypot(snapshot.uvw_m[:, 0], snapshot.uvw_m[:, 1])[:, np.newaxis] * per_m
    )
    is_long = lengths >= options.shortest_wavelengths
    weights = np.where(is_long, weights, np.float32(0))
    alone = snapshot.replace(
        polarizations=(polarization,),
        data=data[np.newaxis],
        weights=weights[np.newaxis],
    )
    # not everything may be too short
    check(alone, polarization)
    weights = _sober(data, weights, options)
    alone = alone.replace(weights=weights[np.newaxis])
    antennas = _Antennas(alone, options.interval_s)
    view = _Window(alone, weights, options.window_rad)
    model = _disk(np.pi * options.window_rad * lengths)
    for cycle in range(options.cycles):
        if progress is not None:
            progress("phases", cycle, options.cycles)
        data = antennas.corrected(alone.data[0], weights, model)
        if cycle < options.cycles - 1:
            model = view.components(data)
    return alone.replace(data=data[np.newaxis])


def _sober(
    data: NDArray[np.complex64], weights: NDArray[np.float32], options: HybridOptions
) -> NDArray[np.float32]:
    """Return weights of which none is larger than what is known of a visibility."""
    used = weights > 0
    variance = np.divide(1.0, weights, out=np.zeros(weights.shape), where=used)
    squares = np.abs(data) ** 2
    squares += np.median(squares[used])
    variance += options.systematic**2 * squares
    sober = np.divide(1.0, variance, out=np.zeros(weights.shape), where=used)
    return np.asarray(sober, dtype=np.float32)


def _disk(argument: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the visibilities of a uniform disk of flux 1: 2 J1(x) / x."""
    safe = np.where(argument > 0, argument, 1.0)
    seen = np.where(argument > 0, 2 * j1(safe) / safe, 1.0)
    return np.asarray(seen, dtype=np.complex128)


class _Antennas:
    """Which visibilities are of which antennas and times."""

    def __init__(self, snapshot: Snapshot, interval_s: float) -> None:
        numbers, places = np.unique(
            np.concatenate([snapshot.antenna1, snapshot.antenna2]), return_inverse=True
        )
        self._count = len(numbers)
        self._first, self._second = np.split(places, 2)
        times = snapshot.time_utc_ns - snapshot.time_utc_ns.min()
        _, which = np.unique(times // round(interval_s * 1e9), return_inverse=True)
        order = np.argsort(which, kind="stable")
        cuts = np.flatnonzero(np.diff(which[order])) + 1
        self._intervals = np.split(order, cuts)

    def corrected(
        self,
        data: NDArray[np.complex64],
        weights: NDArray[np.float32],
        model: NDArray[np.complex128],
    ) -> NDArray[np.complex64]:
        """Return visibilities with the phases by which they are like a model's."""
        products = (weights * data * np.conj(model)).sum(axis=1)
        squares = (weights * np.abs(model) ** 2).sum(axis=1)
        turned = np.empty_like(data)
        for rows in self._intervals:
            at = self._first[rows], self._second[rows]
            ratios = np.zeros((self._count, self._count), dtype=np.complex128)
            known = np.zeros(ratios.shape)
            np.add.at(ratios, at, products[rows])
            np.add.at(known, at, squares[rows])
            ratios, known = ratios + ratios.conj().T, known + known.T
            np.divide(ratios, known, out=ratios, where=known > 0)
            gains = solve_phases(ratios, known, _TOLERANCE).gains
            turn = np.conj(gains[at[0]]) * gains[at[1]]
            turned[rows] = data[rows] * turn[:, np.newaxis]
        return turned


class _Window:
    """The part of the sky that the source is in."""

    def __init__(
        self, snapshot: Snapshot, weights: NDArray[np.float32], window_rad: float
    ) -> None:
        grid = Grid(PIXELS, WINDOWS * window_rad / PIXELS)
        uvw_m, frequency_hz = snapshot.uvw_m, snapshot.frequency_hz
        self._gridder = Gridder(uvw_m, frequency_hz, grid)
        uniform = Weighting("uniform")
        self._weights = weigh(uvw_m, frequency_hz, weights, grid, uniform)
        self._psf = self._gridder.beam(self._weights)
        east, north = np.meshgrid(*grid.coordinates())
        self._mask = np.hypot(east, north) <= window_rad / 2
        self._options = CleanOptions(
            gain=_GAIN, iterations=_ITERATIONS, negative=False, divergence=0.0
        )

    def components(self, data: NDArray[np.complex64]) -> NDArray[np.complex128]:
        """Return the visibilities of what CLEAN finds within the window."""
        dirty = self._gridder.image(data, self._weights)
        cleaned = clean(dirty, self._psf, self._options, mask=self._mask)
        return np.asarray(self._gridder.predict(cleaned.model), dtype=np.complex128)
