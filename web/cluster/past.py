"""What the cluster and its computers were like: which plots there are, and their lines.

Everything is made of the samples of the history; see `core.sampling` for the fields.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opencluster.core.sampling import CLUSTER
from opencluster.errors import HistoryError
from opencluster.store.history import History, step_of

POINTS = 1024
"""Of a line, at most; a night has one each minute."""
MEGA = 1e-6
HOUR_S = 3600
SPANS: Mapping[str, int] = {
    "hour": HOUR_S,
    "night": 14 * HOUR_S,
    "week": 7 * 24 * HOUR_S,
    "month": 31 * 24 * HOUR_S,
}
"""What can be chosen, in seconds until now; a night is one of winter."""
Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Curve:
    """A line of a plot.

    Attributes
    ----------
    label : str
        What it is.
    colour : str
        A name in `plots.COLOURS`.
    field : str
        Of a sample.
    whole : str
        The field that the first is divided by, or empty.
    scale : float
        By which it is multiplied.
    """

    label: str
    colour: str
    field: str
    whole: str = ""
    scale: float = 1.0


@dataclass(frozen=True)
class Plot:
    """A plot of the history.

    Attributes
    ----------
    title : str
        What it shows.
    axis : str
        Its unit.
    format : str
        Of a number, as numeral.js writes it.
    curves : sequence of Curve
        Its lines.
    """

    title: str
    axis: str
    format: str
    curves: Sequence[Curve]


PLOTS: Mapping[str, Plot] = {
    "load": Plot(
        "Processors and memory",
        "in use",
        "0%",
        (
            Curve("Processors", "blue", "cpu"),
            Curve("Memory", "orange", "memory", "memory_total"),
        ),
    ),
    "work": Plot(
        "Workers",
        "workers",
        "0.[0]",
        (
            Curve("All", "grey", "workers"),
            Curve("Busy", "blue", "busy"),
            Curve("Lost", "vermillion", "lost"),
        ),
    ),
    "pieces": Plot(
        "Pieces",
        "each second",
        "0.[00]a",
        (Curve("Done", "green", "pieces"), Curve("Failed", "vermillion", "failures")),
    ),
    "waiting": Plot(
        "What waits",
        "pieces and tasks",
        "0.[0]a",
        (
            Curve("Pieces of running jobs", "purple", "waiting"),
            Curve("Tasks of the queue", "sky", "queued"),
        ),
    ),
    "network": Plot(
        "Network",
        "MB/s",
        "0.[00000]",
        (
            Curve("In", "blue", "network_in", scale=MEGA),
            Curve("Out", "orange", "network_out", scale=MEGA),
        ),
    ),
    "disk": Plot(
        "Disk", "in use", "0%", (Curve("Disk", "blue", "disk", "disk_total"),)
    ),
    "gpu": Plot(
        "GPUs",
        "in use",
        "0%",
        (Curve("GPUs", "green", "gpu"), Curve("Their memory", "purple", "gpu_memory")),
    ),
}
OF_CLUSTER = ("load", "work", "pieces", "waiting", "network")
OF_COMPUTER = ("load", "work", "network", "disk")
"""Those that a page shows, in their order; GPUs where there are some."""


@dataclass(frozen=True)
class Figures:
    """A line in numbers.

    Attributes
    ----------
    plot : Plot
        Where it is drawn.
    curve : Curve
        The line.
    last, mean, highest : float
        The newest value, and those of the time shown.
    """

    plot: Plot
    curve: Curve
    last: float
    mean: float
    highest: float


def span_of(name: str | None) -> str:
    """Return the name of a span, whatever was asked for."""
    return name if name is not None and name in SPANS else "hour"


def samples_of(
    history: History | None, subject: str, span: str
) -> tuple[Samples, float, float, float]:
    """Return samples, when they begin and end, and the seconds between two of them."""
    end = time.time()
    start = end - SPANS[span]
    step = step_of(SPANS[span], POINTS)
    found: Samples = {}
    if history is not None:
        try:
            found = history.samples(subject, start, end, POINTS)
        except HistoryError:
            # the pages go on without
            found = {}
    return found, start, end, step


def values_of(curve: Curve, samples: Samples) -> Sequence[float]:
    """Return a line's values."""
    values = samples.get(curve.field, ())
    if not curve.whole:
        return [curve.scale * value for value in values]
    wholes = samples.get(curve.whole, ())
    return [v / w if w else 0.0 for v, w in zip(values, wholes, strict=True)]


def figures_of(names: Sequence[str], samples: Samples) -> list[Figures]:
    """Return the lines of some plots in numbers; none where nothing was kept."""
    found = []
    for name in names:
        for curve in PLOTS[name].curves:
            values = values_of(curve, samples)
            if values:
                mean = sum(values) / len(values)
                found.append(Figures(PLOTS[name], curve, values[-1], mean, max(values)))
    return found


def failed_lately(history: History | None) -> int:
    """Return how many pieces failed in the last hour, as far as it was watched."""
    samples, *_, step = samples_of(history, CLUSTER, "hour")
    return round(sum(samples.get("failures", ())) * step)


def sparks_of(
    history: History | None, field: str
) -> Mapping[str, list[tuple[float, float]]]:
    """Return the last hour of a part of one, in per cent of the hour, of everybody."""
    if history is None:
        return {}
    end = time.time() // 60 * 60
    start = end - HOUR_S
    try:
        found = history.everybody(field, start, end)
    except HistoryError:
        return {}
    return {
        name: [(100 * (at - start) / HOUR_S, min(1.0, value)) for at, value in points]
        for name, points in found.items()
    }
