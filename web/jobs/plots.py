"""The timeline of a job, the rate beneath it, and how long pieces took: by Bokeh.

The page asks for more by itself: a source with an address is filled from there, again
and again while the job runs. ``timeline.js`` asks anew for the time that somebody
zooms into.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
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
from opencluster_web.jobs.colours import hues_of
from opencluster_web.jobs.words import took
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
TALLEST = 900
"""Pixels of all lanes together, as far as they stay visible."""
LANE = (1.5, 22.0)
"""Pixels of a lane, at least and at most."""
READABLE = 11.0
"""Pixels of a lane beside which its name fits."""
HEADER = 20.0
"""Pixels above the lanes of a computer, for its name."""
HEADERS = 30
"""Computers of which each has its name above its lanes; of more, it is beside some."""
OVERVIEW = 110
HISTOGRAM = 220
FAINTEST = 0.3
MARK = 9
"""Pixels of the mark on what failed; it is seen however short that was."""
SMALL_MARK = 5
HATCHED = 8.0
"""Pixels of a lane on which a hatch is seen."""
TOP = "#ffffff"

_HATCH = {FAILED: "x", RETRIED: "/", CANCELLED: "."}
_MARKS = {FAILED: "x", RETRIED: "triangle", CANCELLED: "square_pin"}


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


def span_columns(
    timeline: Timeline,
    columns: spans.Columns,
    start: float,
    end: float,
    shade: Shade,
    most: int = spans.MOST,
) -> Columns:
    """Return the rectangles of some time, and what is said of each.

    Parameters
    ----------
    timeline : Timeline
        The job.
    columns : Columns
        Its spans.
    start, end : float
        Which time, in seconds since the job began.
    shade : str
        What the page looks like.
    most : int
        Rectangles at most.
    """
    found = spans.thinned(columns, start, end, most)
    colours = [COLOURS[shade][hue] for hue in hues_of(timeline.types)]
    wrong = COLOURS[shade]["vermillion"]
    began = float(timeline.job.get("started_at", 0.0))
    lanes = lanes_of(timeline)
    outcomes, types = found.outcome.tolist(), found.type.tolist()
    firsts, counts = found.first.tolist(), found.count.tolist()
    fills = [
        wrong if outcome == FAILED else colours[type]
        for outcome, type in zip(outcomes, types, strict=True)
    ]
    alphas = FAINTEST + (1 - FAINTEST) * found.busy
    alphas[found.outcome == CANCELLED] = FAINTEST
    return {
        "left": (1e3 * (began + found.start)).tolist(),
        "right": (1e3 * (began + found.end)).tolist(),
        "lane": [lanes.middle[lane] for lane in found.lane.tolist()],
        "fill": fills,
        "alpha": alphas.round(2).tolist(),
        "middle": (500 * (2 * began + found.start + found.end)).tolist(),
        "what": [
            _what(timeline, first, count, pieces, busy)
            for first, count, pieces, busy in zip(
                *(firsts, counts, found.pieces.tolist(), found.busy.tolist()),
                strict=True,
            )
        ],
        "who": [_who(timeline, lane) for lane in found.lane.tolist()],
        "type": [timeline.types[type] for type in types],
        "outcome": [OUTCOMES[outcome] for outcome in outcomes],
        "began": [_moment(began + s, s) for s in found.start.tolist()],
        "took": [took(s) for s in (found.end - found.start).tolist()],
        "error": [_error(timeline, first) for first in firsts],
    }


def rate_columns(timeline: Timeline, columns: spans.Columns, shade: Shade) -> Columns:
    """Return the bars of the rate over time; the last one ends where the job is."""
    found = spans.rates(columns, length_of(timeline, columns))
    began = float(timeline.job.get("started_at", 0.0))
    edges = (1e3 * (began + found.edges)).tolist()
    count = len(edges) - 1
    return {
        "left": edges[:-1],
        "right": edges[1:],
        "done": found.done.tolist(),
        "all": (found.done + found.failed).tolist(),
        "failed": found.failed.tolist(),
        "fill": [COLOURS[shade]["blue"]] * count,
        "lanes": [len(timeline.workers)] * count,
    }


def histogram_columns(
    timeline: Timeline, columns: spans.Columns, shade: Shade
) -> Columns:
    """Return the bars of how long pieces took, those of all types above each other."""
    found = spans.histogram(columns)
    names = ("left", "right", "bottom", "top", "fill", "type", "pieces", "range")
    rows: list[tuple[Any, ...]] = []
    if found.counts:
        below = np.zeros(len(found.edges) - 1)
        hues = hues_of(timeline.types)
        pairs = list(zip(found.edges[:-1], found.edges[1:], strict=True))
        for type, hue, counts in zip(timeline.types, hues, found.counts, strict=True):
            for place, (left, right) in enumerate(pairs):
                if counts[place]:
                    bottom, top = below[place], below[place] + counts[place]
                    between = f"{took(left)} to {took(right)}"
                    sides = (float(left), float(right), float(bottom), float(top))
                    own = (COLOURS[shade][hue], type, int(counts[place]), between)
                    rows.append((*sides, *own))
            below = below + counts
    lists = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: list(values) for name, values in zip(names, lists, strict=True)}


def length_of(timeline: Timeline, columns: spans.Columns) -> float:
    """Return for how long a job has run, or did."""
    elapsed_s = float(timeline.job.get("elapsed_s") or 0.0)
    return max(columns.length, elapsed_s, spans.SHORTEST_S)


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


def _what(timeline: Timeline, first: int, count: int, pieces: int, busy: float) -> str:
    number = timeline.number[first]
    if pieces == 1:
        return f"Piece {number}"
    if count == 1:
        return f"{pieces:,} pieces, the first is {number}"
    return f"{pieces:,} pieces in {count:,} runs, busy {busy:.0%} of the time"


def _who(timeline: Timeline, lane: int) -> str:
    return f"{timeline.workers[lane]} on {timeline.hosts[lane]}"


def _error(timeline: Timeline, first: int) -> str:
    place = timeline.error[first]
    if place < 0:
        return ""
    error = timeline.errors[place]
    line = next(iter(str(error["message"]).splitlines()), "")
    return f"({error['kind']}: {line[:120]})"


def _moment(at: float, after_s: float) -> str:
    clock = datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]
    return f"{clock} UTC, {took(after_s)} after the job"
