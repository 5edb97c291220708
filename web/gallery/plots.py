"""The plots of the light curve, made by Bokeh and drawn by BokehJS.

Loading Bokeh takes a second, so only who asks for plots imports this.
"""

from __future__ import annotations

from collections.abc import Sequence

from bokeh.core.properties import field as column_of
from bokeh.layouts import column
from bokeh.models import AjaxDataSource, HoverTool, MultiLine, NumeralTickFormatter
from bokeh.models.layouts import LayoutDOM
from bokeh.plotting import figure

from opencluster_web.gallery.curve import Series, Shade, columns
from opencluster_web.plots import WIDTH, live, over_time

POLL_MS = 2000
"""Between two looks of an open page."""
HEIGHT = 260
"""Pixels of each plot."""


def figure_of(
    data_url: str, lines: Sequence[Series], shade: Shade, unit: str
) -> LayoutDOM:
    """Return the plots, which ask for news by themselves.

    Parameters
    ----------
    data_url : str
        Where `columns` are answered.
    lines : sequence of Series
        What to show first.
    shade : str
        What the page looks like.
    unit : str
        Of the peak.
    """
    source = live(columns(lines, shade), data_url, POLL_MS)
    peak = _plot(source, "peak", _with_unit("Peak", unit))
    flux = _plot(source, "flux", _with_unit("Flux density", unit.partition("/")[0]))
    flux.x_range = peak.x_range
    return column(peak, flux, sizing_mode="stretch_width")


def _plot(source: AjaxDataSource, field: str, title: str) -> figure:
    plot = over_time(height=HEIGHT, y_axis_label=title)
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[00]a")
    line = plot.add_glyph(
        source, _line(field, WIDTH), hover_glyph=_line(field, 2 * WIDTH)
    )
    shown = [("", "@label"), ("Time", "$data_x{%F %T UTC}"), (title, "$data_y{0.000a}")]
    plot.add_tools(
        HoverTool(renderers=[line], tooltips=shown, formatters={"$data_x": "datetime"})
    )
    return plot


def _line(field: str, width: float) -> MultiLine:
    return MultiLine(
        xs="time",
        ys=field,
        line_color=column_of("colour"),
        line_dash=column_of("dash"),
        line_width=width,
    )


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name
