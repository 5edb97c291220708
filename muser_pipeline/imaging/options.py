"""What may be asked of an image; nothing is made here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from muser_pipeline.imaging.clean import CleanOptions
from muser_pipeline.imaging.disk import RadialProfile
from muser_pipeline.imaging.errors import ImagingError

WeightingName = Literal["natural", "uniform", "briggs"]
PolarizationName = Literal["I", "V", "LL", "RR"]
WMethod = Literal["auto", "plane", "stack", "none"]

AU_M = 149_597_870_700.0
"""Astronomical unit: IAU 2012 resolution B2."""


@dataclass(frozen=True)
class SunOptions:
    """Where the Sun is and how it is turned, and what is done about its disk.

    The phase centre of the visibilities is where the centre of the Sun should be.

    Attributes
    ----------
    radius_rad : float
        Radius of the photosphere in the sky.
    p_rad : float
        Position angle of the Sun's north pole, from celestial north through east.
    b0_rad, l0_rad : float
        Heliographic latitude and Carrington longitude of the centre of the disk.
    distance_m : float
        From the observer to the centre of the Sun.
    disk : bool
        Whether the quiet disk is fitted, taken out of the visibilities before CLEAN,
        and put back afterwards.
    fit_radius : bool
        Whether its radius is fitted too; else it is `radius_rad`.
    profile : RadialProfile, optional
        Brightness against radius, in units of `radius_rad`; a uniform disk by default.
    register : bool
        Whether the image is moved so that the disk's centre, as fitted, is in its
        middle.
    """

    radius_rad: float
    p_rad: float = 0.0
    b0_rad: float = 0.0
    l0_rad: float = 0.0
    distance_m: float = AU_M
    disk: bool = True
    fit_radius: bool = True
    profile: RadialProfile | None = None
    register: bool = True

    def __post_init__(self) -> None:
        """Turn down what cannot be a Sun.

        Raises
        ------
        ImagingError
            With reason ``"options"``.
        """
        if not 0 < self.radius_rad < 0.1:
            raise ImagingError(
                "options", f"the Sun's radius is {self.radius_rad!r} rad, not 0 to 0.1"
            )


@dataclass(frozen=True)
class ImageOptions:
    """How an image is made.

    Attributes
    ----------
    size : int, optional
        Pixels along a side, even; by default chosen to cover the field.
    cell_rad : float, optional
        Side of a pixel; by default about a third of the smallest fringe.
    weighting : str
        ``"natural"``, ``"uniform"`` or ``"briggs"``.
    robust : float
        Briggs' parameter, from -2 (uniform) to 2 (natural).
    taper_rad : float
        Full width at half maximum of the Gaussian in the sky that the taper of the
        visibilities stands for; 0 for none.
    polarization : str
        ``"I"``, ``"V"``, ``"LL"`` or ``"RR"``.
    clean : CleanOptions
        How it is cleaned, or that it is not.
    sun : SunOptions, optional
        Given where the target is the Sun: the image is then turned to solar north and
        has helioprojective coordinates.
    self_calibrate : bool
        Whether phases of antennas are solved for on the brightest point.
    w : str
        How the third coordinate of the baselines is dealt with, see `Gridder`.
    window_rad : float
        Diameter of the disk about the middle in which components are looked for; 0 for
        everywhere.
    """

    size: int | None = None
    cell_rad: float | None = None
    weighting: WeightingName = "natural"
    robust: float = 0.0
    taper_rad: float = 0.0
    polarization: PolarizationName = "I"
    clean: CleanOptions = field(default_factory=CleanOptions)
    sun: SunOptions | None = None
    self_calibrate: bool = False
    w: WMethod = "auto"
    window_rad: float = 0.0

    def __post_init__(self) -> None:
        """Turn down what cannot be an image.

        Raises
        ------
        ImagingError
            With reason ``"options"``.
        """
        wrong = None
        if self.size is not None and (self.size < 16 or self.size % 2):
            wrong = f"a size is even and at least 16, not {self.size}"
        elif self.cell_rad is not None and not self.cell_rad > 0:
            wrong = f"a cell is positive, not {self.cell_rad!r}"
        elif self.weighting not in ("natural", "uniform", "briggs"):
            wrong = f"weighting {self.weighting!r} is not natural, uniform or briggs"
        elif self.polarization not in ("I", "V", "LL", "RR"):
            wrong = f"polarization {self.polarization!r} is not I, V, LL or RR"
        elif not (self.taper_rad >= 0 and self.window_rad >= 0):
            sizes = f"{self.taper_rad!r}, {self.window_rad!r}"
            wrong = f"a taper and a window are 0 or more, not {sizes}"
        if wrong:
            raise ImagingError("options", wrong)
