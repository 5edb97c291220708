"""An archive of small images, and pages that are read as a browser reads them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from PIL import Image

from muser_pipeline.realtime.index import ImageIndex, ImageRecord, default_url

START_S = 1_446_350_400
SECOND = 10**9
BANDS = (0.6e9, 1.0e9, 1.4e9, 1.8e9)
HANDS = ("LL", "RR")
TIMES = 25
REASON = "one antenna <only>"
TIMEOUT_S = 60.0


def record(second: int, band: int = 0, hand: str = "RR", **rest: Any) -> ImageRecord:
    """Return what is known of an image; its pictures are those of `paint`."""
    name = f"muser1/{second:05}-{band}-{hand}"
    known: dict[str, Any] = {
        "unit": "Jy",
        "peak": 1000.0 + second,
        "rms": 10.0,
        "dynamic_range": 100.0 + second / 10,
        "flux": 5e5,
        "size": 512,
        "cell_arcsec": 7.5,
        "beam_major_arcsec": 40.0,
        "iterations": 1000,
        "timings": {"clean": 0.125},
        "fits": f"{name}.fits",
        "png": f"{name}.png",
        "thumbnail": f"{name}-small.png",
        "json": f"{name}.json",
        "published_at": START_S + second + 1.5,
    }
    time_ns = (START_S + second) * SECOND + 25_000_000 * band
    place = {"array": 1, "band": band, "frequency_hz": BANDS[band]}
    return ImageRecord(time_utc_ns=time_ns, polarization=hand, **place | known | rest)


def refused(second: int, band: int = 0, hand: str = "RR") -> ImageRecord:
    """Return what is known of an image that was not made."""
    files = dict.fromkeys(("fits", "png", "thumbnail", "json"), "")
    return record(second, band, hand, status="refused", reason=REASON, **files)


def paint(folder: Path, image: ImageRecord) -> None:
    """Make the files of an image."""
    level = (image.time_utc_ns // SECOND - START_S) % 256
    for name, side in ((image.png, 64), (image.thumbnail, 16)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side), level).save(path)
    (folder / image.fits).write_bytes(b"SIMPLE  =                    T")
    (folder / image.json).write_text(json.dumps({"peak": image.peak}))


def make_archive(folder: Path) -> list[ImageRecord]:
    """Make 200 images, the last one of which was refused."""
    made = [
        record(10 * step, band, hand)
        for step in range(TIMES)
        for band in range(len(BANDS))
        for hand in HANDS
    ]
    for each in made[:-1]:
        paint(folder, each)
    made[-1] = refused(10 * (TIMES - 1), len(BANDS) - 1, HANDS[-1])
    with ImageIndex(default_url(folder), folder) as index:
        index.add_all(made)
        return index.since(0)


@dataclass
class Page(HTMLParser):
    """What a page refers to and says.

    Attributes
    ----------
    links : list of str
        All addresses in it.
    scripts, styles : int
        Programs and styles that stand in the page itself.
    pictures : list of dict
        The attributes of its pictures.
    text : str
        What it says.
    """

    links: list[str] = field(default_factory=list)
    scripts: int = 0
    styles: int = 0
    pictures: list[dict[str, str | None]] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def of(cls, html: str) -> Page:
        page = cls()
        page.feed(html)
        page.close()
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        for name in ("src", "href", "action", "poster", "data-figure", "data-movie"):
            if found.get(name):
                self.links.append(str(found[name]))
        if found.get("data-live"):
            self.links.append(str(found["data-live"]))
        self.scripts += tag == "script" and "src" not in found
        self.scripts += any(name.startswith("on") for name in found)
        self.styles += tag == "style" or "style" in found
        if tag == "img":
            self.pictures.append(found)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)

    def handle_data(self, data: str) -> None:
        self.text = " ".join([self.text, *data.split()])


class ReadingClient(FlaskClient):
    """Reads answers to their end, so that files are closed."""

    def open(self, *arguments: Any, **options: Any) -> Any:
        return super().open(*arguments, **{"buffered": True} | options)


class Stream:
    """Server-sent events as they come."""

    def __init__(self, port: int, path: str, last: str = "") -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=TIMEOUT_S
        )
        headers = {"Last-Event-ID": last} if last else {}
        self._connection.request("GET", path, headers=headers)
        self.response = self._connection.getresponse()

    def events(self) -> Iterator[dict[str, str]]:
        """Yield the fields of each event until the stream ends."""
        fields: dict[str, str] = {}
        for line in self.response:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif fields:
                if "event" in fields:
                    yield fields
                fields = {}

    def next(self) -> dict[str, str]:
        """Return the next event."""
        return next(self.events())

    def close(self) -> None:
        """Go away."""
        self.response.close()
        self._connection.close()
