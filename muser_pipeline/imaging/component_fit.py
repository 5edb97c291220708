"""A few components of a sky, fitted to visibilities by least squares.

Fluxes enter linearly, one for each channel, and are solved for exactly at every step;
places and sizes are found by Gauss-Newton steps on what the fluxes leave (variable
projection: Golub and Pereyra 1973, SIAM J. Numer. Anal. 10, 413).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi, sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.disk import UNIFORM, RadialProfile, unit_visibilities
from muser_pipeline.imaging.plane import depth
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S

_MOST_STEPS = 12
_FARTHEST = 0.5
"""Direction cosines beyond are no field."""
_FALL = pi**2 / (4 * log(2.0))

_Complex = NDArray[np.complex128]
_Real = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Baselines:
    """Baselines in wavelengths, each of shape (channel, row)."""

    u: _Real
    v: _Real
    w: _Real

    @classmethod
    def of(
        cls, uvw_m: NDArray[np.float64], frequency_hz: NDArray[np.float64]
    ) -> Baselines:
        """Return those of rows of metres."""
        per_m = frequency_hz / SPEED_OF_LIGHT_M_PER_S
        return cls(*(np.multiply.outer(per_m, column) for column in uvw_m.T))

    @cached_property
    def squares(self) -> _Real:
        """Squares of their lengths as seen from the source."""
        return np.asarray(self.u**2 + self.v**2)

    def towards(self, east: float, north: float) -> tuple[_Real, _Real]:
        """Return how the phase of a place changes with l and with m, in cycles."""
        height = sqrt(1.0 - east**2 - north**2)
        return self.u - self.w * (east / height), self.v - self.w * (north / height)


class Component(Protocol):
    """What has a place, a size, and a flux in each channel."""

    @property
    def values(self) -> tuple[float, ...]:
        """What is to be found, l and m first."""

    def moved(self, values: _Real) -> Component | None:
        """Return it with other values, or None where there is no such thing."""

    def seen(self, baselines: Baselines) -> _Complex:
        """Return its visibilities at flux 1; shape (channel, row)."""

    def slopes(self, baselines: Baselines, seen: _Complex) -> list[_Complex]:
        """Return how they change with each of its values."""


@dataclass(frozen=True)
class Spot:
    """A round Gaussian, or a point.

    Attributes
    ----------
    east, north : float
        l and m.
    square : float
        The square of its full width at half maximum, in direction cosines; 0 for a
        point. A fit finds the square since visibilities are smooth in it at 0.
    largest : float
        Of the square.
    """

    east: float
    north: float
    square: float = 0.0
    largest: float = 0.0

    @property
    def values(self) -> tuple[float, ...]:
        """L, m and the square, if that may be other than 0."""
        return (self.east, self.north, self.square)[: 3 if self.largest else 2]

    def moved(self, values: _Real) -> Spot | None:
        """Return it elsewhere, and no larger than it may be."""
        east, north, *size = (float(value) for value in values)
        if max(abs(east), abs(north)) > _FARTHEST:
            return None
        square = min(max(size[0], 0.0), self.largest) if size else self.square
        return replace(self, east=east, north=north, square=square)

    def seen(self, baselines: Baselines) -> _Complex:
        """Return its visibilities at flux 1; shape (channel, row)."""
        below = float(depth(np.array(self.east), np.array(self.north)))
        cycles = baselines.u * self.east + baselines.v * self.north
        values = np.exp(2j * pi * (cycles + baselines.w * below))
        if self.square:
            values *= np.exp(-_FALL * self.square * baselines.squares)
        return np.asarray(values)

    def slopes(self, baselines: Baselines, seen: _Complex) -> list[_Complex]:
        """Return how they change with each of its values."""
        turn = 2j * pi * seen
        east, north = baselines.towards(self.east, self.north)
        found = [turn * east, turn * north]
        if self.largest:
            found.append(-_FALL * baselines.squares * seen)
        return found


@dataclass(frozen=True)
class RoundDisk:
    """A disk with a profile.

    Attributes
    ----------
    east, north : float
        l and m of its centre.
    radius_rad : float
        Its radius.
    profile : RadialProfile
        Its brightness.
    fit_radius : bool
        Whether the radius is to be found too.
    """

    east: float
    north: float
    radius_rad: float
    profile: RadialProfile = UNIFORM
    fit_radius: bool = True

    @property
    def values(self) -> tuple[float, ...]:
        """L, m and the radius, if that is to be found."""
        return (self.east, self.north, self.radius_rad)[: 3 if self.fit_radius else 2]

    def moved(self, values: _Real) -> RoundDisk | None:
        """Return it elsewhere, unless it would be far too small."""
        east, north, *size = (float(value) for value in values)
        radius = size[0] if size else self.radius_rad
        if max(abs(east), abs(north)) > _FARTHEST or radius < 0.2 * self.radius_rad:
            return None
        return replace(self, east=east, north=north, radius_rad=radius)

    def seen(self, baselines: Baselines) -> _Complex:
        """Return its visibilities at flux 1; shape (channel, row)."""
        return unit_visibilities(
            *(baselines.u, baselines.v, baselines.w),
            *(self.east, self.north, self.radius_rad),
            self.profile,
        )

    def slopes(self, baselines: Baselines, seen: _Complex) -> list[_Complex]:
        """Return how they change with each of its values."""
        turn = 2j * pi * seen
        east, north = baselines.towards(self.east, self.north)
        found = [turn * east, turn * north]
        if self.fit_radius:
            step = 1e-5 * self.radius_rad
            wider = replace(self, radius_rad=self.radius_rad + step)
            found.append((wider.seen(baselines) - seen) / step)
        return found


class ComponentFit:
    """Visibilities, and the components that are fitted to them.

    Parameters
    ----------
    baselines : Baselines
        In wavelengths.
    data : ndarray of complex, shape (row, channel)
        Visibilities.
    weights : ndarray of float, shape (row, channel)
        Proportional to 1 / variance; 0 for what is not used.
    """

    def __init__(
        self,
        baselines: Baselines,
        data: NDArray[np.complex64],
        weights: NDArray[np.float32],
    ) -> None:
        self.baselines = baselines
        self.root = np.sqrt(weights.T.astype(np.float64))
        self.data = data.T.astype(np.complex128)
        self._wanted = self._whitened(self.data)

    def left_by(self, components: Sequence[Component]) -> tuple[_Real, _Complex]:
        """Return fluxes, (channel, component), and what is left, (row, channel)."""
        columns = [component.seen(self.baselines) for component in components]
        fluxes = _Linear(self._matrix(columns)).fit(self._wanted)
        left = self.data.copy()
        for k, column in enumerate(columns):
            left -= column * fluxes[:, k, np.newaxis]
        return fluxes, np.ascontiguousarray(left.T)

    def step(self, components: Sequence[Component]) -> Step:
        """Return the fluxes, what is left, and how it changes with the places."""
        columns = [component.seen(self.baselines) for component in components]
        matrix = self._matrix(columns)
        linear = _Linear(matrix)
        fluxes = linear.fit(self._wanted)
        left = self._wanted - (matrix @ fluxes[..., np.newaxis])[..., 0]
        tangents = np.stack(
            [
                self._whitened(slope * fluxes[:, k, np.newaxis])
                for k, (component, column) in enumerate(
                    zip(components, columns, strict=True)
                )
                for slope in component.slopes(self.baselines, column)
            ],
            axis=2,
        )
        shares = linear.fit(tangents)
        return Step(linear, fluxes, left, tangents - matrix @ shares, shares)

    def refined(self, components: Sequence[Component]) -> tuple[Component, ...]:
        """Return the components after Gauss-Newton steps, damped where they fail."""
        components = tuple(components)
        step = self.step(components)
        damping = 1e-3
        for _ in range(_MOST_STEPS):
            trial = _moved(components, step.change(damping))
            next_step = None if trial is None else self.step(trial)
            if trial is None or next_step is None or next_step.cost > step.cost:
                damping *= 10
                if damping > 1e3:
                    break
                continue
            gained = step.cost - next_step.cost
            components, step = trial, next_step
            damping = max(damping / 10, 1e-9)
            if gained * step.freedom < 1e-3 * step.cost:
                break
        return components

    def _matrix(self, columns: list[_Complex]) -> _Real:
        return np.stack([self._whitened(column) for column in columns], axis=2)

    def _whitened(self, values: _Complex) -> _Real:
        """Return real and imaginary parts over their errors; (channel, 2 row)."""
        scaled = values * self.root
        return np.concatenate([scaled.real, scaled.imag], axis=1)


class _Linear:
    """Least squares in the fluxes, for each channel."""

    def __init__(self, matrix: _Real) -> None:
        self.matrix = matrix
        normal = np.swapaxes(matrix, 1, 2) @ matrix
        trace = np.trace(normal, axis1=1, axis2=2)[:, np.newaxis, np.newaxis]
        # two points at the same place, or none that is seen, must not end the fit
        normal += (1e-12 * trace + 1e-300) * np.eye(matrix.shape[2])
        self.inverse = np.linalg.inv(normal)

    def fit(self, wanted: _Real) -> _Real:
        """Return the fluxes of some values: (channel, n) or (channel, n, column)."""
        flat = wanted if wanted.ndim == 3 else wanted[..., np.newaxis]
        found = self.inverse @ (np.swapaxes(self.matrix, 1, 2) @ flat)
        return found if wanted.ndim == 3 else found[..., 0]


@dataclass(frozen=True, eq=False)
class Step:
    """A point of the search, with the slopes there.

    Attributes
    ----------
    linear : object
        The least squares of the fluxes.
    fluxes : ndarray of float64, shape (channel, component)
        The best ones here.
    left : ndarray of float64, shape (channel, value)
        What is left, over its errors.
    slopes : ndarray of float64, shape (channel, value, parameter)
        How that would change, with the best fluxes everywhere.
    shares : ndarray of float64, shape (channel, component, parameter)
        How the fluxes would.
    """

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
        normal, scale = self._normal()
        gradient = np.einsum("cnp,cn->p", self.slopes, self.left) / scale
        normal += damping * np.eye(len(normal))
        return np.asarray(np.linalg.solve(normal, gradient) / scale)

    def errors(self) -> tuple[_Real, _Real]:
        """Return standard deviations of the fluxes, and of places and sizes."""
        normal, scale = self._normal()
        covariance = np.linalg.pinv(normal, hermitian=True)
        covariance /= np.multiply.outer(scale, scale)
        of_fluxes = self.linear.inverse + self.shares @ covariance @ np.swapaxes(
            self.shares, 1, 2
        )
        squares = np.diagonal(of_fluxes, axis1=1, axis2=2)
        variance = self.cost / self.freedom
        return np.sqrt(variance * squares), np.sqrt(variance * np.diag(covariance))

    def _normal(self) -> tuple[_Real, _Real]:
        """Return the normal matrix with 1 on its diagonal, and what it was scaled by.

        Cosines and their squares differ by many orders of magnitude.
        """
        flat = self.slopes.reshape(-1, self.slopes.shape[2])
        hessian = flat.T @ flat
        scale = np.sqrt(np.diag(hessian))
        scale[scale == 0] = 1.0
        return hessian / np.multiply.outer(scale, scale), scale


def _moved(
    components: tuple[Component, ...], change: _Real
) -> tuple[Component, ...] | None:
    """Return all components after a step, or None where one cannot go there."""
    found: list[Component] = []
    at = 0
    for component in components:
        count = len(component.values)
        moved = component.moved(component.values + change[at : at + count])
        if moved is None:
            return None
        found.append(moved)
        at += count
    return tuple(found)
