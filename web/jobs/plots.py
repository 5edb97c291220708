"""The timeline of a job, the rate beneath it, and how long pieces took: by Bokeh.

The page asks for more by itself: a source with an address is filled from there, again
and again while the job runs. ``timeline.js`` asks anew for the time that somebody
zooms into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bokeh.core.properties import field as column_of
from bokeh.layouts import column
from bokeh.models import (
    AjaxDataSource,
    BasicTicker,
    CDSView,
    ColumnDataSource,
    DataRange1d,
    FixedTicker,
    GroupFilter,
    HBar,
    HoverTool,
    HStrip,
    LayoutDOM,
    NoOverlap,
    NumeralTickFormatter,
    Quad,
    Range1d,
    RangeTool,
    Scatter,
)
from bokeh.models.annotations import Label
from bokeh.plotting import figure

from opencluster.core.timeline import (
    CANCELLED,
    FAILED,
    OUTCOMES,
    RETRIED,
    Timeline,
)
from opencluster_web.jobs import spans
from opencluster_web.jobs.columns import (
    histogram_columns,
    length_of,
    rate_columns,
    span_columns,
)
from opencluster_web.jobs.lanes import HEADER, Lanes, lanes_of
from opencluster_web.plots import (
    COLOURS,
    INK,
    LINES,
    Columns,
    Shade,
    over_time,
    styled,
)

POLL_MS = 3000
READABLE = 11.0
"""Pixels of a lane beside which its name fits."""
OVERVIEW = 110
HISTOGRAM = 220
"""Pixels of the plots of the rate, and of how long pieces took."""
MARK = 9
"""Pixels of the mark on what failed; it is seen however short that was."""
SMALL_MARK = 5
HATCHED = 8.0
"""Pixels of a lane on which a hatch is seen."""
TOP = "#ffffff"

_HATCH = {FAILED: "x", RETRIED: "/", CANCELLED: "."}
_MARKS = {FAILED: "x", RETRIED: "triangle", CANCELLED: "square_pin"}


@dataclass(frozen=True)
class Addresses:
    """Where a page asks for more; empty for a page that needs nothing.

    Attributes
    ----------
    spans, rates : str
        The same columns as JSON.
    is_running : bool
        More comes.
    """

    spans: str = ""
    rates: str = ""
    is_running: bool = False


def timeline_figure(
    timeline: Timeline,
    columns: spans.Columns,
    shade: Shade,
    addresses: Addresses = Addresses(),
    most: int = spans.MOST,
) -> LayoutDOM:
    """Return the timeline, and beneath it the rate, on which its time is chosen."""
    lanes = lanes_of(timeline)
    length = length_of(timeline, columns)
    began = 1e3 * float(timeline.job.get("started_at", 0.0))
    # a page asks for them by itself: so they are not sent twice
    seen = spans.Columns(Timeline()) if addresses.spans else columns
    source = _source(
        span_columns(timeline, seen, 0.0, length, shade, most),
        addresses.spans,
        addresses.is_running,
        "spans",
    )
    window = Range1d(start=began, end=began + 1e3 * length, name="window")
    plot = over_time(
        height=int(lanes.total) + 90,
        x_range=window,
        y_range=Range1d(start=0, end=lanes.total),
        tools="xpan,xwheel_zoom,xbox_zoom,reset,save",
        active_drag="xbox_zoom",
    )
    plot.ygrid.visible = False
    # a phone has no room for all of them
    plot.xaxis.major_label_policy = NoOverlap(min_distance=8)
    _name_lanes(plot, timeline, lanes, shade)
    bars = plot.add_glyph(
        source,
        _bar(lanes.height, shade),
        hover_glyph=_bar(lanes.height, shade, INK[shade]),
    )
    _mark(plot, source, lanes.height, shade)
    shown = [
        ("", "@what"),
        ("Type", "@type"),
        ("Worker", "@who"),
        ("Began", "@began"),
        ("Took", "@took"),
        ("Ended", "@outcome @error"),
    ]
    plot.add_tools(
        HoverTool(renderers=[bars], tooltips=shown, point_policy="follow_mouse")
    )
    rates = _rate_plot(timeline, columns, shade, addresses, window, length)
    return column(plot, rates, sizing_mode="stretch_width")


def histogram_figure(
    timeline: Timeline, columns: spans.Columns, shade: Shade
) -> figure:
    """Return how many pieces took how long."""
    source = ColumnDataSource(histogram_columns(timeline, columns, shade))
    plot = styled(
        height=HISTOGRAM,
        x_axis_type="log",
        x_axis_label="Seconds of a piece",
        y_axis_label="Pieces",
        y_range=DataRange1d(start=0),
        tools="save",
    )
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
    bar = Quad(
        left="left",
        right="right",
        bottom="bottom",
        top="top",
        fill_color=column_of("fill"),
        line_color=LINES[shade],
    )
    drawn = plot.add_glyph(source, bar)
    shown = [("Type", "@type"), ("Took", "@range"), ("Pieces", "@pieces{0,0}")]
    plot.add_tools(HoverTool(renderers=[drawn], tooltips=shown))
    return plot


def _rate_plot(
    timeline: Timeline,
    columns: spans.Columns,
    shade: Shade,
    addresses: Addresses,
    window: Range1d,
    length: float,
) -> figure:
    source = _source(
        rate_columns(timeline, columns, shade),
        addresses.rates,
        addresses.is_running,
        "rates",
    )
    plot = over_time(
        height=OVERVIEW,
        x_range=Range1d(start=window.start, end=window.end, name="whole"),
        y_axis_label="Pieces/s",
        y_range=DataRange1d(start=0),
        tools="",
        toolbar_location=None,
    )
    plot.xaxis.major_label_policy = NoOverlap(min_distance=8)
    plot.yaxis.ticker = BasicTicker(desired_num_ticks=3)
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[0]a")
    done = Quad(
        left="left",
        right="right",
        bottom=0,
        top="done",
        fill_color=column_of("fill"),
        fill_alpha=0.8,
        line_color=None,
    )
    failed = Quad(
        left="left",
        right="right",
        bottom="done",
        top="all",
        line_color=None,
        fill_color=COLOURS[shade]["vermillion"],
        hatch_pattern="x",
        hatch_color=INK[shade],
    )
    plot.add_glyph(source, done)
    plot.add_glyph(source, failed)
    chooser = RangeTool(x_range=window)
    chooser.overlay.fill_color = COLOURS[shade]["grey"]
    chooser.overlay.fill_alpha = 0.15
    chooser.overlay.line_color = INK[shade]
    plot.add_tools(chooser)
    return plot


def _bar(height: float, shade: Shade, line: str | None = None) -> HBar:
    return HBar(
        y="lane",
        left="left",
        right="right",
        height=height * (0.8 if height > 4 else 1.0),
        fill_color=column_of("fill"),
        fill_alpha=column_of("alpha"),
        line_color=line or column_of("fill"),
        line_width=2 if line else 1,
    )


def _mark(plot: figure, source: ColumnDataSource, height: float, shade: Shade) -> None:
    """Tell what was not done by more than a colour.

    Each outcome has its own glyph: a pattern or a mark for each bar by itself would
    keep a browser busy for minutes.
    """
    for outcome, pattern in _HATCH.items():
        of = CDSView(filter=GroupFilter(column_name="outcome", group=OUTCOMES[outcome]))
        # a pattern is not seen on a low bar: a mark stands in for it
        if height >= HATCHED:
            hatch = HBar(
                y="lane",
                left="left",
                right="right",
                height=height * 0.8,
                fill_alpha=0,
                line_alpha=0,
                hatch_pattern=pattern,
                hatch_color=INK[shade] if shade == "light" else TOP,
                hatch_scale=6,
                hatch_alpha=0.6,
            )
            plot.add_glyph(source, hatch, view=of)
        if height < HATCHED or outcome == FAILED:
            mark = Scatter(
                x="middle",
                y="lane",
                size=MARK if outcome == FAILED else SMALL_MARK,
                marker=_MARKS[outcome],
                line_color=INK[shade],
                line_width=2 if outcome == FAILED else 1,
                fill_alpha=0,
            )
            plot.add_glyph(source, mark, view=of)


def _name_lanes(plot: figure, timeline: Timeline, lanes: Lanes, shade: Shade) -> None:
    """Write the names of workers and computers, as far as there is room."""
    # every second computer stands on a band: one glyph, as boxes are slow to make
    bands = [(low, top) for _, low, top in lanes.hosts[1::2]]
    sides = {"low": [low for low, _ in bands], "top": [top for _, top in bands]}
    strip = HStrip(y0="low", y1="top", fill_color=INK[shade], line_alpha=0)
    strip.fill_alpha = 0.06
    plot.add_glyph(ColumnDataSource(sides), strip, level="underlay")
    for name, _, top in lanes.hosts:
        if lanes.has_headers:
            count = sum(host == name for host in timeline.hosts)
            words = f"{name} · {count} worker{'s' * (count != 1)}"
            plot.add_layout(
                Label(
                    x=4,
                    y=top - HEADER + 4,
                    x_units="screen",
                    text=words,
                    text_color=INK[shade],
                    text_font_size="11px",
                    text_font_style="bold",
                    text_font="system-ui, sans-serif",
                )
            )
    names: dict[Any, Any] = {}
    if lanes.height >= READABLE:
        names = {y: timeline.workers[lane] for lane, y in lanes.middle.items()}
    elif not lanes.has_headers:
        last = float("inf")
        for name, low, top in lanes.hosts:
            if last - (low + top) / 2 >= READABLE:
                last = (low + top) / 2
                names[last] = name
    plot.yaxis.ticker = FixedTicker(ticks=sorted(names))
    plot.yaxis.major_label_overrides = names
    plot.yaxis.major_label_text_font_size = "11px"
    plot.yaxis.visible = bool(names)


def _source(
    data: Columns, address: str, is_running: bool, name: str
) -> ColumnDataSource:
    if not address:
        return ColumnDataSource(data, name=name)
    return AjaxDataSource(
        data=data,
        data_url=address,
        method="GET",
        polling_interval=POLL_MS if is_running else None,
        mode="replace",
        name=name,
    )
