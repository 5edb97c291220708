"""Movies of images: animated WebP, made of the pictures that are there already."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

MAX_FRAMES = 120
"""Of a movie; of more images, these are taken evenly."""
FRAME_MS = 100
LAST_FRAME_MS = 1500
"""The newest image stays, so that the eye finds it."""
SIDE = 384
"""Pixels to which small pictures are enlarged."""
CAPTION = 26
"""Pixels below the picture for the time."""
QUALITY = 80
MOVIES_KEPT = 64
"""In memory; one is up to a megabyte or two."""


def evenly(count: int, most: int = MAX_FRAMES) -> list[int]:
    """Return places in a list of a length, the last one always among them."""
    if count <= most:
        return list(range(count))
    return [count - 1 - (count - 1) * place // (most - 1) for place in range(most)][
        ::-1
    ]


def make_movie(frames: Sequence[tuple[Path, str]]) -> bytes:
    """Return a movie as an animated WebP that repeats.

    Parameters
    ----------
    frames : sequence of (Path, str)
        Pictures and what to write below them. Those that are no longer there, or that
        cannot be read, are left out.

    Raises
    ------
    ValueError
        When no picture is left.
    """
    pictures = []
    for path, caption in frames:
        try:
            pictures.append(_frame(path, caption))
        except OSError:
            continue
    if not pictures:
        raise ValueError("there is no picture to make a movie of")
    held = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    written = io.BytesIO()
    pictures[0].save(
        written,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=held,
        loop=0,
        quality=QUALITY,
        method=0,
    )
    return written.getvalue()


def _frame(path: Path, caption: str) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    scale = SIDE / max(picture.size)
    if scale != 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    frame = Image.new("RGB", (SIDE, SIDE + CAPTION))
    frame.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    place = (SIDE // 2, SIDE + CAPTION // 2)
    ImageDraw.Draw(frame).text(place, caption, "#d8dee9", _font(), anchor="mm")
    return frame


def _font() -> Any:
    return ImageFont.load_default(14)


class MovieShelf:
    """Keeps movies, each made at most once, by whoever asks first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._movies: OrderedDict[str, tuple[int, bytes]] = OrderedDict()

    def get(self, key: str, newest: int, make: Callable[[], bytes]) -> bytes:
        """Return a movie, making it if there is a newer image than the kept one has.

        Parameters
        ----------
        key : str
            Which movie.
        newest : int
            The number of its newest image.
        make : callable
            Makes it. Movies are made one at a time, so that pages with many of them
            leave the other processors to the imaging.
        """
        with self._lock:
            kept = self._movies.get(key)
            if kept is None or kept[0] != newest:
                kept = (newest, make())
            self._movies[key] = kept
            self._movies.move_to_end(key)
            while len(self._movies) > MOVIES_KEPT:
                self._movies.popitem(last=False)
            return kept[1]
