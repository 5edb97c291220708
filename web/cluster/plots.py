"""The plots of the history, made by Bokeh."""

from __future__ import annotations

import time
from functools import lru_cache

from opencluster.store.history import History
from opencluster_web.cluster.past import HOUR_S, PLOTS, samples_of, values_of
from opencluster_web.plots import (
    Columns,
    Line,
    Shade,
    as_json,
    line_columns,
    line_plot,
    live,
)

FIGURES = 256
"""Plots that are kept as they are sent, as it takes Bokeh long to make one."""


def columns_of(
    history: History | None, name: str, subject: str, span: str, shade: Shade
) -> Columns:
    """Return the lines of a plot for a page that is light or dark."""
    samples, start, end, step = samples_of(history, subject, span)
    times = samples.get("at", ())
    lines = [
        Line(curve.label, curve.colour, times, values_of(curve, samples))
        for curve in PLOTS[name].curves
    ]
    return line_columns(lines, shade, start, end, step)


@lru_cache(FIGURES)
def figure_of(name: str, data_url: str, shade: Shade) -> str:
    """Return a plot as JSON for BokehJS; it asks for its data at once, and again."""
    plot = PLOTS[name]
    # with a time, or Bokeh would not know where to begin
    empty, now = Line("", "grey", (), ()), time.time()
    nothing = line_columns([empty], shade, now - HOUR_S, now, 1.0)
    return as_json(line_plot(live(nothing, data_url), plot.axis, plot.format), shade)
