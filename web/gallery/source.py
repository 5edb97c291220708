"""Where pages find images: the index, opened when it is asked for, and the files."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flask import current_app
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from muser_pipeline.errors import ImageIndexError
from muser_pipeline.realtime.index import (
    CurvePoint,
    ImageIndex,
    ImageRecord,
    default_url,
)
from opencluster_web.gallery.choice import Choice
from opencluster_web.words import frequency


@dataclass(frozen=True)
class Tile:
    """What is known last of one band and polarisation.

    Attributes
    ----------
    image : ImageRecord or None
        The latest image.
    refusal : ImageRecord or None
        What was refused after it, if anything was.
    """

    image: ImageRecord | None
    refusal: ImageRecord | None = None

    @property
    def newest(self) -> ImageRecord:
        """The later one of them."""
        newest = self.refusal or self.image
        assert newest is not None
        return newest

    @property
    def key(self) -> str:
        """What it is called in addresses and pages."""
        return key_of(self.newest)


class ImageSource:
    """The images of a folder.

    Parameters
    ----------
    folder : Path
        Holds their files.
    url : str
        Their index; by default the one beside them.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder.absolute()
        self._url = url or default_url(folder)
        self._lock = threading.Lock()
        self._index: ImageIndex | None = None

    @property
    def index(self) -> ImageIndex:
        """The index.

        Raises
        ------
        ImageIndexError
            When there is none, or it cannot be used.
        """
        missing = _missing_file(self._url)
        with self._lock:
            if missing is not None:
                self._forget()
                raise ImageIndexError(
                    f"There is no index of images at {missing}. It is made together "
                    "with the first image, by `opencluster muser serve`; if yours is "
                    "elsewhere, name it with --images or --index."
                )
            if self._index is None:
                self._index = ImageIndex(self._url, self.folder)
            return self._index

    def tiles(self, choice: Choice) -> list[Tile]:
        """Return what is known last of each band and polarisation, by frequency."""
        images = {key_of(each): each for each in self.index.latest(choice.array)}
        refusals = self.index.latest(choice.array, "refused")
        refused = {key_of(each): each for each in refusals}
        tiles = [
            _tile(images.get(key), refused.get(key))
            for key in images.keys() | refused.keys()
        ]
        return in_order(tile for tile in tiles if choice.takes(tile.newest))

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._index is not None:
            self._index.close()
        self._index = None


def image_source() -> ImageSource:
    """Return the images of the application that answers."""
    source: ImageSource = current_app.extensions["opencluster_images"]
    return source


def key_of(record: ImageRecord | CurvePoint) -> str:
    """Return what tells the images of one band and polarisation from others."""
    parts = (record.array, record.band, record.first_channel, record.polarization)
    return "-".join(map(str, parts))


def band_of(record: ImageRecord | CurvePoint) -> str:
    """Return what people call a band: its frequency.

    What was refused as a whole, before it was known what is in it, is of no band.
    """
    return "No band" if record.band < 0 else frequency(record.frequency_hz)


def peak_unit(record: ImageRecord) -> str:
    """Return the unit of peak and noise, which are per beam where flux is known."""
    return "Jy/beam" if record.unit == "Jy" else record.unit


def in_order(tiles: Iterable[Tile]) -> list[Tile]:
    """Return tiles as they are shown: by array, frequency and polarisation."""

    def place(tile: Tile) -> tuple[int, float, str]:
        newest = tile.newest
        return newest.array, newest.frequency_hz, newest.polarization

    return sorted(tiles, key=place)


def _tile(image: ImageRecord | None, refused: ImageRecord | None) -> Tile:
    if image and refused and refused.time_utc_ns < image.time_utc_ns:
        refused = None
    return Tile(image, refused)


def _missing_file(url: str) -> Path | None:
    """Return the file that a URL names if it is not there.

    To open it would make it, and a page makes nothing.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    path = Path(parsed.database).expanduser().absolute()
    return None if path.exists() else path
