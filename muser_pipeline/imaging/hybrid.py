"""Phases of antennas from the source itself, in turns with an image of it.

For arrays whose phases nobody has calibrated, as at short wavelengths, where the air
over each antenna changes them in seconds: the source is first taken for the simplest
one that fits what phases of antennas cannot change, and phases are solved for on it;
then an image is cleaned within a window, and phases are solved for on its components,
and so on, for as long as components explain amplitudes and closure phases better.

Source: Pearson and Readhead 1984, Image formation by self-calibration in radio
astronomy, ARA&A 22, 97.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.clean import CleanOptions, clean
from muser_pipeline.imaging.closures import (
    Closures,
    Floats,
    Integers,
    Model,
    close,
)
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.selfcal import solve_phases
from muser_pipeline.imaging.start_models import Start, choose_start
from muser_pipeline.imaging.visibilities import (
    SPEED_OF_LIGHT_M_PER_S,
    Snapshot,
    check,
)
from muser_pipeline.imaging.weighting import Weighting, weigh

Progress = Callable[[str, int, int], None]

PIXELS = 128
WINDOWS = 5
"""Side of the image on which components are found: it may not be small, or what is
outside of it is folded into it."""
_GAIN, _ITERATIONS = 0.05, 500
_TOLERANCE = 1e-6
_PATIENCE = 4
"""Cycles without a better fit after which no more is tried."""
_BETTER = 0.99
"""Of chi squared, what counts as a better fit."""


@dataclass(frozen=True)
class HybridOptions:
    """How phases are found.

    Attributes
    ----------
    window_rad : float
        Diameter of the disk that the source is within, about the phase centre; 0 for
        that of the source that is begun with, and a fringe.
    interval_s : float
        How long phases stay as they are.
    cycles : int
        How often phases and image take turns, at most.
    systematic : float
        Part of a visibility, and of the usual one, that nobody knows, whatever its
        weight says.
    shortest_wavelengths : float
        Shorter baselines are not used: they see what is outside of the window too.
    """

    window_rad: float = 0.0
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
        if not (self.window_rad >= 0 and self.interval_s > 0 and self.cycles > 0):
            raise ImagingError(
                "options",
                f"an interval and cycles are positive, a window is not less than 0: "
                f"{self}",
            )


@dataclass(frozen=True, eq=False)
class Found:
    """Visibilities with phases, and how they were found.

    Attributes
    ----------
    snapshot : Snapshot
        Of one polarisation, with weights that take account of what is not known of
        the visibilities.
    start : Start
        The source that was begun with.
    window_rad : float
        Diameter of the disk that components are within.
    closure_phases, amplitudes : tuple of float
        Chi squared of each, by its number: of the source that was begun with, and of
        the components in the end.
    cycles : int
        How often phases and image took turns.
    shortest_wavelengths : float
        Shorter baselines were not used.
    coherence : tuple of float, optional
        Of the phases as they came, and what would be expected were they known, where
        that was looked at.
    """

    snapshot: Snapshot
    start: Start
    window_rad: float
    closure_phases: tuple[float, float]
    amplitudes: tuple[float, float]
    cycles: int
    shortest_wavelengths: float
    coherence: tuple[float, float] | None = None


def find_phases(
    snapshot: Snapshot,
    polarization: str,
    options: HybridOptions,
    progress: Progress | None = None,
) -> Found:
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
    Found
        With phases that are right but for the place of the source.

    Raises
    ------
    ImagingError
        When there is no image in this, see `check`; with reason ``"closure"`` when no
        three antennas were seen together.
    """
    alone = only(snapshot, polarization, options.shortest_wavelengths)
    closures = close(alone, polarization, options.systematic)
    if closures is None:
        raise ImagingError(
            "closure",
            "no three antennas have seen the source together: phases of antennas "
            "cannot be told from those of the source",
        )
    return begin_with(choose_start(closures), closures, alone, options, progress)


def only(
    snapshot: Snapshot, polarization: str, shortest_wavelengths: float = 0.0
) -> Snapshot:
    """Return visibilities of one polarisation, without those of short baselines.

    Raises
    ------
    ImagingError
        When there is no image in what is left, see `check`.
    """
    check(snapshot, polarization)
    data, weights = snapshot.stokes(polarization)
    is_long = lengths_of(snapshot) >= shortest_wavelengths
    alone = snapshot.replace(
        polarizations=(polarization,),
        data=data[np.newaxis],
        weights=np.where(is_long, weights, np.float32(0))[np.newaxis],
    )
    # not everything may be too short
    check(alone, polarization)
    return alone


def begin_with(
    start: Start,
    closures: Closures,
    alone: Snapshot,
    options: HybridOptions,
    progress: Progress | None = None,
) -> Found:
    """Return what `find_phases` does, when what it begins with is known.

    Parameters
    ----------
    start : Start
        The source.
    closures : Closures
        Of the visibilities.
    alone : Snapshot
        Of one polarisation.
    options : HybridOptions
        How.
    progress : callable, optional
        As for `make_image`.
    """
    data = alone.data[0]
    weights = sober_weights(alone, options.systematic)
    window_rad = options.window_rad or start.extent_rad + closures.fringe_rad
    antennas = _Antennas(alone, options.interval_s)
    view = _Window(alone, weights, window_rad)
    model = view.of(start)
    before = closures.chi_squared(start)
    best, fit, since, cycle = model, (np.inf, np.inf), 0, 0
    for cycle in range(1, options.cycles + 1):
        if progress is not None:
            progress("phases", cycle - 1, options.cycles)
        image = view.components(antennas.corrected(data, weights, model))
        model = view.seen(image) * view.to_the_middle(image)
        now = closures.chi_squared(view.source(image))
        since += 1
        if sum(now) < _BETTER * sum(fit):
            best, fit, since = model, now, 0
        if since == _PATIENCE:
            break
    turned = antennas.corrected(data, weights, best)
    return Found(
        snapshot=alone.replace(data=turned[np.newaxis], weights=weights[np.newaxis]),
        start=start,
        window_rad=window_rad,
        closure_phases=(before[0], fit[0]),
        amplitudes=(before[1], fit[1]),
        cycles=cycle,
        shortest_wavelengths=options.shortest_wavelengths,
    )


def lengths_of(snapshot: Snapshot) -> Floats:
    """Return lengths of baselines in wavelengths, shape (row, channel)."""
    metres = np.hypot(snapshot.uvw_m[:, 0], snapshot.uvw_m[:, 1])
    return np.asarray(
        metres[:, np.newaxis] * (snapshot.frequency_hz / SPEED_OF_LIGHT_M_PER_S)
    )


def sober_weights(alone: Snapshot, systematic: float) -> NDArray[np.float32]:
    """Return weights of which none is larger than what is known of a visibility.

    Parameters
    ----------
    alone : Snapshot
        Of one polarisation.
    systematic : float
        Part of a visibility, and of the usual one, that nobody knows.

    Returns
    -------
    ndarray of float32, shape (row, channel)
    """
    data, weights = alone.data[0], alone.weights[0]
    used = weights > 0
    variance = np.divide(1.0, weights, out=np.zeros(weights.shape), where=used)
    squares = np.abs(data) ** 2
    squares += np.median(squares[used])
    variance += systematic**2 * squares
    sober = np.divide(1.0, variance, out=np.zeros(weights.shape), where=used)
    return np.asarray(sober, dtype=np.float32)


class _Antennas:
    """Which visibilities are of which antennas and times."""

    def __init__(self, snapshot: Snapshot, interval_s: float) -> None:
        numbers, places = np.unique(
            np.concatenate([snapshot.antenna1, snapshot.antenna2]), return_inverse=True
        )
        self._count = len(numbers)
        self._first, self._second = np.split(places, 2)
        which = _intervals(snapshot.time_utc_ns, interval_s)
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
            begun = _likely_phases(ratios * known)
            gains = solve_phases(ratios, known, _TOLERANCE, begun).gains
            turn = np.conj(gains[at[0]]) * gains[at[1]]
            turned[rows] = data[rows] * turn[:, np.newaxis]
        return turned


def _intervals(time_utc_ns: Integers, interval_s: float) -> Integers:
    """Return the number of the interval that each time is in.

    One begins where the last is over, but for a twentieth: integrations that are as
    long as an interval, and a little early, have one each.
    """
    times, places = np.unique(time_utc_ns, return_inverse=True)
    length = round(0.95 * interval_s * 1e9)
    number, start = -1, int(times[0]) - length
    numbers = []
    for time in times.tolist():
        if time >= start + length:
            number, start = number + 1, time
        numbers.append(number)
    return np.array(numbers)[places]


def _likely_phases(weighted: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return the phases of the strongest eigenvector of a Hermitian matrix.

    They are those of antennas but for the weights; any others may lead elsewhere where
    noise is strong.
    """
    vector = np.linalg.eigh(weighted)[1][:, -1]
    size = np.abs(vector)
    return np.where(size > 0, vector / np.where(size > 0, size, 1.0), 1.0 + 0j)


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
        per_m = frequency_hz / SPEED_OF_LIGHT_M_PER_S
        self._u, self._v = (part[:, np.newaxis] * per_m for part in uvw_m.T[:2])
        self._axes = grid.coordinates()
        east, north = np.meshgrid(*self._axes)
        self._mask = np.hypot(east, north) <= window_rad / 2
        self._options = CleanOptions(
            gain=_GAIN, iterations=_ITERATIONS, negative=False, divergence=0.0
        )

    def of(self, source: Model) -> NDArray[np.complex128]:
        """Return the visibilities of a source."""
        return source(self._u, self._v)

    def components(self, data: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Return what CLEAN finds within the window, in an image."""
        dirty = self._gridder.image(data, self._weights)
        cleaned = clean(dirty, self._psf, self._options, mask=self._mask)
        return np.asarray(cleaned.model)

    def seen(self, image: NDArray[np.float32]) -> NDArray[np.complex128]:
        """Return the visibilities of components."""
        return np.asarray(self._gridder.predict(image), dtype=np.complex128)

    def to_the_middle(self, image: NDArray[np.float32]) -> NDArray[np.complex128]:
        """Return the factors of visibilities that move the mean place to the middle.

        Nothing else keeps a source in the window: closure phases do not say where it
        is.
        """
        flux = image.astype(np.float64)
        if not flux.sum() > 0:
            return np.ones(self._u.shape, dtype=np.complex128)
        east, north = self._axes
        place = flux.sum(axis=0) @ east, flux.sum(axis=1) @ north
        cycles = (self._u * place[0] + self._v * place[1]) / flux.sum()
        return np.asarray(np.exp(-2j * np.pi * cycles), dtype=np.complex128)

    def source(self, image: NDArray[np.float32]) -> Model:
        """Return components as a source that is seen at any u and v."""
        y, x = np.nonzero(image)
        flux = image[y, x].astype(np.float64)
        east, north = (part[at] for part, at in zip(self._axes, (x, y), strict=True))

        def seen(u: Floats, v: Floats) -> NDArray[np.complex128]:
            cycles = np.multiply.outer(u, east) + np.multiply.outer(v, north)
            return np.asarray(np.exp(2j * np.pi * cycles) @ flux)

        return seen
