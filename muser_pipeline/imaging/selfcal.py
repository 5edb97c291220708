"""Phases of antennas, solved for on a burst that is nearly a point.

With gains g of modulus 1 a point of flux S at l, m is seen as

    V_ij = g_i S exp(+2 pi i (u l + v m + w (n - 1))) conj(g_j)

Source of the solver: Salvini and Wijnholds 2014, Fast gain calibration in radio
astronomy using alternating direction implicit methods (StEFCal), A&A 571, A97.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.plane import depth
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S, Snapshot

_TOLERANCE = 1e-10
_MOST_ITERATIONS = 500
_HELD_OUT = 5
"""One baseline in so many is left out of the solution that is judged."""
INTERVAL_NS = 60 * 10**9
"""How long the phases of antennas are taken to be the same."""
_MOST_SCATTER = 0.4
"""Of amplitudes, relative to their mean: pure noise has 0.52, two equal points 0.48."""
_FEWEST_ANTENNAS = 4
"""Three antennas have as many phases as baselines: whatever they see is a point."""
_SIGMAS = 3.0
"""By how many standard deviations the flux on baselines left out must have risen."""


@dataclass(frozen=True, eq=False)
class Phases:
    """Solutions.

    Attributes
    ----------
    gains : ndarray of complex128, shape (antenna,)
        Of modulus 1; 1 for antennas without data.
    iterations : int
        Taken.
    converged : bool
        Whether the tolerance was reached.
    """

    gains: NDArray[np.complex128]
    iterations: int
    converged: bool


@dataclass(frozen=True, eq=False)
class SelfCalibration:
    """What came of the phases of one hand.

    Attributes
    ----------
    polarization : str
        The hand.
    antennas : ndarray of int64, shape (antenna,)
        Their numbers.
    phases_rad : ndarray of float64, shape (interval, antenna)
        Of their gains, relative to the first antenna with data, for each minute.
    l, m : float
        Where the burst is.
    iterations : int
        Of the solver, at most.
    converged : bool
        Whether it always came to an end.
    flux_before, flux_held_out : float
        Flux of the burst on baselines that were left out of a solution, without and
        with it. Phases fitted to noise do not raise the second.
    flux_solved : float
        The same on the baselines that were solved: it rises even for noise.
    amplitude_scatter : float
        Standard deviation of the amplitudes on all baselines, relative to their mean,
        which phases do not change: what is not much brighter than all else scatters.
    applied : bool
        Whether the phases were taken: only where amplitudes scatter little, and the
        flux left out rose by more than noise does.
    """

    polarization: str
    antennas: NDArray[np.int64]
    phases_rad: NDArray[np.float64]
    l: float  # noqa: E741  the name of this coordinate everywhere
    m: float
    iterations: int
    converged: bool
    flux_before: float
    flux_held_out: float
    flux_solved: float
    amplitude_scatter: float
    applied: bool


def solve_phases(
    ratios: NDArray[np.complex128],
    weights: NDArray[np.float64],
    tolerance: float = _TOLERANCE,
    start: NDArray[np.complex128] | None = None,
) -> Phases:
    """Return phases of antennas from visibilities divided by those of a model.

    Parameters
    ----------
    ratios : ndarray of complex128, shape (antenna, antenna)
        X_ij = g_i S conj(g_j), Hermitian.
    weights : ndarray of float64, shape (antenna, antenna)
        Symmetric; 0 on the diagonal and where there are no data.
    tolerance : float, optional
        Relative change of the gains at which to stop.
    start : ndarray of complex128, shape (antenna,), optional
        Gains of modulus 1 to begin with; by default 1.

    Returns
    -------
    Phases
        Referred to the first antenna with data.
    """
    used = weights.any(axis=1)
    gains = np.ones(len(ratios), dtype=np.complex128) if start is None else start
    weighted = ratios * weights
    converged = False
    iteration = 0
    for iteration in range(1, _MOST_ITERATIONS + 1):
        new = weighted @ gains
        size = np.abs(new)
        new = np.where(size > 0, new / np.where(size > 0, size, 1.0), gains)
        if iteration % 2 == 0:
            new = new + gains
            size = np.abs(new)
            new = np.where(size > 0, new / np.where(size > 0, size, 1.0), gains)
        change = np.linalg.norm(new - gains)
        gains = new
        if change < tolerance * np.linalg.norm(gains):
            converged = True
            break
    if used.any():
        gains = gains * np.conj(gains[np.argmax(used)])
    gains[~used] = 1.0
    return Phases(gains, iteration, converged)


def self_calibrate(
    snapshot: Snapshot,
    polarization: str,
    east: float,
    north: float,
    shortest_wavelengths: float = 0.0,
) -> tuple[Snapshot, tuple[SelfCalibration, ...]]:
    """Correct the phases of antennas by a burst at a known place.

    Each hand and each minute is solved for by itself, all channels together.

    Parameters
    ----------
    snapshot : Snapshot
        The visibilities.
    polarization : str
        Of the image: hands that it does not need are left as they are.
    east, north : float
        l and m of the burst.
    shortest_wavelengths : float, optional
        Baselines that are shorter do not count: they see more than the burst.

    Returns
    -------
    snapshot : Snapshot
        Corrected, where that is an improvement.
    found : tuple of SelfCalibration
        One for each hand.
    """
    per_m = snapshot.frequency_hz / SPEED_OF_LIGHT_M_PER_S
    offsets = np.array([east, north, float(depth(np.array(east), np.array(north)))])
    cycles = np.multiply.outer(snapshot.uvw_m @ offsets, per_m)
    point = np.exp(2j * np.pi * cycles)
    lengths = np.hypot(snapshot.uvw_m[:, 0], snapshot.uvw_m[:, 1])
    is_long = np.multiply.outer(lengths, per_m) >= shortest_wavelengths
    data = snapshot.data.copy()
    found = []
    for hand, name in enumerate(snapshot.polarizations):
        if name not in _hands_of(polarization, snapshot.polarizations):
            continue
        values, weights = snapshot.stokes(name)
        used = np.where(is_long, weights, 0.0).astype(np.float64)
        one = _Hand(snapshot, values * np.conj(point), used)
        solution = one.solve(name, east, north)
        if solution.applied:
            data[hand] *= one.correction(solution.phases_rad).astype(np.complex64)
        found.append(solution)
    return snapshot.replace(data=data), tuple(found)


Kind = Literal["solved", "held out"]


class _Hand:
    """Visibilities of one hand, divided by those of a point of 1.

    Matrices of antennas against antennas, one for each interval of time.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        ratios: NDArray[np.complex128],
        weights: NDArray[np.float64],
    ) -> None:
        self.numbers, inverse = np.unique(
            np.concatenate([snapshot.antenna1, snapshot.antenna2]), return_inverse=True
        )
        self.first, self.second = np.split(inverse, 2)
        times = snapshot.time_utc_ns
        _, self.interval = np.unique(
            (times - times.min()) // INTERVAL_NS, return_inverse=True
        )
        count = len(self.numbers)
        shape = (int(self.interval.max()) + 1, count, count)
        self.weights = np.zeros(shape)
        self.ratios = np.zeros(shape, dtype=np.complex128)
        cross = self.first != self.second
        at = self.interval[cross], self.first[cross], self.second[cross]
        np.add.at(self.weights, at, weights[cross].sum(axis=1))
        np.add.at(self.ratios, at, (weights * ratios)[cross].sum(axis=1))
        self.weights += np.swapaxes(self.weights, 1, 2)
        self.ratios += np.conj(np.swapaxes(self.ratios, 1, 2))
        seen = self.weights > 0
        self.ratios[seen] /= self.weights[seen]
        i, j = np.indices((count, count))
        # of each antenna about as many are left out, and of a pair both directions
        self.held_out = (i + j) % _HELD_OUT == 0

    def solve(self, name: str, east: float, north: float) -> SelfCalibration:
        """Return the phases, and whether they are worth having."""
        judged = self._solutions(self._among("solved"))
        final = self._solutions(self.weights)
        gains = np.array([each.gains for each in judged])
        before = self._flux(np.ones_like(gains), "held out")
        after = self._flux(gains, "held out")
        antennas = int(self.weights.any(axis=1).sum(axis=1).max())
        scatter = self._scatter()
        return SelfCalibration(
            polarization=name,
            antennas=self.numbers,
            phases_rad=np.array([np.angle(each.gains) for each in final]),
            l=east,
            m=north,
            iterations=max(each.iterations for each in final),
            converged=all(each.converged for each in final),
            flux_before=before,
            flux_held_out=after,
            flux_solved=self._flux(gains, "solved"),
            amplitude_scatter=scatter,
            applied=antennas >= _FEWEST_ANTENNAS
            and scatter < _MOST_SCATTER
            and after > before + _SIGMAS * self._flux_error(gains),
        )

    def correction(self, phases_rad: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Return what to multiply the visibilities by; shape (row, 1)."""
        turn = phases_rad[self.interval, self.second]
        turn = turn - phases_rad[self.interval, self.first]
        return np.asarray(np.exp(1j * turn)[:, np.newaxis])

    def _solutions(self, weights: NDArray[np.float64]) -> list[Phases]:
        return [
            solve_phases(ratios, each)
            for ratios, each in zip(self.ratios, weights, strict=True)
        ]

    def _among(self, kind: Kind) -> NDArray[np.float64]:
        return np.where(self.held_out == (kind == "held out"), self.weights, 0.0)

    def _corrected(self, gains: NDArray[np.complex128]) -> NDArray[np.complex128]:
        first, second = gains[:, :, np.newaxis], gains[:, np.newaxis, :]
        return np.asarray(np.conj(first) * self.ratios * second)

    def _flux(self, gains: NDArray[np.complex128], kind: Kind) -> float:
        weights = self._among(kind)
        total = weights.sum()
        if not total:
            return 0.0
        return float(np.sum(weights * self._corrected(gains).real) / total)

    def _scatter(self) -> float:
        """Return how much amplitudes scatter, relative to the mean of each interval."""
        amplitudes = np.abs(self.ratios)
        totals = self.weights.sum(axis=(1, 2))
        sums = (self.weights * amplitudes).sum(axis=(1, 2))
        means = np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)
        squares = (amplitudes - means[:, np.newaxis, np.newaxis]) ** 2
        power = np.sum(totals * means**2)
        return float(np.sqrt(np.sum(self.weights * squares) / power)) if power else 0.0

    def _flux_error(self, gains: NDArray[np.complex128]) -> float:
        """Return the error of the flux left out, from what is imaginary in it."""
        weights = self._among("held out")
        total = weights.sum()
        if not total:
            return 0.0
        # each pair of antennas is counted twice
        squares = 2 * np.sum((weights * self._corrected(gains).imag) ** 2)
        return float(np.sqrt(squares) / total)


def _hands_of(polarization: str, there: tuple[str, ...]) -> set[str]:
    """Return the hands that an image of a polarization is made of."""
    if polarization in there:
        return {polarization}
    return {"RR", "LL"} & set(there) or {"XX", "YY"} & set(there)
