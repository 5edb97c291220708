"""An image as pictures for people: a large one with axes, and a small one without.

Text and axes take most of the time of a picture; so a figure is made once and used for
all that follow, with other pixels and other words.
"""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from functools import lru_cache
from math import degrees, pi
from typing import Any

import matplotlib as mpl
import numpy as np
from astropy.visualization import AsinhStretch, BaseStretch, LinearStretch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image as Pillow

from muser_pipeline.imaging.fitsfile import time_text
from muser_pipeline.imaging.image import Image

WIDTH, HEIGHT = 860, 760
"""Pixels of the large picture."""
THUMBNAIL = 192
"""Pixels of the small one, either way."""
_DPI = 100
_SHOWN = 620
"""Pixels on a side of the image within the large picture."""
_LEFT, _BOTTOM, _GAP, _BAR = 105, 75, 15, 18
"""Pixels to the left of it and below, between it and the bar of colours, and of that
bar."""
_MARKS = 5
"""Of an axis, about: each costs a millisecond."""
_SIGMAS_BELOW, _SIGMAS_LINEAR = 3.0, 5.0
_SOFTEST, _HARDEST = 1.0, 0.003
"""Where brightness turns from linear to logarithmic, as a part of the range."""
_COMPRESSION = 1
_UNITS = (
    (0.05, pi / 180, "degrees"),
    (1e-4, pi / 180 / 3600, "arcseconds"),
    (1e-7, pi / 180 / 3.6e6, "milliarcseconds"),
    (0.0, pi / 180 / 3.6e9, "microarcseconds"),
)
"""From which extent on, in radians, an axis has which unit."""


@dataclass(frozen=True)
class Pictures:
    """PNG files.

    Attributes
    ----------
    large, small : bytes
        With axes, and without.
    """

    large: bytes
    small: bytes


def draw(image: Image) -> Pictures:
    """Draw an image.

    Parameters
    ----------
    image : Image
        What is shown: its `best` pixels.
    """
    low, high, stretch = _range_of(image)
    colours = _colours_of(image)
    shown = _coloured(image.best, colours, low, high, stretch)
    small = Pillow.fromarray(shown).resize(
        (THUMBNAIL, THUMBNAIL), Pillow.Resampling.BOX
    )
    with _LOCK:
        large = _sheet().drawn(image, shown, low, high, stretch)
    return Pictures(_png(large), _png(small))


def _range_of(image: Image) -> tuple[float, float, BaseStretch]:
    """Return the values that are black and white, and what is in between."""
    best = image.best
    if image.polarization == "V":
        high = float(np.abs(best).max())
        return -high, high, LinearStretch()
    low = max(float(best.min()), -_SIGMAS_BELOW * image.rms)
    high = float(best.max())
    if not high > low:
        high = low + max(abs(low), 1e-30)
    part = _SIGMAS_LINEAR * image.rms / (high - low)
    return low, high, AsinhStretch(min(max(part, _HARDEST), _SOFTEST))


def _coloured(
    pixels: NDArray[np.float32],
    colours: NDArray[np.uint8],
    low: float,
    high: float,
    stretch: BaseStretch,
) -> NDArray[np.uint8]:
    """Return an image in colours, north up."""
    # the mean of the pixels where there are too many, and squares where too few
    shown = Pillow.fromarray(pixels).resize((_SHOWN, _SHOWN), Pillow.Resampling.BOX)
    scaled = np.clip((np.asarray(shown)[::-1] - low) / (high - low), 0.0, 1.0)
    values: NDArray[np.uint8] = colours[(stretch(scaled) * 255).astype(np.uint8)]
    return values


def _colours_of(image: Image) -> NDArray[np.uint8]:
    """Return 256 colours: of light, or for what has a sign from blue to red."""
    return _colours("RdBu_r" if image.polarization == "V" else "inferno")


@lru_cache(maxsize=2)
def _colours(name: str) -> NDArray[np.uint8]:
    return np.asarray(mpl.colormaps[name](np.arange(256), bytes=True)[:, :3])


class _Sheet:
    """A figure that is used again and again."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH / _DPI, HEIGHT / _DPI), dpi=_DPI)
        self.canvas = FigureCanvasAgg(self.figure)
        left, bottom = _LEFT / WIDTH, _BOTTOM / HEIGHT
        box = (left, bottom, _SHOWN / WIDTH, _SHOWN / HEIGHT)
        # pixel by pixel, under axes that are transparent: nothing is resampled
        blank = np.zeros((_SHOWN, _SHOWN, 3), dtype=np.uint8)
        self.pixels = self.figure.figimage(
            blank, _LEFT, _BOTTOM, origin="upper", zorder=-1
        )
        self.axes = self.figure.add_axes(box, facecolor="none")
        self.beam = Ellipse((0, 0), 1, 1, facecolor="none", edgecolor="white")
        self.limb = Circle(
            (0, 0), 1, facecolor="none", edgecolor="white", linestyle=":", linewidth=0.8
        )
        for axis in (self.axes.xaxis, self.axes.yaxis):
            axis.set_major_locator(MaxNLocator(_MARKS))
        self.axes.add_patch(self.beam)
        self.axes.add_patch(self.limb)
        self.title = self.axes.set_title("", fontsize=11)
        box = (left + (_SHOWN + _GAP) / WIDTH, bottom, _BAR / WIDTH, _SHOWN / HEIGHT)
        bar = self.figure.add_axes(box, facecolor="none")
        across = _LEFT + _SHOWN + _GAP
        self.ramp = self.figure.figimage(
            blank[:, :_BAR], across, _BOTTOM, origin="upper", zorder=-1
        )
        bar.set_xticks([])
        bar.set_ylim(0.0, 1.0)
        bar.yaxis.tick_right()
        bar.yaxis.set_label_position("right")
        self.bar = bar

    def drawn(
        self,
        image: Image,
        shown: NDArray[np.uint8],
        low: float,
        high: float,
        stretch: BaseStretch,
    ) -> Pillow.Image:
        """Return the figure with another image in it."""
        self._place(image, shown)
        rows = np.linspace(255, 0, _SHOWN).round().astype(int)
        ramp = _colours_of(image)[rows, np.newaxis]
        self.ramp.set_data(np.repeat(ramp, _BAR, axis=1))
        self.title.set_text(title_of(image))
        marks = np.linspace(0.0, 1.0, _MARKS)
        values = low + stretch.inverse(marks) * (high - low)
        self.bar.set_yticks(marks, [f"{value:.3g}" for value in values])
        self.bar.set_ylabel(f"{image.unit}/beam")
        self.canvas.draw()  # type: ignore[no-untyped-call]
        size = self.canvas.get_width_height()
        drawn: Any = self.canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        return Pillow.frombuffer("RGBA", size, drawn).convert("RGB")

    def _place(self, image: Image, shown: NDArray[np.uint8]) -> None:
        """Put pixels, beam and limb where they belong."""
        grid, sun = image.grid, image.options.sun
        unit, name = next(
            (unit, name) for extent, unit, name in _UNITS if grid.extent_rad > extent
        )
        cell, half = grid.cell_rad / unit, grid.size // 2
        low, high = -(half + 0.5) * cell, (grid.size - half - 0.5) * cell
        self.pixels.set_data(shown)
        self.axes.set_xlim(low, high)
        self.axes.set_ylim(low, high)
        corner = low + 0.06 * (high - low)
        self.beam.set_center((corner, corner))
        self.beam.width = image.beam.major_rad / unit
        self.beam.height = image.beam.minor_rad / unit
        # from north through east, where east is to the left
        self.beam.angle = 90 + degrees(image.beam.angle_rad)
        ink = "black" if image.polarization == "V" else "white"
        self.beam.set_edgecolor(ink)
        self.limb.set_edgecolor(ink)
        self.limb.set_visible(sun is not None)
        if sun is not None:
            self.limb.set_radius(sun.radius_rad / unit)
        is_sun = sun is not None
        self.axes.xaxis.set_major_formatter(_plain if is_sun else _mirrored)
        self.axes.set_xlabel(f"{'solar west' if is_sun else 'east'}, {name}")
        self.axes.set_ylabel(f"{'solar north' if is_sun else 'north'}, {name}")


def _plain(value: float, _: Any) -> str:
    return f"{value:g}"


def _mirrored(value: float, _: Any) -> str:
    return f"{-value if value else 0.0:g}"


_LOCK = threading.Lock()


@lru_cache(maxsize=1)
def _sheet() -> _Sheet:
    return _Sheet()


def title_of(image: Image) -> str:
    """Return what an image is of: instrument, time, frequency and polarization."""
    parts = [
        image.telescope or image.target,
        time_text(image.start_utc_ns).replace("T", " ") + " UTC",
        f"{image.frequency_hz / 1e9:.4g} GHz",
        image.polarization,
        "cleaned" if image.restored is not None else "dirty",
    ]
    # a dollar sign would begin a formula
    return "  ".join(part for part in parts if part).replace("$", r"\$")


def _png(picture: Pillow.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=_COMPRESSION)
    return file.getvalue()
