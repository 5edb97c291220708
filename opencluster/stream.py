"""Results that flow on to the next stage while they come, through a bounded queue.

A `Stream` reads its source in a thread of its own. So a stage goes on while the next
one is busy, until the queue between them is full: then the source is read no more,
which its own stage notices in turn, back to whoever produces the data.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from opencluster.workpiece import WorkPiece


class Stream(Iterator[WorkPiece]):
    """An iterator over what a thread reads ahead, a bounded number of pieces.

    Parameters
    ----------
    source : iterable of WorkPiece
        What is read, and closed at the end, if it can be.
    bound : int
        Most pieces that were read and not yet taken.
    """

    def __init__(self, source: Iterable[WorkPiece], bound: int) -> None:
        self._queue = _Queue(bound)
        # what the source asks of a manager counts for the job that it is read in; and
        # the thread does not know the stream, so that it can see it go
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run,
            args=(_read, iter(source), self._queue),
            name="opencluster-stream",
            daemon=True,
        ).start()

    @property
    def is_ready(self) -> bool:
        """Whether `__next__` would return, raise or stop at once."""
        return self._queue.is_ready

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Have a callback run, in the thread that reads, when something came."""
        self._queue.on_change = callback

    def __next__(self) -> WorkPiece:
        """Return the next piece, when there is one.

        Raises
        ------
        Exception
            What the source raised, after the pieces before it were taken.
        """
        return self._queue.take()

    def close(self) -> None:
        """Read no more."""
        self._queue.close()

    def __del__(self) -> None:
        """Read no more for somebody who is gone."""
        self.close()


class _Queue:
    """What was read and not taken, between two threads."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._pieces: deque[WorkPiece] = deque()
        self._error: BaseException | None = None
        self._is_ended = False
        self._is_closed = False
        self._changed = threading.Condition()
        self.on_change: Callable[[], None] = _nothing

    @property
    def is_ready(self) -> bool:
        return bool(self._pieces) or self._is_ended

    def take(self) -> WorkPiece:
        with self._changed:
            self._changed.wait_for(lambda: self.is_ready)
            if self._pieces:
                self._changed.notify_all()
                return self._pieces.popleft()
            error, self._error = self._error, None
        raise error or StopIteration

    def put(self, piece: WorkPiece) -> bool:
        """Let a piece be taken; ``False`` when nobody will take another."""
        with self._changed:
            self._pieces.append(piece)
            self._changed.notify_all()
        self.on_change()
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._pieces) < self._bound or self._is_closed
            )
            return not self._is_closed

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._error = error
            self._is_ended = True
            self._changed.notify_all()
        self.on_change()

    def close(self) -> None:
        with self._changed:
            self._is_closed = self._is_ended = True
            self._pieces.clear()
            self._changed.notify_all()


def _read(source: Iterator[WorkPiece], queue: _Queue) -> None:
    """Read a source into a queue to its end, or as long as somebody takes."""
    error = None
    try:
        for piece in source:
            if not queue.put(piece):
                break
    except BaseException as raised:
        error = raised
    close = getattr(source, "close", None)
    if close is not None:
        close()
    queue.end(error)


def _nothing() -> None:
    """Tell nobody."""
