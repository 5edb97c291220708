"""What a process used in the last hour, for a plot and in words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opencluster.observe.watcher import SAMPLE_S
from opencluster_web.words import size

if TYPE_CHECKING:
    from opencluster_web.plots import Columns, Shade

HOUR_S = 3600.0
_PLOTS = {
    "memory": ("Memory", "bytes", "0.[0] d", "purple", "rss_bytes"),
    "cpu": ("Processor", "% of one CPU", "0.[0]", "blue", "cpu_percent"),
}


@dataclass(frozen=True)
class Trail:
    """One figure of a process over the last hour.

    Attributes
    ----------
    name, title, axis, format, colour : str
        Of its plot.
    times, values : sequence of float
        Seconds since 1970, and what it was then.
    """

    name: str
    title: str
    axis: str
    format: str
    colour: str
    times: Sequence[float]
    values: Sequence[float]

    def columns(self, shade: Shade) -> Columns:
        """Return the columns of its plot for a page that is light or dark."""
        from opencluster_web.plots import Line, line_columns

        end = time.time()
        line = Line(self.title, self.colour, self.times, self.values)
        # a process that began lately has no long empty axis
        start = max(end - HOUR_S, min(self.times, default=end - HOUR_S))
        return line_columns([line], shade, start, end, SAMPLE_S)

    @property
    def words(self) -> str:
        """What the plot shows, in words."""
        if not self.values:
            return f"{self.title}: nothing was kept yet."
        last, most = (self._written(v) for v in (self.values[-1], max(self.values)))
        return f"{self.title}: {last} now, {most} at most in the last hour."

    def _written(self, value: float) -> str:
        return size(value) if self.name == "memory" else f"{value:.0f} %"


def trail_of(name: str, kept: Mapping[str, Sequence[float]]) -> Trail | None:
    """Return a figure of what was kept of a process; ``None`` if there is no such."""
    if name not in _PLOTS:
        return None
    title, axis, format, colour, key = _PLOTS[name]
    return Trail(name, title, axis, format, colour, kept["at"], kept[key])
