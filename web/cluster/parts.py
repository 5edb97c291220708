"""A page in parts that change by themselves: which ones did, and which are where."""

from __future__ import annotations

import re

Parts = dict[str, str]
"""The parts of a page by their keys, in their order."""

_PART = re.compile(r"<!-- part -->(.*?)<!-- /part -->", re.DOTALL)
_KEY = re.compile(r'data-key="([^"]*)"')


def parts_of(html: str) -> Parts:
    """Return the parts of what a template made.

    Each stands between two marks, and is an element with a ``data-key`` of its own.
    """
    parts: Parts = {}
    for text in _PART.findall(html):
        key = _KEY.search(text)
        if key is None:
            raise ValueError("a part of a page has no data-key")
        parts[key[1]] = text.strip()
    return parts


def changed(before: Parts, now: Parts) -> tuple[Parts, list[str] | None]:
    """Return the parts that are not as before, and all keys if those are others."""
    tiles = {key: part for key, part in now.items() if before.get(key) != part}
    return tiles, None if list(before) == list(now) else list(now)
