"""The Sun's disk, fitted to visibilities beside the brightest bursts.

Bursts are found one after the other in what the fit has left, first on baselines so
long that the disk is not seen there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot, pi

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.component_fit import (
    Baselines,
    Component,
    ComponentFit,
    RoundDisk,
    Spot,
    Step,
)
from muser_pipeline.imaging.disk import UNIFORM, Disk, RadialProfile
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.points import PointSearch

RESOLVED = 3.0
"""Baselines of so many wavelengths per radius see 2 percent of a disk, or less."""
_NEAR = 2.0
"""Shorter ones, in the same unit, show roughly where a disk is."""
_FIELD = 2.8
"""Side of the field with bursts, in radii."""
_MOST_BURSTS = 8
_WIDEST = 0.3
"""Full width of a burst, in radii: what is wider may be the disk itself."""
_WIDEST_FAR = 0.15
"""The same on long baselines, which see little of what is wider."""
_SIGMAS = 6.0
_FAINTEST = 0.001
"""Of the disk's flux: fainter bursts do not move it."""
_FAINTEST_BESIDE = 0.05
"""Of the brightest burst: fainter ones wait for the disk to be fitted."""
_START_CHANNELS = 4
_FARTHEST = 0.5
"""In radii: how far the centre is looked for."""
_SMALLEST_RADIUS, _LARGEST_RADIUS = 0.6, 1.6
"""Times the one expected."""
_LEAST_SIGMAS = 5.0
"""A disk of less flux is none."""


@dataclass(frozen=True, eq=False)
class DiskFit:
    """What was found.

    Attributes
    ----------
    disk : Disk
        With its uncertainties, which are scaled so that the residuals are as expected.
    bursts : ndarray of float64, shape (k, 4)
        l, m, full width at half maximum in radians, and mean flux of those beside it.
    residual : float
        Weighted root mean square of what is left, in units of the visibilities.
    """

    disk: Disk
    bursts: NDArray[np.float64]
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
    search = _Search(
        uvw_m, frequency_hz[few], data[:, few], weights[:, few], radius_rad
    )
    bursts = search.bursts_on_long_baselines()
    disks = [
        RoundDisk(*centre, radius_rad, profile, fit_radius)
        for centre in {(0.0, 0.0), search.rough_centre(bursts)}
    ]
    components = search.with_fainter_bursts(disks, bursts)
    every = ComponentFit(
        Baselines.of(uvw_m, frequency_hz[used]), data[:, used], weights[:, used]
    )
    components = every.refined(components)
    step = every.step(components)
    residual = float(np.sqrt(step.cost / np.sum(every.root**2)))
    fitted, *others = components
    assert isinstance(fitted, RoundDisk)
    bursts = tuple(burst for burst in others if isinstance(burst, Spot))
    found = _disk_of(fitted, step, used, len(frequency_hz))
    _refuse_nonsense(found, used, radius_rad)
    return DiskFit(found, _table(bursts, step), residual)


class _Search:
    """Where to begin, found on a few channels."""

    def __init__(
        self,
        uvw_m: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
        data: NDArray[np.complex64],
        weights: NDArray[np.float32],
        radius_rad: float,
    ) -> None:
        self._data, self._weights, self._radius = data, weights, radius_rad
        self._baselines = Baselines.of(uvw_m, frequency_hz)
        self._scaled = np.sqrt(self._baselines.squares.T) * radius_rad
        self._points = PointSearch(uvw_m, frequency_hz, _FIELD * radius_rad)
        far = np.where(self._scaled > RESOLVED, weights, np.float32(0))
        has_far = np.count_nonzero(far) > 0.2 * np.count_nonzero(weights)
        self._far_weights = far
        self._far = ComponentFit(self._baselines, data, far) if has_far else None

    def bursts_on_long_baselines(self) -> tuple[Spot, ...]:
        """Return the bursts that outshine everything where no disk is seen."""
        bursts: tuple[Spot, ...] = ()
        if self._far is None:
            return bursts
        left, first = self._data, 0.0
        while len(bursts) < _MOST_BURSTS:
            peak = self._points.brightest(left, self._far_weights)
            first = first or peak.flux
            if peak.flux < max(_SIGMAS * peak.noise, _FAINTEST_BESIDE * first):
                break
            spot = Spot(peak.l, peak.m, largest=(_WIDEST_FAR * self._radius) ** 2)
            found = self._far.refined([*bursts, spot])
            bursts = tuple(burst for burst in found if isinstance(burst, Spot))
            left = self._far.left_by(bursts)[1].astype(np.complex64)
        return bursts

    def rough_centre(self, bursts: tuple[Spot, ...]) -> tuple[float, float]:
        """Return where the disk is, from the short baselines alone."""
        near = ((self._scaled < _NEAR) & (self._weights > 0)).T
        if np.count_nonzero(near) < 8:
            return 0.0, 0.0
        left = self._data
        if bursts and self._far is not None:
            left = self._far.left_by(bursts)[1].astype(np.complex64)
        template = np.conj(RoundDisk(0.0, 0.0, self._radius).seen(self._baselines))
        seen = (template * (left * self._weights).T)[near]
        steps = np.linspace(-_FARTHEST, _FARTHEST, 11) * self._radius
        along_u, along_v = (
            np.exp(-2j * pi * np.multiply.outer(steps, part[near]))
            for part in (self._baselines.u, self._baselines.v)
        )
        match = ((along_u * seen) @ along_v.T).real
        east, north = np.unravel_index(int(match.argmax()), match.shape)
        return float(steps[east]), float(steps[north])

    def with_fainter_bursts(
        self, disks: list[RoundDisk], bursts: tuple[Spot, ...]
    ) -> tuple[Component, ...]:
        """Return the disk that fits best, and all bursts that are seen beside it."""
        every = ComponentFit(self._baselines, self._data, self._weights)
        largest = (_WIDEST * self._radius) ** 2
        wide = [replace(burst, largest=largest) for burst in bursts]
        starts = [every.refined([disk, *wide]) for disk in disks]
        components = min(starts, key=lambda start: every.step(start).cost)
        while len(components) <= _MOST_BURSTS:
            fluxes, left = every.left_by(components)
            peak = self._points.brightest(left.astype(np.complex64), self._weights)
            faintest = _FAINTEST * abs(float(fluxes[:, 0].mean()))
            if peak.flux < max(_SIGMAS * peak.noise, faintest):
                break
            spot = Spot(peak.l, peak.m, largest=largest)
            components = every.refined([*components, spot])
        return components


def _disk_of(
    disk: RoundDisk, step: Step, used: NDArray[np.intp], channels: int
) -> Disk:
    """Return the disk with its fluxes and errors, for all channels there are."""
    flux_error, error = step.errors()
    flux, of_flux = np.zeros(channels), np.zeros(channels)
    flux[used], of_flux[used] = step.fluxes[:, 0], flux_error[:, 0]
    return Disk(
        l=disk.east,
        m=disk.north,
        radius_rad=disk.radius_rad,
        flux=flux,
        profile=disk.profile,
        l_error=float(error[0]),
        m_error=float(error[1]),
        radius_error_rad=float(error[2]) if disk.fit_radius else 0.0,
        flux_error=of_flux,
    )


def _table(bursts: tuple[Spot, ...], step: Step) -> NDArray[np.float64]:
    """Return l, m, width and mean flux of bursts."""
    rows = [
        (burst.east, burst.north, burst.square**0.5, float(flux))
        for burst, flux in zip(bursts, step.fluxes[:, 1:].mean(axis=0), strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


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
