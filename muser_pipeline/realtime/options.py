"""What is asked of images: what is done to frames, how and where images are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import radians
from pathlib import Path
from typing import Any, get_args

from muser_pipeline.array import CHANNELS, load_array
from muser_pipeline.errors import MuserError, RequestError
from muser_pipeline.geometry import source_named
from muser_pipeline.imaging.clean import ALGORITHMS, CleanOptions
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.options import (
    ImageOptions,
    PolarizationName,
    SunOptions,
    WeightingName,
)
from muser_pipeline.raw.contents import Layout
from muser_pipeline.realtime.index import default_url

POLARIZATIONS: tuple[PolarizationName, ...] = get_args(PolarizationName)
HANDS_OF = {"I": ("RR", "LL"), "V": ("RR", "LL"), "RR": ("RR",), "LL": ("LL",)}
"""The hands whose frames an image needs."""
ARCSEC_RAD = radians(1 / 3600)


@dataclass(frozen=True)
class ImageRequest:
    """How the images of frames are made.

    Attributes
    ----------
    out : Path
        The folder of the images, which workers and the manager see under one name.
    index : str
        URL of the index; by default a file of SQLite in that folder.
    polarizations : tuple of str
        Of ``"I"``, ``"V"``, ``"RR"`` and ``"LL"``.
    bands : tuple of int
        Only these; empty for all.
    channels : int
        How many channels of a band are imaged together: 16, 8, 4, 2 or 1.
    size : int
        Pixels of a side; 0 for what covers the Sun.
    cell_arcsec : float
        Side of a pixel; 0 for a third of the smallest fringe.
    weighting : str
        ``"natural"``, ``"uniform"`` or ``"briggs:R"`` with R from -2 to 2.
    taper_arcsec : float
        Full width at half maximum of what the taper makes of a point; 0 for none.
    clean : str
        ``"hogbom"``, ``"clark"``, ``"multiscale"`` or ``"none"``.
    gain, iterations, threshold, threshold_sigma, scales_pixels
        Of CLEAN, see `CleanOptions`.
    disk, fit_radius, register : bool
        What is done about the quiet disk, see `SunOptions`.
    self_calibrate : bool
        Whether phases are solved for on the brightest point.
    jansky_per_unit : float
        What a unit of the correlator is worth, after calibration; 0 if nobody knows.
    layout, conjugate
        Of the raw frames, as for `open_raw`.
    source : str
        What the array is pointed at: ``"Sun"`` or a calibrator.
    static_delays_ns : tuple of float or None
        Of all inputs; by default those of the packaged table.
    calibration : Path or None
        A ``.cal`` file; its phases are taken away.
    amplitude : bool
        Its amplitudes too.
    flag_inputs : tuple of int
        Inputs that are not used.
    flag_known, flag_dead, flag_saturated, flag_outliers : bool
        Whether inputs that the observers list, antennas without power or with far too
        much, and visibilities far from the usual are left out.
    """

    out: Path
    index: str = ""
    polarizations: tuple[PolarizationName, ...] = ("I", "V")
    bands: tuple[int, ...] = ()
    channels: int = CHANNELS
    size: int = 0
    cell_arcsec: float = 0.0
    weighting: str = "natural"
    taper_arcsec: float = 0.0
    clean: str = "hogbom"
    gain: float = 0.1
    iterations: int = 1000
    threshold: float = 0.0
    threshold_sigma: float = 3.0
    scales_pixels: tuple[float, ...] = (0.0, 3.0, 10.0, 30.0)
    disk: bool = True
    fit_radius: bool = True
    register: bool = True
    self_calibrate: bool = False
    jansky_per_unit: float = 0.0
    layout: Layout = "auto"
    conjugate: bool = True
    source: str = "Sun"
    static_delays_ns: tuple[float, ...] | None = None
    calibration: Path | None = None
    amplitude: bool = False
    flag_inputs: tuple[int, ...] = ()
    flag_known: bool = True
    flag_dead: bool = True
    flag_saturated: bool = True
    flag_outliers: bool = False

    @classmethod
    def read(cls, asked: Mapping[str, Any]) -> ImageRequest:
        """Return the request that a work piece or dictionary is.

        Parameters
        ----------
        asked : mapping
            The attributes by name, ``out`` and those that are wanted.

        Raises
        ------
        RequestError
            When something is missing, unknown, or of no use; the message names it.
        """
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(asked) - set(known)):
            raise RequestError(
                f"images have no option {', '.join(unknown)}: they have "
                f"{', '.join(known)}"
            )
        if "out" not in asked:
            raise RequestError("images need a folder: out")
        values = {
            name: _checked(name, value)
            for name, value in asked.items()
            if value is not None
        }
        request = cls(**values)
        # what does not go with each other is found here and not by each worker
        try:
            request.image_options("I", None)
        except ImagingError as error:
            raise RequestError(str(error)) from None
        return request

    def check_array(self, array: int) -> None:
        """Raise `RequestError` when an array does not have what is asked for."""
        described = load_array(array)
        for band in self.bands:
            if band >= len(described.bands):
                raise RequestError(
                    f"bands: {described.name} has the bands 0 to "
                    f"{len(described.bands) - 1}, not {band}"
                )
        for each in self.flag_inputs:
            if each >= described.inputs:
                raise RequestError(
                    f"flag_inputs: {described.name} has the inputs 0 to "
                    f"{described.inputs - 1}, not {each}"
                )
        delays = self.static_delays_ns
        if delays is not None and len(delays) != described.inputs:
            raise RequestError(
                f"static_delays_ns: {described.name} has {described.inputs} inputs, "
                f"not {len(delays)}"
            )

    def plain(self) -> dict[str, Any]:
        """Return the attributes by name, as a piece carries them."""
        return asdict(self)

    @property
    def index_url(self) -> str:
        """Where the index is."""
        return self.index or default_url(self.out)

    @property
    def groups(self) -> list[tuple[int, int]]:
        """The first of the channels that are imaged together, and how many they are."""
        return [(first, self.channels) for first in range(0, CHANNELS, self.channels)]

    def image_options(
        self, polarization: PolarizationName, sun: SunOptions | None
    ) -> ImageOptions:
        """Return how an image is made.

        Raises
        ------
        ImagingError
            When what is asked for does not go with each other.
        """
        name, robust = parse_weighting(self.weighting)
        return ImageOptions(
            size=self.size or None,
            cell_rad=self.cell_arcsec * ARCSEC_RAD or None,
            weighting=name,
            robust=robust,
            taper_rad=self.taper_arcsec * ARCSEC_RAD,
            polarization=polarization,
            clean=CleanOptions(
                cycle_fraction=0.05,
                algorithm=self.clean,  # type: ignore[arg-type]
                gain=self.gain,
                iterations=self.iterations,
                threshold=self.threshold,
                threshold_sigma=self.threshold_sigma,
                scales_pixels=self.scales_pixels,
            ),
            sun=sun,
            self_calibrate=self.self_calibrate,
        )


def parse_weighting(text: str) -> tuple[WeightingName, float]:
    """Return the weighting and the robust parameter that a text such as briggs:0.5 is.

    Raises
    ------
    ValueError
        When it is none; the message says what it may be.
    """
    name, colon, number = text.partition(":")
    if name == "briggs":
        try:
            robust = float(number) if colon else 0.0
        except ValueError:
            robust = float("nan")
        if not -2 <= robust <= 2:
            raise ValueError(f"{text!r}: briggs is followed by -2 to 2, as briggs:0.5")
        return "briggs", robust
    for known in get_args(WeightingName):
        if text == known:
            return known, 0.0
    raise ValueError(f"{text!r} is not natural, uniform or briggs:R")


def _checked(name: str, value: Any) -> Any:
    try:
        return _CHECKS[name](value)
    except (ValueError, TypeError, OSError, MuserError) as error:
        raise RequestError(f"{name}: {error}") from None


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError(f"{value!r} is no path")
    return Path(value).expanduser().absolute()


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
        raise ValueError(f"{value!r} is no whole number from 0 on")
    return int(value)


def _number(value: Any) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"{value!r} is no number from 0 on")
    return number


def _wholes(value: Any) -> tuple[int, ...]:
    each = [value] if hasattr(value, "__index__") else value
    return tuple(sorted({_whole(one) for one in each}))


def _polarizations(value: Any) -> tuple[str, ...]:
    wanted = [value] if isinstance(value, str) else list(value)
    if unknown := [str(each) for each in wanted if each not in POLARIZATIONS]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(POLARIZATIONS)}")
    if not wanted:
        raise ValueError(f"some of {', '.join(POLARIZATIONS)} are needed")
    return tuple(each for each in POLARIZATIONS if each in wanted)


def _weighting(value: Any) -> str:
    parse_weighting(str(value))
    return str(value)


def _one_of(*allowed: Any) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in allowed:
            known = ", ".join(str(each) for each in allowed)
            raise ValueError(f"{value!r} is not one of {known}")
        return value

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _source(value: Any) -> str:
    return source_named(str(value)).name


_TRUTH = _one_of(True, False)
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "out": _path,
    "index": _text,
    "polarizations": _polarizations,
    "bands": _wholes,
    "channels": _one_of(1, 2, 4, 8, 16),
    "size": _whole,
    "cell_arcsec": _number,
    "weighting": _weighting,
    "taper_arcsec": _number,
    "clean": _one_of(*ALGORITHMS),
    "gain": _number,
    "iterations": _whole,
    "threshold": _number,
    "threshold_sigma": _number,
    "scales_pixels": lambda value: tuple(_number(each) for each in value),
    "disk": _TRUTH,
    "fit_radius": _TRUTH,
    "register": _TRUTH,
    "self_calibrate": _TRUTH,
    "jansky_per_unit": _number,
    "layout": _one_of(*get_args(Layout)),
    "conjugate": _TRUTH,
    "source": _source,
    "static_delays_ns": lambda value: tuple(float(each) for each in value),
    "calibration": _path,
    "amplitude": _TRUTH,
    "flag_inputs": _wholes,
    "flag_known": _TRUTH,
    "flag_dead": _TRUTH,
    "flag_saturated": _TRUTH,
    "flag_outliers": _TRUTH,
}
