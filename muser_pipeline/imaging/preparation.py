"""Visibilities made ready for an image: checked, turned, calibrated, and registered.

Each step takes what the one before left and returns it changed; none changes an array.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.amplitudes import impossible_antennas
from muser_pipeline.imaging.disk import UNIFORM, Disk
from muser_pipeline.imaging.disk_fit import RESOLVED, fit_disk
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.field import choose_grid
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.options import ImageOptions, SunOptions
from muser_pipeline.imaging.points import PointSearch
from muser_pipeline.imaging.selfcal import SelfCalibration, self_calibrate
from muser_pipeline.imaging.visibilities import (
    SPEED_OF_LIGHT_M_PER_S,
    Snapshot,
    check,
)

_SIGMAS = 5.0
"""A centre that is less certain than a pixel must be off by so many errors."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Visibilities that can be gridded, and what was done to them.

    Attributes
    ----------
    snapshot : Snapshot
        All visibilities.
    data : ndarray of complex64, shape (row, channel)
        Those of the image.
    weights : ndarray of float32, shape (row, channel)
        Their weights.
    grid : Grid
        The pixels.
    left_out : tuple of int
        Antennas with impossible amplitudes.
    solved : tuple of SelfCalibration
        Phases that were solved for.
    found : Disk or None
        The Sun's disk where it was found.
    disk : Disk or None
        The same where it is now.
    shift_rad : tuple of float
        l and m of the place that became the phase centre.
    notes : tuple of str
        What was done otherwise than asked for.
    """

    snapshot: Snapshot
    data: NDArray[np.complex64]
    weights: NDArray[np.float32]
    grid: Grid
    left_out: tuple[int, ...] = ()
    solved: tuple[SelfCalibration, ...] = ()
    found: Disk | None = None
    disk: Disk | None = None
    shift_rad: tuple[float, float] = (0.0, 0.0)
    notes: tuple[str, ...] = ()

    def noted(self, note: str) -> Prepared:
        """Return the same with one more note."""
        return replace(self, notes=(*self.notes, note))


def prepared(snapshot: Snapshot, options: ImageOptions) -> Prepared:
    """Check visibilities, leave out what is impossible, turn them to the solar north.

    Parameters
    ----------
    snapshot : Snapshot
        As observed.
    options : ImageOptions
        What is asked for.

    Raises
    ------
    ImagingError
        When there is no image in this.
    """
    polarization = options.polarization
    snapshot = _with_baselines(snapshot)
    check(snapshot, polarization)
    data, weights = snapshot.stokes(polarization)
    left_out = impossible_antennas(
        snapshot.uvw_m, data, weights, snapshot.antenna1, snapshot.antenna2
    )
    if left_out:
        snapshot = _without(snapshot, left_out)
        check(snapshot, polarization)
    if options.sun is not None:
        snapshot = snapshot.rotated(options.sun.p_rad - snapshot.north_angle_rad)
    data, weights = snapshot.stokes(polarization)
    grid = choose_grid(snapshot.uvw_m, snapshot.frequency_hz, weights, options)
    ready = Prepared(snapshot, data, weights, grid, left_out)
    if left_out:
        names = ", ".join(map(str, left_out))
        ready = ready.noted(f"amplitudes of antennas {names} are impossible")
    return ready


def calibrated(ready: Prepared, options: ImageOptions) -> Prepared:
    """Correct the phases of antennas by the brightest point.

    Parameters
    ----------
    ready : Prepared
        The visibilities.
    options : ImageOptions
        What is asked for.
    """
    snapshot, sun = ready.snapshot, options.sun
    shortest = RESOLVED / sun.radius_rad if sun is not None else 0.0
    polarization = _total(options.polarization)
    data, weights = snapshot.stokes(polarization)
    lengths = np.hypot(snapshot.uvw_m[:, 0], snapshot.uvw_m[:, 1])
    wavelengths = np.multiply.outer(lengths, snapshot.frequency_hz)
    is_long = wavelengths >= shortest * SPEED_OF_LIGHT_M_PER_S
    if not weights[is_long].any():
        return ready.noted("no self-calibration: all baselines see the disk")
    search = PointSearch(snapshot.uvw_m, snapshot.frequency_hz, ready.grid.extent_rad)
    peak = search.brightest(data, weights * is_long)
    snapshot, solved = self_calibrate(snapshot, polarization, peak.l, peak.m, shortest)
    data, weights = snapshot.stokes(options.polarization)
    ready = replace(ready, snapshot=snapshot, data=data, weights=weights, solved=solved)
    for one in solved:
        if not one.applied:
            ready = ready.noted(
                f"phases of {one.polarization} were left alone: no point outshines all "
                "else, or self-calibration does not make it brighter"
            )
    return ready


def registered(ready: Prepared, options: ImageOptions) -> Prepared:
    """Find the disk of the Sun, and move the phase centre to it.

    Parameters
    ----------
    ready : Prepared
        The visibilities.
    options : ImageOptions
        What is asked for.
    """
    sun = options.sun
    if sun is None or not (sun.disk or sun.register):
        return ready
    try:
        found = _disk_in(ready.snapshot, sun, options.polarization)
    except ImagingError as error:
        return ready.noted(str(error))
    ready = replace(ready, found=found, disk=found)
    if not sun.register:
        return ready
    unsure = max(found.l_error, found.m_error)
    if unsure > ready.grid.cell_rad and hypot(found.l, found.m) < _SIGMAS * unsure:
        return ready.noted(
            f"the disk's centre is uncertain by {unsure / ready.grid.cell_rad:.2g} "
            "pixels: the image was not moved"
        )
    snapshot = _moved(ready.snapshot, found.l, found.m)
    data, weights = snapshot.stokes(options.polarization)
    return replace(
        ready,
        snapshot=snapshot,
        data=data,
        weights=weights,
        disk=replace(found, l=0.0, m=0.0),
        shift_rad=(found.l, found.m),
    )


def _disk_in(snapshot: Snapshot, sun: SunOptions, polarization: str) -> Disk:
    # the difference of the hands shows no disk
    data, weights = snapshot.stokes(_total(polarization))
    fit = fit_disk(
        snapshot.uvw_m,
        snapshot.frequency_hz,
        data,
        weights,
        sun.radius_rad,
        sun.profile or UNIFORM,
        sun.fit_radius,
    )
    return fit.disk


def _with_baselines(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without weights where nobody knows the baseline."""
    known = np.asarray(np.isfinite(snapshot.uvw_m).all(axis=1))
    if known.all():
        return snapshot
    return snapshot.replace(
        uvw_m=np.where(known[:, np.newaxis], snapshot.uvw_m, 0.0),
        weights=np.where(known[:, np.newaxis], snapshot.weights, np.float32(0)),
    )


def _moved(snapshot: Snapshot, east: float, north: float) -> Snapshot:
    """Return a snapshot whose image is moved by a phase gradient.

    The telescopes follow the Sun: if it is not where it should be, it is the air or the
    instrument that turned the phases, and the baselines are what they are. If it is the
    phase centre that is elsewhere, by 3 arcminutes, this is wrong at the limb by 0.8
    arcseconds for a Sun 45 degrees high. All images of the same baselines can be made
    with the same transform, wherever the disk was seen.
    """
    per_m = snapshot.frequency_hz / SPEED_OF_LIGHT_M_PER_S
    metres = snapshot.uvw_m[:, 0] * east + snapshot.uvw_m[:, 1] * north
    cycles = np.multiply.outer(metres, per_m)
    turn = np.exp(-2j * np.pi * (cycles % 1.0)).astype(np.complex64)
    return snapshot.replace(data=snapshot.data * turn)


def _without(snapshot: Snapshot, antennas: tuple[int, ...]) -> Snapshot:
    """Return a snapshot in which the baselines of some antennas have no weight."""
    out = np.isin(snapshot.antenna1, antennas) | np.isin(snapshot.antenna2, antennas)
    weights = np.where(out[:, np.newaxis], np.float32(0), snapshot.weights)
    return snapshot.replace(weights=weights)


def _total(polarization: str) -> str:
    """Return what shows the same sky without the sign of its polarization."""
    return "I" if polarization == "V" else polarization
