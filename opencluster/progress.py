"""Progress bars on standard error, for people who watch maps run.

A terminal has room for one display, so all bars of a process are lines of one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


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

    def add(self, label: str, total: int | None) -> tuple[Progress, TaskID]:
        with self._lock:
            if self._progress is None:
                self._progress = _progress()
                self._progress.start()
            return self._progress, self._progress.add_task(label, total=total)

    def remove(self, progress: Progress, task: TaskID) -> None:
        with self._lock:
            if len(progress.tasks) == 1:
                progress.stop()
                self._progress = None
            progress.remove_task(task)


_display = _Display()


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Bar]:
    """Show a bar while the block runs.

    Parameters
    ----------
    label : str
        What is being done.
    total : int or None
        How many pieces there are, if that is known.
    """
    progress, task = _display.add(label, total)
    try:
        yield Bar(progress, task)
    finally:
        _display.remove(progress, task)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # data that goes elsewhere than to the terminal must not be drawn above the bar
        redirect_stdout=sys.stdout.isatty(),
    )
