"""What stands in the sky: the quiet Sun, points and Gaussians, read from a file.

The file is in TOML. Places are helioprojective, in arcseconds from the centre of the
Sun, x to its west and y to its north::

    [sun]                         # the quiet disk, left out if there is no such table
    brightness = 1.0              # times that of the packaged profile

    [[source]]
    x_arcsec = 300.0
    y_arcsec = -200.0
    flux_sfu = 50.0               # Stokes I at frequency_hz
    frequency_hz = 1e9            # all that follows may be left out
    spectral_index = -1.0
    polarization = 0.2            # Stokes V / I, positive for the right hand
    fwhm_arcsec = [60.0, 30.0]    # a Gaussian; without it a point
    angle_deg = 30.0              # of its long axis, from solar north through east
    velocity_arcsec_per_s = [0.5, 0.0]
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.errors import SkyError

ARCSEC_RAD = float(np.pi / 180 / 3600)


@dataclass(frozen=True)
class SkySource:
    """A point or a Gaussian.

    Attributes
    ----------
    x_arcsec, y_arcsec : float
        Helioprojective place at the beginning, to the solar west and north.
    flux_sfu : float
        Flux density, Stokes I, in solar flux units: 1e-22 W / m^2 / Hz.
    frequency_hz : float
        Where it has that flux density.
    spectral_index : float
        Flux density goes with this power of the frequency.
    polarization : float
        Stokes V / I from -1 to 1, positive for the right hand.
    fwhm_arcsec : tuple of float
        Full widths at half maximum along the long and the short axis; 0 for a point.
    angle_deg : float
        Position angle of the long axis, from solar north through east.
    velocity_arcsec_per_s : tuple of float
        To the solar west and north.
    """

    x_arcsec: float
    y_arcsec: float
    flux_sfu: float
    frequency_hz: float = 1e9
    spectral_index: float = 0.0
    polarization: float = 0.0
    fwhm_arcsec: tuple[float, float] = (0.0, 0.0)
    angle_deg: float = 0.0
    velocity_arcsec_per_s: tuple[float, float] = (0.0, 0.0)

    def flux_at(self, frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return flux densities, Stokes I, at frequencies; sfu."""
        ratio = frequency_hz / self.frequency_hz
        return np.asarray(self.flux_sfu * ratio**self.spectral_index)

    def direction(self, seconds: float, p_rad: float) -> tuple[float, float]:
        """Return where it stands, as direction cosines to the east and north.

        Helioprojective longitude x and latitude y are angles at the observer: to the
        solar west cos y sin x, to the north sin y. With the Sun's north pole at the
        position angle P::

            l = -west cos P + north sin P
            m =  west sin P + north cos P

        Source: Thompson 2006, Coordinate systems for solar image data, section 4.

        Parameters
        ----------
        seconds : float
            Since the beginning.
        p_rad : float
            Position angle of the Sun's north pole, from celestial north through east.
        """
        x = (self.x_arcsec + self.velocity_arcsec_per_s[0] * seconds) * ARCSEC_RAD
        y = (self.y_arcsec + self.velocity_arcsec_per_s[1] * seconds) * ARCSEC_RAD
        west, north = np.cos(y) * np.sin(x), np.sin(y)
        return (
            float(-west * np.cos(p_rad) + north * np.sin(p_rad)),
            float(west * np.sin(p_rad) + north * np.cos(p_rad)),
        )

    def taper(
        self, u: NDArray[np.float64], v: NDArray[np.float64], p_rad: float
    ) -> NDArray[np.float64]:
        """Return what its extent leaves of its visibilities.

        A Gaussian of width a leaves exp(-pi^2 a^2 s^2 / (4 ln 2)) at s wavelengths.

        Parameters
        ----------
        u, v : ndarray
            Wavelengths to the east and north.
        p_rad : float
            Position angle of the Sun's north pole.
        """
        angle = np.radians(self.angle_deg) + p_rad
        along = u * np.sin(angle) + v * np.cos(angle)
        across = u * np.cos(angle) - v * np.sin(angle)
        long, short = (width * ARCSEC_RAD for width in self.fwhm_arcsec)
        squares = (along * long) ** 2 + (across * short) ** 2
        return np.asarray(np.exp(-(np.pi**2) / (4 * np.log(2)) * squares))


@dataclass(frozen=True)
class Sky:
    """Everything that is in the sky.

    Attributes
    ----------
    sources : tuple of SkySource
        Points and Gaussians.
    sun : float
        Brightness of the quiet Sun in units of the packaged profile; 0 for none.
    """

    sources: tuple[SkySource, ...] = ()
    sun: float = 0.0


def read_sky(path: str | Path) -> Sky:
    """Read a sky from a file; its format is at the head of this module.

    Raises
    ------
    SkyError
        When something in the file is not understood.
    OSError
        When it cannot be read.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return sky_of(tables)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, SkyError) as error:
        raise SkyError(f"{path}: {error}") from error


def sky_of(tables: dict[str, Any]) -> Sky:
    """Return the sky that the tables of a file describe.

    Raises
    ------
    SkyError
        When something in them is not understood.
    """
    _refuse_unknown("the file", tables, {"sun", "source"})
    sun = tables.get("sun")
    brightness = 0.0
    if sun is not None:
        _refuse_unknown("[sun]", sun, {"brightness"})
        brightness = _number("brightness of [sun]", sun.get("brightness", 1.0))
    written = tables.get("source", [])
    if not isinstance(written, list):
        raise SkyError("sources are written as [[source]]")
    sources = tuple(_source(n, each) for n, each in enumerate(written, start=1))
    return Sky(sources, brightness)


def _source(number: int, table: dict[str, Any]) -> SkySource:
    where = f"[[source]] number {number}"
    known = {field.name: field for field in fields(SkySource)}
    _refuse_unknown(where, table, set(known))
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name not in table:
            if field.default is MISSING:
                raise SkyError(f"{where} has no {name}")
            continue
        value = table[name]
        if isinstance(field.default, tuple):
            if not isinstance(value, list) or len(value) != 2:
                raise SkyError(f"{name} of {where} is not two numbers: {value!r}")
            values[name] = tuple(_number(f"{name} of {where}", part) for part in value)
        else:
            values[name] = _number(f"{name} of {where}", value)
    source = SkySource(**values)
    if not -1 <= source.polarization <= 1:
        raise SkyError(f"polarization of {where} is not between -1 and 1")
    if source.frequency_hz <= 0:
        raise SkyError(f"frequency_hz of {where} is not positive")
    return source


def _number(what: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
        if np.isfinite(number):
            return number
    raise SkyError(f"{what} is no number: {value!r}")


def _refuse_unknown(where: str, table: object, known: set[str]) -> None:
    if not isinstance(table, dict):
        raise SkyError(f"{where} is not a table")
    unknown = sorted(set(table) - known)
    if unknown:
        names = ", ".join(sorted(known))
        raise SkyError(f"{where} has {unknown[0]!r}; known are {names}")
