"""Where the lanes of a timeline are drawn: one for each worker, by computer."""

from __future__ import annotations

from dataclasses import dataclass

from opencluster.core.timeline import Timeline
from opencluster_web.jobs import spans

TALLEST = 900
"""Pixels of all lanes together, as far as they stay visible."""
LANE = (1.5, 22.0)
"""Pixels of a lane, at least and at most."""
HEADER = 20.0
"""Pixels above the lanes of a computer, for its name."""
HEADERS = 30
"""Computers of which each has its name above its lanes; of more, it is beside some."""


@dataclass(frozen=True)
class Lanes:
    """Where lanes are drawn, in pixels from the bottom.

    Attributes
    ----------
    middle : dict of int to float
        By the place in the timeline's workers.
    height : float
        Of each.
    total : float
        Of all.
    hosts : list of (str, float, float)
        Each computer, and where its lanes begin and end.
    has_headers : bool
        There is room for the name of each computer above its lanes.
    """

    middle: dict[int, float]
    height: float
    total: float
    hosts: list[tuple[str, float, float]]
    has_headers: bool


def lanes_of(timeline: Timeline) -> Lanes:
    """Return where the lanes of a timeline are drawn: by computer, from the top."""
    order = spans.in_order(timeline)
    names = list(dict.fromkeys(timeline.hosts[lane] for lane in order))
    height = min(LANE[1], max(LANE[0], TALLEST / max(1, len(order))))
    has_headers = len(names) <= HEADERS
    header = HEADER if has_headers else 0.0
    total = height * len(order) + header * len(names)
    middle: dict[int, float] = {}
    hosts = []
    y = total
    for name in names:
        top = y
        y -= header
        for lane in (lane for lane in order if timeline.hosts[lane] == name):
            middle[lane] = y - height / 2
            y -= height
        hosts.append((name, y, top))
    return Lanes(middle, height, max(total, 1.0), hosts, has_headers)
