"""The Sun's disk, fitted to visibilities beside the brightest bursts.

Fluxes enter linearly, one for each channel, and are solved for exactly at every step;
places and the radius are found by Gauss-Newton steps on what the fluxes leave (variable
projection: Golub and Pereyra 1973, SIAM J. Numer. Anal. 10, 413). Bursts are found one
after the other in what the fit has left, first on baselines so long that the disk is
not seen there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot, pi

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.disk import UNIFORM, Disk, RadialProfile, unit_visibilities
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.plane import depth
from muser_pipeline.imaging.points import PointSearch
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S

RESOLVED = 3.0
"""Baselines of so many wavelengths per radius see 2 percent of a disk, or less."""
_FIELD = 2.8
"""Side of the field with bursts, in radii."""
_MOST_POINTS = 8
_SIGMAS = 6.0
_FAINTEST = 0.01
"""Of the disk's flux: fainter points do not move it."""
_START_CHANNELS = 4
_MOST_STEPS = 12
_FARTHEST = 0.5
"""In radii: how far the centre is looked for."""
_SMALLEST_RADIUS, _LARGEST_RADIUS = 0.6, 1.6
"""Times the one expected."""
_LEAST_SIGMAS = 5.0
"""A disk of less flux is none."""

_Complex = NDArray[np.complex128]
_Real = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DiskFit:
    """What was found.

    Attributes
    ----------
    disk : Disk
        With its uncertainties, which are scaled so that the residuals are as expected.
    points : ndarray of float64, shape (k, 3)
        l, m and mean flux of the bursts beside it.
    residual : float
        Weighted root mean square of what is left, in units of the visibilities.
    """

    disk: Disk
    points: NDArray[np.float64]
    residual: float


def fit_disk(
    uvw_m: NDArray[np.float64],
    frequency_hz: NDArray[np.float64],
    data: NDArray[np.complex64],
    weights: NDArray[np.float32],
    radius_rad: float,
    profile: RadialProfile = UNIFORM,
    fit_radius: bool = True,
) -> DiskFit:
    """Fit a disk and the bursts beside it.

    Parameters
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Baselines in metres, with the phase centre within half a radius of the disk's.
    frequency_hz : ndarray of float64, shape (channel,)
        Of the channels.
    data : ndarray of complex64, shape (row, channel)
        Visibilities.
    weights : ndarray of float32, shape (row, channel)
        Proportional to 1 / variance, 0 where there is none.
    radius_rad : float
        Expected.
    profile : RadialProfile, optional
        Of the disk.
    fit_radius : bool, optional
        Whether the radius may be another one.

    Returns
    -------
    DiskFit
        Channels without data have a flux of 0.

    Raises
    ------
    ImagingError
        When there is no disk, with reason ``"disk"``.
    """
    used = np.flatnonzero(weights.any(axis=0))
    if len(used) == 0:
        raise ImagingError("disk", "no visibility has a weight")
    few = used[
        np.linspace(0, len(used) - 1, min(len(used), _START_CHANNELS)).astype(int)
    ]
    rough = _Problem(
        uvw_m, frequency_hz[few], data[:, few], weights[:, few], profile, fit_radius
    )
    search = PointSearch(uvw_m, frequency_hz[few], _FIELD * radius_rad)
    points = _bursts_on_long_baselines(rough, search, radius_rad)
    centre = _rough_centre(rough, points, radius_rad)
    state = rough.refined(_State(*centre, radius_rad, points))
    while len(state.points) < _MOST_POINTS:
        fluxes, left = rough.solved(state)
        peak = search.brightest(rough.as_rows(left), weights[:, few])
        if peak.flux < max(_SIGMAS * peak.noise, _FAINTEST * abs(fluxes[:, 0].mean())):
            break
        added = (*state.points, (peak.l, peak.m))
        state = rough.refined(replace(state, points=added))
    every = _Problem(
        uvw_m, frequency_hz[used], data[:, used], weights[:, used], profile, fit_radius
    )
    fit = every.finished(every.refined(state), used, len(frequency_hz))
    _refuse_nonsense(fit.disk, used, radius_rad)
    return fit


@dataclass(frozen=True)
class _State:
    """Where things are."""

    east: float
    north: float
    radius_rad: float
    points: tuple[tuple[float, float], ...] = ()


class _Problem:
    """Visibilities as real numbers, channel by channel, each divided by its error."""

    def __init__(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        data: NDArray[np.complex64],
        weights: NDArray[np.float32],
        profile: RadialProfile,
        fit_radius: bool,
    ) -> None:
        per_m = frequency_hz / SPEED_OF_LIGHT_M_PER_S
        self.u, self.v, self.w = (
            np.multiply.outer(per_m, column) for column in uvw_m.T
        )
        self.root = np.sqrt(weights.T.astype(np.float64))
        self.data = data.T.astype(np.complex128)
        self.profile = profile
        self.fit_radius = fit_radius

    @property
    def lengths(self) -> _Real:
        """Baselines in wavelengths; shape (channel, row)."""
        return np.asarray(np.hypot(self.u, self.v))

    def disk(self, state: _State) -> _Complex:
        """Return the visibilities of a disk of flux 1; shape (channel, row)."""
        return unit_visibilities(
            *(self.u, self.v, self.w),
            *(state.east, state.north, state.radius_rad),
            self.profile,
        )

    def point(self, east: float, north: float) -> _Complex:
        """Return the visibilities of a point of flux 1; shape (channel, row)."""
        below = float(depth(np.array(east), np.array(north)))
        cycles = self.u * east + self.v * north + self.w * below
        return np.asarray(np.exp(2j * pi * cycles))

    def columns(self, state: _State) -> list[_Complex]:
        """Return what is seen of everything at flux 1."""
        return [self.disk(state), *(self.point(*place) for place in state.points)]

    def whitened(self, values: _Complex) -> _Real:
        """Return real and imaginary parts over their errors; (channel, 2 row)."""
        scaled = values * self.root
        return np.concatenate([scaled.real, scaled.imag], axis=1)

    def solved(
        self, state: _State, columns: list[_Complex] | None = None
    ) -> tuple[_Real, _Complex]:
        """Return fluxes, (channel, component), and what is left, (channel, row)."""
        columns = self.columns(state) if columns is None else columns
        matrix = np.stack([self.whitened(column) for column in columns], axis=2)
        fluxes = _Linear(matrix).fit(self.whitened(self.data))
        seen = sum(
            column * fluxes[:, k, np.newaxis] for k, column in enumerate(columns)
        )
        return fluxes, self.data - seen

    def as_rows(self, values: _Complex) -> NDArray[np.complex64]:
        """Return values as they were given; shape (row, channel)."""
        return np.ascontiguousarray(values.T).astype(np.complex64)

    def linearised(self, state: _State) -> _Step:
        """Return the fluxes, what is left, and how it changes with the places."""
        columns = self.columns(state)
        matrix = np.stack([self.whitened(column) for column in columns], axis=2)
        linear = _Linear(matrix)
        wanted = self.whitened(self.data)
        fluxes = linear.fit(wanted)
        left = wanted - np.einsum("cnb,cb->cn", matrix, fluxes)
        slopes = []
        places = [(state.east, state.north), *state.points]
        for k, ((east, north), column) in enumerate(zip(places, columns, strict=True)):
            height = (1.0 - hypot(east, north) ** 2) ** 0.5
            bright = 2j * pi * column * fluxes[:, k, np.newaxis]
            slopes.append(self.whitened(bright * (self.u - self.w * (east / height))))
            slopes.append(self.whitened(bright * (self.v - self.w * (north / height))))
        if self.fit_radius:
            step = 1e-5 * state.radius_rad
            wider = self.disk(replace(state, radius_rad=state.radius_rad + step))
            slope = (wider - columns[0]) * (fluxes[:, :1] / step)
            slopes.append(self.whitened(slope))
        tangents = np.stack(slopes, axis=2)
        shares = linear.fit(tangents)
        return _Step(linear, fluxes, left, tangents - matrix @ shares, shares)

    def refined(self, state: _State) -> _State:
        """Return the state after Gauss-Newton steps, damped where they fail."""
        step = self.linearised(state)
        damping = 1e-3
        for _ in range(_MOST_STEPS):
            trial = _moved(state, step.change(damping), self.fit_radius)
            next_step = self.linearised(trial) if trial is not None else None
            if trial is None or next_step is None or next_step.cost > step.cost:
                damping *= 10
                if damping > 1e3:
                    break
                continue
            gained = step.cost - next_step.cost
            state, step = trial, next_step
            damping = max(damping / 10, 1e-9)
            if gained * step.freedom < 1e-3 * step.cost:
                break
        return state

    def finished(self, state: _State, used: NDArray[np.intp], channels: int) -> DiskFit:
        """Return the fit with its errors, for all channels there are."""
        step = self.linearised(state)
        flux_error, place_error = step.errors()
        flux, error = np.zeros(channels), np.zeros(channels)
        flux[used], error[used] = step.fluxes[:, 0], flux_error[:, 0]
        disk = Disk(
            l=state.east,
            m=state.north,
            radius_rad=state.radius_rad,
            flux=flux,
            profile=self.profile,
            l_error=float(place_error[0]),
            m_error=float(place_error[1]),
            radius_error_rad=float(place_error[-1]) if self.fit_radius else 0.0,
            flux_error=error,
        )
        fluxes = step.fluxes[:, 1:].mean(axis=0)
        points = [(*place, k) for place, k in zip(state.points, fluxes, strict=True)]
        residual = float(np.sqrt(step.cost / np.sum(self.root**2)))
        return DiskFit(disk, np.array(points).reshape(-1, 3), residual)


class _Linear:
    """Least squares in the fluxes, for each channel."""

    def __init__(self, matrix: _Real) -> None:
        self.matrix = matrix
        normal = np.swapaxes(matrix, 1, 2) @ matrix
        trace = np.trace(normal, axis1=1, axis2=2)[:, np.newaxis, np.newaxis]
        # two points at the same place must not end the fit
        normal += 1e-12 * trace * np.eye(matrix.shape[2])
        self.inverse = np.linalg.inv(normal)

    def fit(self, wanted: _Real) -> _Real:
        """Return the fluxes of some values: (channel, n) or (channel, n, column)."""
        flat = wanted if wanted.ndim == 3 else wanted[..., np.newaxis]
        found = self.inverse @ (np.swapaxes(self.matrix, 1, 2) @ flat)
        return found if wanted.ndim == 3 else found[..., 0]


@dataclass(frozen=True, eq=False)
class _Step:
    """A point of the search, with the slopes there."""

    linear: _Linear
    fluxes: _Real
    left: _Real
    slopes: _Real
    shares: _Real

    @property
    def cost(self) -> float:
        """Sum of squares of what is left."""
        return float(np.sum(self.left**2))

    @property
    def freedom(self) -> int:
        """Values that are not used up by parameters."""
        values = int(np.count_nonzero(self.left))
        parameters = int(self.fluxes.size + self.slopes.shape[2])
        return values - parameters if values > parameters else 1

    def change(self, damping: float) -> _Real:
        """Return how far to go."""
        hessian, gradient = (
            self._hessian(),
            np.einsum("cnp,cn->p", self.slopes, self.left),
        )
        scale = np.sqrt(np.diag(hessian))
        scale[scale == 0] = 1.0
        normal = hessian / np.multiply.outer(scale, scale)
        normal += damping * np.eye(len(normal))
        return np.asarray(np.linalg.solve(normal, gradient / scale) / scale)

    def errors(self) -> tuple[_Real, _Real]:
        """Return standard deviations of the fluxes, and of places and radius."""
        variance = self.cost / self.freedom
        covariance = np.linalg.pinv(self._hessian(), hermitian=True)
        of_fluxes = self.linear.inverse + self.shares @ covariance @ np.swapaxes(
            self.shares, 1, 2
        )
        squares = np.diagonal(of_fluxes, axis1=1, axis2=2)
        return np.sqrt(variance * squares), np.sqrt(variance * np.diag(covariance))

    def _hessian(self) -> _Real:
        return np.asarray(np.einsum("cnp,cnq->pq", self.slopes, self.slopes))


def _moved(state: _State, change: _Real, fit_radius: bool) -> _State | None:
    """Return the state after a step, or None where it leads out of the sky."""
    places = np.array([(state.east, state.north), *state.points])
    places = places + change[: places.size].reshape(-1, 2)
    radius = state.radius_rad + (float(change[-1]) if fit_radius else 0.0)
    if not radius > 0.2 * state.radius_rad or np.abs(places).max() > 0.5:
        return None
    (east, north), *points = ((float(a), float(b)) for a, b in places)
    return _State(east, north, radius, tuple(points))


def _bursts_on_long_baselines(
    problem: _Problem, search: PointSearch, radius_rad: float
) -> tuple[tuple[float, float], ...]:
    """Return the places of bursts that outshine everything where no disk is seen."""
    is_long = problem.lengths * radius_rad > RESOLVED
    root = problem.root * is_long
    if np.count_nonzero(root) < 0.2 * np.count_nonzero(problem.root):
        return ()
    weights = np.ascontiguousarray((root**2).T.astype(np.float32))
    points: list[tuple[float, float]] = []
    left = problem.data
    first = 0.0
    whole, problem.root = problem.root, root
    while len(points) < _MOST_POINTS:
        peak = search.brightest(problem.as_rows(left), weights)
        first = first or peak.flux
        if peak.flux < max(_SIGMAS * peak.noise, 0.05 * first):
            break
        points.append((peak.l, peak.m))
        columns = [problem.point(*place) for place in points]
        left = problem.solved(_State(0, 0, radius_rad), columns)[1]
    problem.root = whole
    return tuple(points)


def _rough_centre(
    problem: _Problem, points: tuple[tuple[float, float], ...], radius_rad: float
) -> tuple[float, float]:
    """Return where the disk is, from the short baselines alone."""
    scaled = problem.lengths * radius_rad
    near = (scaled < 2.0) & (problem.root > 0)
    left = problem.data
    if points:
        far = np.where(scaled > RESOLVED, problem.root, 0.0)
        whole, problem.root = problem.root, far
        columns = [problem.point(*place) for place in points]
        left = problem.solved(_State(0, 0, radius_rad), columns)[1]
        problem.root = whole
    if np.count_nonzero(near) < 8:
        return 0.0, 0.0
    template = np.conj(problem.disk(_State(0.0, 0.0, radius_rad)))
    seen = (template * left * problem.root**2)[near]
    steps = np.linspace(-_FARTHEST, _FARTHEST, 11) * radius_rad
    along_u = np.exp(-2j * pi * np.multiply.outer(steps, problem.u[near]))
    along_v = np.exp(-2j * pi * np.multiply.outer(steps, problem.v[near]))
    match = ((along_u * seen) @ along_v.T).real
    east, north = np.unravel_index(int(match.argmax()), match.shape)
    return float(steps[east]), float(steps[north])


def _refuse_nonsense(disk: Disk, used: NDArray[np.intp], radius_rad: float) -> None:
    """Turn down a fit that is no Sun."""
    flux, error = disk.flux[used].mean(), np.sqrt(np.mean(disk.flux_error[used] ** 2))
    error /= np.sqrt(len(used))
    ratio = disk.radius_rad / radius_rad
    away = hypot(disk.l, disk.m) / radius_rad
    if not flux > _LEAST_SIGMAS * error:
        why = f"its flux would be {flux:.3g} with an error of {error:.2g}"
    elif not _SMALLEST_RADIUS < ratio < _LARGEST_RADIUS:
        why = f"its radius would be {ratio:.2f} times the one expected"
    elif not away < 2 * _FARTHEST:
        why = f"it would be {away:.2f} radii away from where it should be"
    else:
        return
    raise ImagingError("disk", f"no disk of the Sun is seen: {why}")
