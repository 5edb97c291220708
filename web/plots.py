"""What all plots have in common: colours, style, and how they come onto a page.

A page holds a place for a plot (`plot` in ``templates/_plot.html``), and ``plot.js``
asks the address there for `answer`: JSON that BokehJS draws. So no program stands in a
page. Who changes from light to dark gets the plots anew. A plot that is `live` asks the
address of its data for more by itself.

Loading Bokeh takes a second, so views import this where they need it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from bokeh.core.properties import field as column_of
from bokeh.embed import json_item
from bokeh.model import Model
from bokeh.models import (
    AjaxDataSource,
    BasicTicker,
    ColumnDataSource,
    DataRange1d,
    DatetimeTicker,
    DatetimeTickFormatter,
    HoverTool,
    MultiLine,
    NumeralTickFormatter,
)
from bokeh.plotting import figure
from bokeh.themes import Theme
from flask import Response, request

Shade = Literal["light", "dark"]
Columns = dict[str, list[Any]]

COLOURS: Mapping[Shade, Mapping[str, str]] = {
    "light": {
        **{"blue": "#0072b2", "vermillion": "#d55e00", "green": "#00845f"},
        **{"purple": "#b4428f", "orange": "#b07400", "sky": "#2b8fc9"},
        **{"yellow": "#8a7f00", "grey": "#5b6472"},
    },
    "dark": {
        **{"blue": "#56b4e9", "vermillion": "#ff8a3d", "green": "#3fd6a6"},
        **{"purple": "#e79ccb", "orange": "#e69f00", "sky": "#9fd4f5"},
        **{"yellow": "#f0e442", "grey": "#9aa7bb"},
    },
}
"""After Okabe and Ito, told apart by the colour blind too; some are darker on white and
lighter on black than theirs, so that thin lines are seen. Vermillion is for what went
wrong, and for nothing else."""

INK: Mapping[Shade, str] = {"light": "#3c4450", "dark": "#c3ccda"}
LINES: Mapping[Shade, str] = {"light": "#dfe3e8", "dark": "#263041"}
"""Colours of words, and of axes and grids."""
DASHES: Sequence[tuple[int, ...]] = ((), (6, 3), (2, 3))
"""Of the lines of a plot in turn, so that they differ by more than their colour."""

HEIGHT = 200
"""Pixels of a plot."""
WIDTH = 2
"""Pixels of a line; that at the pointer is twice as wide."""
TIMES = 5
"""Times written below a plot; more do not fit on a phone."""
POLL_MS = 5000
"""Between two looks of a live plot."""
PAUSE = 2.5
"""A line is cut where nothing was seen for so many of its steps."""
TOOLS = "pan,xwheel_zoom,box_zoom,reset,save"


@dataclass(frozen=True)
class Line:
    """A line of a plot over time.

    Attributes
    ----------
    label : str
        What it is.
    colour : str
        A name in `COLOURS`.
    times : sequence of float
        Seconds since 1970.
    values : sequence of float
        As many.
    """

    label: str
    colour: str
    times: Sequence[float]
    values: Sequence[float]


def shade_asked() -> Shade:
    """Return what the page looks like that asks for a plot or its data."""
    return "dark" if request.args.get("shade") == "dark" else "light"


def answer(plot: Model, shade: Shade) -> Response:
    """Return a plot, or a layout of some, for ``plot.js`` to draw."""
    return Response(as_json(plot, shade), mimetype="application/json")


def as_json(plot: Model, shade: Shade) -> str:
    """Return what `answer` sends."""
    # as it is: Bokeh defines each part where it comes first, so keys are not sorted
    return json.dumps(json_item(plot, theme=theme(shade)))


def live(data: Columns, data_url: str, interval_ms: int = POLL_MS) -> AjaxDataSource:
    """Return data that a browser replaces by what an address of ours answers.

    Parameters
    ----------
    data : dict
        Columns to begin with.
    data_url : str
        Where the same columns are answered as JSON, also in the colours of `shade`.
    interval_ms : int
        How often.
    """
    return AjaxDataSource(
        data=data,
        data_url=data_url,
        method="GET",
        polling_interval=interval_ms,
        mode="replace",
    )


def styled(**options: Any) -> figure:
    """Return an empty figure as wide as its place; options are those of Bokeh's."""
    usual: dict[str, Any] = {
        "height": HEIGHT,
        "sizing_mode": "stretch_width",
        "tools": TOOLS,
        "toolbar_location": "above",
    }
    plot = figure(**usual | options)
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    return plot


def over_time(**options: Any) -> figure:
    """Return an empty figure with a time axis; times are milliseconds, UTC."""
    plot = styled(x_axis_type="datetime", **options)
    plot.xaxis.ticker = DatetimeTicker(desired_num_ticks=TIMES)
    plot.xaxis.formatter = DatetimeTickFormatter(
        milliseconds="%H:%M:%S.%3N",
        seconds="%H:%M:%S",
        minsec="%H:%M:%S",
        minutes="%H:%M",
        hourmin="%H:%M",
        hours="%H:%M",
        days="%b %d",
        months="%b %Y",
    )
    return plot


def line_columns(
    lines: Sequence[Line], shade: Shade, start: float, end: float, step_s: float
) -> Columns:
    """Return the columns of `line_plot`: a row for each piece of a line without a gap.

    Parameters
    ----------
    lines : sequence of Line
        The lines.
    shade : str
        What the page looks like.
    start, end : float
        What the time axis shows, seconds since 1970.
    step_s : float
        Seconds between two points where nothing is missing.
    """
    rows = [
        (line, DASHES[number % len(DASHES)], run)
        for number, line in enumerate(lines)
        for run in _runs(line.times, step_s)
    ]
    span = [1e3 * start, 1e3 * end]
    return {
        "time": [[1e3 * t for t in line.times[run]] for line, _, run in rows],
        "value": [list(line.values[run]) for line, _, run in rows],
        "label": [line.label for line, _, _ in rows],
        "colour": [COLOURS[shade][line.colour] for line, _, _ in rows],
        "dash": [dash for _, dash, _ in rows],
        # the axis is as long as the time that was asked for, whatever is known of it
        "span": [span for _ in rows],
        "floor": [[0, 0] for _ in rows],
    }


def line_plot(
    source: ColumnDataSource, title: str, number_format: str, **options: Any
) -> figure:
    """Return a plot of lines over time, from zero up.

    Parameters
    ----------
    source : ColumnDataSource
        The columns of `line_columns`, perhaps `live`.
    title : str
        Of the vertical axis, with the unit.
    number_format : str
        Numbers there, as numeral.js writes them, such as ``0.[0]a`` or ``0%``.
    **options
        Of `over_time`.
    """
    plot = over_time(y_axis_label=title, y_range=DataRange1d(start=0), **options)
    plot.yaxis.formatter = NumeralTickFormatter(format=number_format)
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=4)
    plot.add_glyph(source, MultiLine(xs="span", ys="floor", line_alpha=0))
    drawn = plot.add_glyph(source, _line(WIDTH), hover_glyph=_line(2 * WIDTH))
    shown = [
        ("", "@label"),
        ("Time", "$data_x{%F %T UTC}"),
        (title, f"$data_y{{{number_format}}}"),
    ]
    plot.add_tools(
        HoverTool(renderers=[drawn], tooltips=shown, formatters={"$data_x": "datetime"})
    )
    return plot


def theme(shade: Shade) -> Theme:
    """Return the look of plots on a page that is light or dark."""
    ink, lines = INK[shade], LINES[shade]
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


def _line(width: float) -> MultiLine:
    return MultiLine(
        xs="time",
        ys="value",
        line_color=column_of("colour"),
        line_dash=column_of("dash"),
        line_width=width,
    )


def _runs(times: Sequence[float], step_s: float) -> list[slice]:
    """Return where the pieces of a line are that have no gap; one at least."""
    cuts = [
        number
        for number, (one, next_one) in enumerate(pairwise(times), 1)
        if next_one - one > PAUSE * step_s
    ]
    return [slice(a, b) for a, b in pairwise([0, *cuts, len(times)])]
