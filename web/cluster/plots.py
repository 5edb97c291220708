"""The plots of the history, made by Bokeh."""

from __future__ import annotations

from bokeh.plotting import figure

from opencluster.store.history import History
from opencluster_web.cluster.past import PLOTS, samples_of, values_of
from opencluster_web.plots import Columns, Line, Shade, line_columns, line_plot, live


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


def figure_of(columns: Columns, name: str, data_url: str) -> figure:
    """Return a plot that goes on by itself."""
    plot = PLOTS[name]
    return line_plot(live(columns, data_url), plot.axis, plot.format)
