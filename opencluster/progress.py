"""Progress bars on standard error, for people who watch maps run.

A terminal has room for one display, so all bars of a process are lines of one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID

Moving = Callable[[], Sequence[int]]
"""Returns the bytes that were sent and all that are to be, then those that came."""
UNITS = (("GB", 1e9), ("MB", 1e6))


class Bar:
    """Advances by one for each piece that is done."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self) -> None:
        """One more is done."""
        self._progress.advance(self._task)


class _Display:
    """What is drawn while there are bars."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: Progress | None = None

    def add(
        self, label: str, total: int | None, moving: Moving
    ) -> tuple[Progress, TaskID]:
        with self._lock:
            if self._progress is None:
                self._progress = _progress()
                self._progress.start()
            return self._progress, self._progress.add_task(
                label, total=total, moving=moving
            )

    def remove(self, progress: Progress, task: TaskID) -> None:
        with self._lock:
            if len(progress.tasks) == 1:
                progress.stop()
                self._progress = None
            progress.remove_task(task)


_display = _Display()


@contextmanager
def bar(label: str, total: int | None, moving: Moving) -> Iterator[Bar]:
    """Show a bar while the block runs.

    Parameters
    ----------
    label : str
        What is being done.
    total : int or None
        How many pieces there are, if that is known.
    moving : callable
        Returns how far the large ones are that are under way.
    """
    progress, task = _display.add(label, total, moving)
    try:
        yield Bar(progress, task)
    finally:
        _display.remove(progress, task)


def moved_text(moved: Sequence[int]) -> str:
    """Return in words how far large pieces and results are, if there are any.

    Parameters
    ----------
    moved : sequence of int
        Bytes that were sent, and all that are to be sent; the same of those that came.
    """
    sent, to_send, came, to_come = moved
    told = []
    for done, total, what in ((sent, to_send, "sent"), (came, to_come, "received")):
        if total:
            unit, size = UNITS[total < UNITS[0][1]]
            told.append(f"{done / size:.1f}/{total / size:.1f} {unit} {what}")
    return ", ".join(told)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class MovedColumn(ProgressColumn):
        """How far pieces are that take long to send."""

        def render(self, task: Task) -> Text:
            return Text(moved_text(task.fields["moving"]()))

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        MovedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # data that goes elsewhere than to the terminal must not be drawn above the bar
        redirect_stdout=sys.stdout.isatty(),
    )
