"""A finished image with all that is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.disk import Disk
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.hybrid import Found
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.plane import Plane
from muser_pipeline.imaging.restoring import Beam
from muser_pipeline.imaging.selfcal import SelfCalibration

Pixels = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Image:
    """A finished image.

    Attributes
    ----------
    dirty, psf : ndarray of float32, shape (N, N)
        As gridded, with the Sun's disk; and the beam, 1 in its middle.
    model, residual, restored : ndarray of float32, shape (N, N), or None
        The components of CLEAN per pixel, without the disk; what it left; and
        components and disk as seen with the beam plus what was left. None where
        nothing was cleaned.
    components : ndarray of float64, shape (k, 3), or None
        y, x and flux of each component, where they are points.
    beam : Beam
        The restoring beam.
    grid : Grid
        The pixels.
    plane : Plane or None
        That of slanted coordinates.
    options : ImageOptions
        What was asked for.
    polarization, unit, telescope, target, observer : str
        From the visibilities; the unit is that of a flux.
    ra_rad, dec_rad : float
        Middle of the image in the ICRS.
    north_angle_rad : float
        Position angle of the image's north.
    frequency_hz, bandwidth_hz : float
        Mean frequency of what was used, weighted, and the width of all channels.
    start_utc_ns, end_utc_ns : int
        First and last time of the visibilities.
    visibilities, flagged : int
        How many were used, and how many were not.
    left_out : tuple of int
        Antennas that were left out because their amplitudes are impossible.
    disk : Disk or None
        As fitted, in the coordinates before the image was moved.
    disk_flux : float
        Its flux in the image; 0 where it is not a part of the image.
    shift_rad : tuple of float
        l and m of the place that was moved to the middle.
    self_calibration : tuple of SelfCalibration
        One for each hand that was solved for.
    phases : Found or None
        How phases were found that nobody knew.
    peak : float
        The brightest pixel of `best`, or the strongest of either sign for Stokes V.
    peak_pixel : tuple of int
        Where: y and x.
    rms : float
        Noise of `best`: the median absolute deviation of the residual or of the dirty
        image, times 1.4826.
    flux : float
        Of all components and the disk.
    iterations, cycles : int
        Of CLEAN.
    stopped_by : str
        Why CLEAN ended, see `Cleaned`; ``"none"`` where nothing was cleaned.
    threshold : float
        That was in force when it ended.
    timings_s : dict of str to float
        Seconds of each step, and in all as ``"total"``.
    notes : tuple of str
        What was done otherwise than asked for, and why.
    """

    dirty: Pixels
    psf: Pixels
    model: Pixels | None
    residual: Pixels | None
    restored: Pixels | None
    components: NDArray[np.float64] | None
    beam: Beam
    grid: Grid
    plane: Plane | None
    options: ImageOptions
    polarization: str
    unit: str
    telescope: str
    target: str
    observer: str
    ra_rad: float
    dec_rad: float
    north_angle_rad: float
    frequency_hz: float
    bandwidth_hz: float
    start_utc_ns: int
    end_utc_ns: int
    visibilities: int
    flagged: int
    peak: float
    peak_pixel: tuple[int, int]
    rms: float
    flux: float = 0.0
    left_out: tuple[int, ...] = ()
    disk: Disk | None = None
    disk_flux: float = 0.0
    shift_rad: tuple[float, float] = (0.0, 0.0)
    self_calibration: tuple[SelfCalibration, ...] = ()
    phases: Found | None = None
    iterations: int = 0
    cycles: int = 0
    stopped_by: str = "none"
    threshold: float = 0.0
    timings_s: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Pixels:
        """The restored image, or the dirty one where nothing was cleaned."""
        return self.dirty if self.restored is None else self.restored

    @property
    def dynamic_range(self) -> float:
        """The peak in units of the noise."""
        return abs(self.peak) / self.rms if self.rms else 0.0
