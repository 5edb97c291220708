"""The plots of the light curve, made by Bokeh and drawn by BokehJS.

Loading Bokeh takes a second, so only who asks for plots imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bokeh.core.properties import field as column_of
from bokeh.embed import json_item
from bokeh.layouts import column
from bokeh.models import (
    AjaxDataSource,
    DatetimeTicker,
    DatetimeTickFormatter,
    HoverTool,
    MultiLine,
    NumeralTickFormatter,
)
from bokeh.plotting import figure
from bokeh.themes import Theme

from opencluster_web.gallery.curve import Series, Shade, columns

POLL_MS = 2000
"""Between two looks of an open page."""
HEIGHT = 260
"""Pixels of each plot."""
WIDTH = 2
"""Pixels of a line; that at the pointer is twice as wide."""
TIMES = 5
"""Times written below a plot; more do not fit on a phone."""

_INK = {"light": "#3c4450", "dark": "#c3ccda"}
_LINES = {"light": "#dfe3e8", "dark": "#263041"}


def figure_of(
    data_url: str, lines: Sequence[Series], shade: Shade, unit: str
) -> Mapping[str, object]:
    """Return the plots as JSON for BokehJS, which then asks for news by itself.

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
    source = AjaxDataSource(
        data=columns(lines, shade),
        data_url=data_url,
        method="GET",
        polling_interval=POLL_MS,
        mode="replace",
    )
    peak = _plot(source, "peak", _with_unit("Peak", unit))
    flux = _plot(source, "flux", _with_unit("Flux density", unit.partition("/")[0]))
    flux.x_range = peak.x_range
    both = column(peak, flux, sizing_mode="stretch_width")
    return json_item(both, theme=_theme(shade))


def _plot(source: AjaxDataSource, field: str, title: str) -> figure:
    plot = figure(
        height=HEIGHT,
        sizing_mode="stretch_width",
        x_axis_type="datetime",
        tools="pan,xwheel_zoom,box_zoom,reset,save",
        y_axis_label=title,
        toolbar_location="above",
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.xaxis.ticker = DatetimeTicker(desired_num_ticks=TIMES)
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[00]a")
    plot.xaxis.formatter = DatetimeTickFormatter(
        milliseconds="%H:%M:%S",
        seconds="%H:%M:%S",
        minsec="%H:%M:%S",
        minutes="%H:%M",
        hourmin="%H:%M",
        hours="%H:%M",
    )
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


def _theme(shade: Shade) -> Theme:
    ink, lines = _INK[shade], _LINES[shade]
    font = "system-ui, sans-serif"
    texts = {
        f"{part}_text_{name}": value
        for part in ("axis_label", "major_label")
        for name, value in (("color", ink), ("font", font), ("font_style", "normal"))
    }
    axis = {"axis_line_color": lines, "major_tick_line_color": lines}
    return Theme(
        json={
            "attrs": {
                "Plot": {
                    "background_fill_alpha": 0,
                    "border_fill_alpha": 0,
                    "outline_line_color": None,
                },
                "Grid": {"grid_line_color": lines},
                "Axis": {**texts, **axis, "minor_tick_line_color": None},
            }
        }
    )
