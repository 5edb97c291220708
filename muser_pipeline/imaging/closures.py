"""What phases of antennas cannot change: amplitudes, and closure phases.

The phases of three antennas fall out of V_12 V_23 conj(V_13), whatever they are: its
phase, the closure phase, is that of the source.

Source: Jennison 1958, A phase sensitive interferometer technique for the measurement
of the Fourier transforms of spatial brightness distributions of small angular extent,
MNRAS 118, 276; Rogers, Doeleman and Moran 1995, Fringe detection methods for very long
baseline arrays, AJ 109, 1391 (averages of bispectra).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S, Snapshot

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Model = Callable[[Floats, Floats], NDArray[np.complex128]]
"""Visibilities of a source for u and v in wavelengths."""

_Number = TypeVar("_Number", np.int64, np.float64, np.complex128)

SCAN_S, GAP_S = 300.0, 60.0
"""What is averaged is no longer than the first, and has no gap like the second."""
_PHASE_ERROR = 0.05
"""Radians that no closure phase is known better than."""
_WORST_PHASE_ERROR = 0.33
"""Radians: of worse ones many are noise, which looks better than it is."""
MOST_ANTENNAS = 20
"""Of more, only triangles with one of them: there are too many otherwise."""


@dataclass(frozen=True, eq=False)
class Closures:
    """Averages over scans.

    Attributes
    ----------
    antennas : int
        How many there are.
    u, v : ndarray of float64, shape (k,)
        Of each baseline, scan and channel, in wavelengths.
    first, second : ndarray of int64, shape (k,)
        Places of its antennas among all antennas.
    amplitude, amplitude_error : ndarray of float64, shape (k,)
        Without the bias of noise; less than zero where noise has taken away more.
    legs : ndarray of int64, shape (c, 3)
        Which three baselines a triangle has, the last the other way round.
    phase, phase_error : ndarray of float64, shape (c,)
        Closure phases in radians.
    share : ndarray of float64, shape (c,)
        Independent closure phases per triangle: n antennas have n (n - 1) (n - 2) / 6
        triangles, of which (n - 1) (n - 2) / 2 say all.
    """

    antennas: int
    u: Floats
    v: Floats
    first: Integers
    second: Integers
    amplitude: Floats
    amplitude_error: Floats
    legs: Integers
    phase: Floats
    phase_error: Floats
    share: Floats

    @property
    def count(self) -> float:
        """How many independent numbers there are."""
        return len(self.amplitude) + float(self.share.sum())

    @property
    def fringe_rad(self) -> float:
        """Smallest fringe: one over the longest baseline."""
        return float(1 / np.hypot(self.u, self.v).max())

    def phase_off(self, seen: NDArray[np.complex128]) -> Floats:
        """Return what closure phases are off by, in radians, of any turn.

        Parameters
        ----------
        seen : ndarray of complex128, shape (k,)
            Visibilities of a model.
        """
        a, b, c = self.legs.T
        off = self.phase - np.angle(seen[a] * seen[b] * np.conj(seen[c]))
        return np.asarray(off, dtype=np.float64)

    def phase_residuals(self, seen: NDArray[np.complex128]) -> Floats:
        """Return 2 sin(x / 2) / error for what closure phases are off by.

        Its square has no jump at half a turn. `seen` is as for `phase_off`.
        """
        off = np.sin(self.phase_off(seen) / 2)
        return np.asarray(np.sqrt(self.share) * 2 * off / self.phase_error)

    def chi_squared(self, model: Model) -> tuple[float, float]:
        """Return chi squared of closure phases and of amplitudes, each by its number.

        Parameters
        ----------
        model : callable
            Visibilities of a source.
        """
        seen = model(self.u, self.v)
        of_phases = float((self.phase_residuals(seen) ** 2).sum())
        off = (self.amplitude - np.abs(seen)) / self.amplitude_error
        return of_phases / max(float(self.share.sum()), 1.0), float((off**2).mean())


def close(
    snapshot: Snapshot, polarization: str, systematic: float = 0.1
) -> Closures | None:
    """Return what phases of antennas cannot change.

    Parameters
    ----------
    snapshot : Snapshot
        Its weights are one over the variances of the visibilities. Where nothing at all
        would be known of closure phases then, they are taken to be that but for a
        factor, with which noise is the unknown part of the usual amplitude.
    polarization : str
        Of it.
    systematic : float, optional
        Part of an amplitude that nobody knows.

    Returns
    -------
    Closures or None
        None where there is no triangle.
    """
    cube = _Cube(snapshot, polarization)
    if cube.antennas < 3:
        return None
    found = _closed(cube, systematic)
    if found is None:
        cube.quieten(systematic)
        found = _closed(cube, systematic)
    return found


def _closed(cube: _Cube, systematic: float) -> Closures | None:
    """Return what is known, if there is something."""
    used = cube.count > 0
    count = np.where(used, cube.count, 1)
    variance = cube.summed(cube.variance) / count
    power = cube.summed(np.abs(cube.values) ** 2) / count - 2 * variance
    # with a sign, or what is below the noise would have a mean above zero
    amplitude = np.sign(power) * np.sqrt(np.abs(power))
    error = np.sqrt(variance / count + (systematic * amplitude) ** 2)
    place = np.cumsum(used.ravel()).reshape(used.shape) - 1
    triangles = cube.triangles()
    product, noise, times = cube.bispectra(triangles)
    size = np.abs(product)
    closed = (times > 0) & (size > 0)
    errors = np.hypot(noise / np.where(closed, size, 1.0), _PHASE_ERROR)
    closed &= errors < _WORST_PHASE_ERROR
    if not closed.any():
        return None
    scan, which = np.nonzero(closed)
    pair = np.nonzero(used)[1]
    return Closures(
        antennas=cube.antennas,
        u=(cube.summed(cube.u) / count)[used],
        v=(cube.summed(cube.v) / count)[used],
        first=cube.first[pair],
        second=cube.second[pair],
        amplitude=amplitude[used],
        amplitude_error=error[used],
        legs=np.stack([place[scan, leg] for leg in triangles[which].T], axis=1),
        phase=np.angle(product[closed]).astype(np.float64),
        phase_error=errors[closed],
        share=_shares(closed, triangles)[scan],
    )


def scans_of(time_utc_ns: Integers) -> Integers:
    """Return the number of the scan that each time is in.

    Parameters
    ----------
    time_utc_ns : ndarray of int64, shape (n,)
        In any order.
    """
    times, places = np.unique(time_utc_ns, return_inverse=True)
    starts = np.diff(times, prepend=times[:1]) > GAP_S * 1e9
    first = times[np.maximum.accumulate(np.where(starts, np.arange(len(times)), 0))]
    part = (times - first) // round(SCAN_S * 1e9)
    starts |= np.diff(part, prepend=part[:1]) != 0
    return np.asarray(np.cumsum(starts)[places], dtype=np.int64)


def _shares(closed: NDArray[np.bool_], triangles: Integers) -> Floats:
    """Return the part of the triangles of each scan that is independent."""
    there = closed.sum(axis=1)
    legs = np.zeros((len(closed), int(triangles.max()) + 1))
    for which, leg in enumerate(triangles):
        legs[:, leg] += closed[:, which, np.newaxis]
    pairs = (legs > 0).sum(axis=1)
    # all pairs of n antennas are n (n - 1) / 2
    count = (1 + np.sqrt(1 + 8.0 * pairs)) / 2
    independent = pairs - count + 1
    shares = np.minimum(independent / np.maximum(there, 1), 1.0)
    return np.asarray(shares, dtype=np.float64)


class _Cube:
    """Visibilities by time and channel, and by pair of antennas."""

    def __init__(self, snapshot: Snapshot, polarization: str) -> None:
        data, weights = snapshot.stokes(polarization)
        rows, channels = np.nonzero(weights)
        crossed = snapshot.antenna1[rows] != snapshot.antenna2[rows]
        rows, channels = rows[crossed], channels[crossed]
        numbers, ends = np.unique(
            np.stack([snapshot.antenna1[rows], snapshot.antenna2[rows]]),
            return_inverse=True,
        )
        one, two = ends.reshape(2, -1)
        self.antennas = count = len(numbers)
        self.first, self.second = np.triu_indices(count, k=1)
        self._pair = np.zeros((count, count), dtype=np.int64)
        self._pair[self.first, self.second] = np.arange(len(self.first))
        self._pair += self._pair.T
        channel_count = len(snapshot.frequency_hz)
        scans = scans_of(snapshot.time_utc_ns)[rows] * channel_count + channels
        moments = snapshot.time_utc_ns[rows]
        order = np.lexsort((moments, scans))
        rows, channels, one, two, scans, moments = (
            part[order] for part in (rows, channels, one, two, scans, moments)
        )
        begins = (np.diff(scans) != 0) | (np.diff(moments) != 0)
        slot = np.concatenate([[0], np.cumsum(begins)]) if len(rows) else rows
        slots = int(slot.max(initial=-1)) + 1
        of_slot = np.zeros(slots, dtype=np.int64)
        of_slot[slot] = scans
        self._cuts = np.flatnonzero(np.diff(of_slot, prepend=-1))
        at = slot, self._pair[one, two]
        turned = one > two
        sign = np.where(turned, -1.0, 1.0)
        per_m = snapshot.frequency_hz[channels] / SPEED_OF_LIGHT_M_PER_S * sign
        value = data[rows, channels].astype(np.complex128)
        shape = slots, len(self.first)
        self.values = np.zeros(shape, dtype=np.complex128)
        self.values[at] = np.where(turned, value.conj(), value)
        self.variance, self.u, self.v = (np.zeros(shape) for _ in range(3))
        self.variance[at] = 1 / weights[rows, channels].astype(np.float64)
        self.u[at] = snapshot.uvw_m[rows, 0] * per_m
        self.v[at] = snapshot.uvw_m[rows, 1] * per_m
        self.count = self.summed((self.variance > 0).astype(np.int64))

    def summed(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Return sums over scans."""
        return np.asarray(np.add.reduceat(values, self._cuts, axis=0))

    def quieten(self, part: float) -> None:
        """Make noise a part of the usual amplitude, if it is not less."""
        used = self.variance > 0
        usual = float(np.median(np.abs(self.values[used])))
        factor = (part * usual) ** 2 / float(np.median(self.variance[used]))
        self.variance *= min(factor, 1.0)

    def triangles(self) -> Integers:
        """Return the pairs (1, 2), (2, 3) and (1, 3) of triangles, shape (t, 3)."""
        everything = range(self.antennas)
        if self.antennas <= MOST_ANTENNAS:
            corners = list(combinations(everything, 3))
        else:
            used = self.count > 0
            often = [
                int(used[:, (self.first == n) | (self.second == n)].sum())
                for n in everything
            ]
            best = int(np.argmax(often))
            others = combinations((n for n in everything if n != best), 2)
            corners = [tuple(sorted((best, *two))) for two in others]  # type: ignore[misc]
        a, b, c = np.array(corners).T
        pair = self._pair
        return np.stack([pair[a, b], pair[b, c], pair[a, c]], axis=1)

    def bispectra(
        self, triangles: Integers
    ) -> tuple[NDArray[np.complex128], Floats, Integers]:
        """Return means over scans, what they are uncertain by, and of how many."""
        values, variance = self.values, self.variance
        power = np.abs(values) ** 2
        shape = len(self._cuts), len(triangles)
        product = np.zeros(shape, dtype=np.complex128)
        noise, times = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        for which, (a, b, c) in enumerate(triangles):
            closed = np.all(variance[:, (a, b, c)] > 0, axis=1)
            spread = (
                variance[:, a] * power[:, b] * power[:, c]
                + power[:, a] * variance[:, b] * power[:, c]
                + power[:, a] * power[:, b] * variance[:, c]
            )
            triple = values[:, a] * values[:, b] * values[:, c].conj()
            product[:, which] = self.summed(np.where(closed, triple, 0))
            noise[:, which] = self.summed(np.where(closed, spread, 0))
            times[:, which] = self.summed(closed.astype(np.int64))
        many = np.maximum(times, 1)
        return product / many, np.sqrt(noise) / many, times
