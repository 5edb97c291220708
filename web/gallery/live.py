"""Tells open pages of new images, as the tiles that they are to show."""

from __future__ import annotations

import json
from collections.abc import Callable

from flask import render_template

from opencluster_web.events import Event
from opencluster_web.gallery.choice import Choice
from opencluster_web.gallery.source import ImageSource, key_of

LOOK_S = 0.5
"""Between two looks at the index."""
AT_ONCE = 1000
"""New images that one look takes; of more, only the latest matter."""
LARGEST = 2**62
"""No number of an image is larger."""


def news_of(source: ImageSource, choice: Choice) -> Callable[[str], Event | None]:
    """Return what finds the next event behind that of an id.

    Parameters
    ----------
    source : ImageSource
        The images.
    choice : Choice
        Those that the page shows.
    """

    def news(last: str) -> Event | None:
        after = int(last) if last.isascii() and last.isdecimal() else 0
        records = source.index.since(min(after, LARGEST), AT_ONCE)
        if not records:
            return None
        newest = records[-1].id
        changed = {key_of(record) for record in records if choice.takes(record)}
        tiles = source.tiles(choice) if changed else []
        if len(records) == AT_ONCE:
            newest = max([newest, *(tile.newest.id for tile in tiles)])
        else:
            tiles = [tile for tile in tiles if tile.key in changed]
        data = {
            tile.key: render_template("gallery/_tile.html", tile=tile) for tile in tiles
        }
        return Event(str(newest), "tiles", json.dumps({"tiles": data}))

    return news
