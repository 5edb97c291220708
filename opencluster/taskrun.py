"""The program of one task: a manager in a process of its own.

``python -m opencluster.taskrun ORDER REPORT`` is what a dispatcher starts. Both are
numbers of open files. In the first lies what to do (see `order`); into the second goes,
as a stream of msgpack, what the dispatcher should know:

====================================  ==============================================
``["progress", done, total]``         how far the task is
``["done", result]``                  what came of it, as `wire.stored` packs it
``["failed", error]``                 what was raised, for people
====================================  ==============================================

A process that ends without one of the last two has died. It imports no more than a
manager needs, and nothing of the queue.
"""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from typing import Any, BinaryIO

import msgpack

from opencluster.config import load
from opencluster.engines.choice import ENGINE_VARIABLE
from opencluster.errors import ConfigError, OpenClusterError, indent
from opencluster.manager import Manager
from opencluster.start import set_up_logging
from opencluster.targets import load_class
from opencluster.wire import stored
from opencluster.workpiece import WorkPiece

PROGRESS, DONE, FAILED = "progress", "done", "failed"
PROGRESS_INTERVAL_S = 0.2
"""Progress is reported at most this often."""
MAX_ERROR_CHARACTERS = 20_000
"""Most that is told of an error."""
INTERRUPTED = 128 + 2


def order(
    target: str, engine: str, max_bytes: int, arguments: bytes, piece_class: str = ""
) -> bytes:
    """Return what a process needs to be told to run a task.

    Parameters
    ----------
    target : str
        The Manager class, as ``module:Class`` or ``path.py:Class``.
    engine : str
        Where its pieces run; empty for what the environment says.
    max_bytes : int
        Largest result.
    arguments : bytes
        What ``schedule()`` gets, as `wire.stored` packs it.
    piece_class : str
        The class of its pieces; empty for what the manager says.
    """
    packed: bytes = msgpack.packb([target, engine, max_bytes, arguments, piece_class])
    return packed


class _Reporter:
    """Writes reports, progress not too often."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._reported_at = -PROGRESS_INTERVAL_S

    def tell(self, *fields: Any) -> None:
        self._file.write(msgpack.packb(fields))
        self._file.flush()

    def progress(self, done: float, total: float) -> None:
        if not (math.isfinite(done) and math.isfinite(total)):
            return
        now = time.monotonic()
        is_last = done >= total
        if is_last or now - self._reported_at >= PROGRESS_INTERVAL_S:
            self._reported_at = now
            self.tell(PROGRESS, float(done), float(total))


def run(what: bytes, report: BinaryIO) -> None:
    """Run a task, and report what came of it."""
    reporter = _Reporter(report)
    try:
        target, engine, max_bytes, arguments, piece_class = msgpack.unpackb(what)
        if engine:
            os.environ[ENGINE_VARIABLE] = engine
        manager = _manager(target)
        manager._progress_to = reporter.progress
        if piece_class:
            manager.priority = piece_class
        result = manager.run(stored.unpack(arguments))
        if not isinstance(result, WorkPiece):
            kind = type(result).__name__
            raise TypeError(f"schedule() must return a WorkPiece, not {kind}")
        packed = stored.pack(result, "result", max_bytes)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        reporter.tell(FAILED, described(error))
    else:
        reporter.tell(DONE, packed)


def described(error: BaseException) -> str:
    """Return what was raised, with the lines of the user's code that led to it."""
    head = f"{type(error).__name__}: {error}"
    if isinstance(error, OpenClusterError) and error.__traceback__ is None:
        return head[:MAX_ERROR_CHARACTERS]
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = "".join(traceback.format_tb(trace))
    text = f"{head}\n\ntraceback:\n{indent(lines)}" if lines else head
    return text[:MAX_ERROR_CHARACTERS]


def _manager(target: str) -> Manager:
    cls = load_class(target)
    if not issubclass(cls, Manager):
        raise ConfigError(f"{target} is no Manager")
    return cls()


def main(order_fd: int, report_fd: int) -> int:
    """Run the task that an open file holds."""
    set_up_logging(load().log.level)
    with os.fdopen(order_fd, "rb") as file:
        what = file.read()
    os.set_inheritable(report_fd, False)
    try:
        with os.fdopen(report_fd, "wb") as report:
            run(what, report)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
