"""Draw a comparison on one page: elapsed times, bars, and rates against workers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import number
from bench.outcome import Outcome, Row
from bench.peers.catalogue import FAMILIES, OURS, PEERS
from bench.plan import of_workers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (6.4, 4.4)
COLUMNS = 3
DPI = 100
LINE_FROM = 3
"""Different numbers of workers from which a line says more than bars."""
STYLES = ("-", "--", ":", "-.")
OUR_COLOUR = "black"

Draw = Callable[["Axes"], None]


class NothingToDraw(Exception):
    """There are no figures yet."""


def draw(outcome: Outcome, path: Path, caption: str = "") -> None:
    """Draw all that was measured into a PNG file.

    Parameters
    ----------
    outcome : Outcome
        What was measured.
    path : Path
        Of the file.
    caption : str
        A line at the foot: the machine, the day.

    Raises
    ------
    NothingToDraw
        When nothing was measured.
    """
    panels = _panels(list(outcome.rows()))
    if not panels:
        raise NothingToDraw("nothing was measured that could be drawn")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    size = (columns * PANEL_INCHES[0], rows * PANEL_INCHES[1] + 0.4)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        panel(axis)
    figure.text(0.5, 0.004, caption, ha="center", va="bottom", fontsize=8)
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)


def _panels(rows: Sequence[Row]) -> list[Draw]:
    """Return what draws each panel."""
    panels: list[Draw] = []
    by_place: dict[tuple[str, int], list[Row]] = {}
    by_workload: dict[str, list[Row]] = {}
    for row in rows:
        by_place.setdefault((row.workload.name, row.workers), []).append(row)
        if not row.at:
            by_workload.setdefault(row.workload.name, []).append(row)
    lined = {
        name
        for name, found in by_workload.items()
        if len({row.workers for row in found}) >= LINE_FROM
    }
    for (name, _), here in by_place.items():
        if any(row.at for row in here):
            panels.append(partial(_elapsed, rows=here))
        elif len(here) > 1 and name not in lined:
            panels.append(partial(_bars, rows=here))
    for name in by_workload:
        if name in lined:
            panels.append(partial(_against_workers, rows=by_workload[name]))
    return panels


def _elapsed(axis: Axes, rows: Sequence[Row]) -> None:
    """Draw elapsed time against the number of blocks, as the paper does."""
    for peer, points in _by_peer(rows).items():
        points.sort(key=lambda row: row.at)
        _line(axis, peer, [row.at for row in points], points)
    axis.set_xlabel("blocks")
    axis.set_ylabel("elapsed, s")
    _finish(axis, rows[0].workload.title, of_workers(rows[0].workers))


def _against_workers(axis: Axes, rows: Sequence[Row]) -> None:
    for peer, points in _by_peer(rows).items():
        points.sort(key=lambda row: row.workers)
        _line(axis, peer, [row.workers for row in points], points)
    axis.set_xlabel("workers")
    axis.set_ylabel(rows[0].workload.unit)
    counts = sorted({row.workers for row in rows})
    _finish(axis, rows[0].workload.title)
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.set_xticks([], minor=True)


def _bars(axis: Axes, rows: Sequence[Row]) -> None:
    """Draw the medians, the best at the top, with the range as a whisker."""
    ordered = list(reversed(rows))
    medians = [row.median for row in ordered]
    reach = [
        [m - min(row.values) for m, row in zip(medians, ordered, strict=True)],
        [max(row.values) - m for m, row in zip(medians, ordered, strict=True)],
    ]
    colours = [_colour(row.peer) for row in ordered]
    names = [row.peer for row in ordered]
    axis.barh(names, medians, xerr=reach, color=colours, ecolor="grey", height=0.7)
    axis.set_xscale("log")
    axis.set_xlim(min(medians) / 3, max(medians) * 6)
    # their labels would overlap, and each bar has its figure
    axis.minorticks_off()
    for place, row in enumerate(ordered):
        text = f"  {number(row.median)}"
        axis.text(max(row.values), place, text, va="center", fontsize=8)
    workload = rows[0].workload
    axis.set_xlabel(
        f"{workload.unit} ({'less' if workload.is_time else 'more'} is better)"
    )
    axis.set_title(f"{workload.title}\n{of_workers(rows[0].workers)}", fontsize=10)
    axis.grid(axis="x", alpha=0.3)


# --- what the panels share -------------------------------------------------------


def _line(axis: Axes, peer: str, places: Sequence[int], rows: Sequence[Row]) -> None:
    is_ours = peer == OURS
    medians = [statistics.median(row.values) for row in rows]
    colour = _colour(peer)
    axis.plot(
        places,
        medians,
        _style(peer),
        marker="o",
        markersize=4,
        linewidth=2.6 if is_ours else 1.3,
        color=colour,
        label=peer,
        zorder=3 if is_ours else 2,
    )
    lowest = [min(row.values) for row in rows]
    highest = [max(row.values) for row in rows]
    axis.fill_between(places, lowest, highest, color=colour, alpha=0.12, linewidth=0)


def _finish(axis: Axes, *title: str) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_title("\n".join(title), fontsize=10)
    axis.grid(which="both", alpha=0.25)
    axis.legend(fontsize=8, ncols=2)


def _by_peer(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each peer, in the order of the catalogue."""
    found: dict[str, list[Row]] = {}
    for listing in PEERS:
        if own := [row for row in rows if row.peer == listing.name]:
            found[listing.name] = own
    return found


def _colour(peer: str) -> Any:
    """Return the colour of a family, the same in every panel."""
    if peer == OURS:
        return OUR_COLOUR
    import matplotlib

    family = peer.partition("-")[0]
    return matplotlib.colormaps["tab10"](FAMILIES.index(family) % 10)


def _style(peer: str) -> str:
    """Return a style of line that tells the members of a family apart."""
    family = [x.name for x in PEERS if x.family == peer.partition("-")[0]]
    return STYLES[family.index(peer) % len(STYLES)]
