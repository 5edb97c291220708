"""What may raise in the midst of what must not be broken off, and how to keep it out.

Python runs the handlers of signals in the main thread, between any two of its steps,
and many of them raise: Ctrl-C does. So does code that is nested too deeply. A thread
that holds half a message must not be left like that.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Collection
from signal import SIGALRM, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2
from types import FrameType
from typing import Any

# the same functions without the enums, whose making takes twenty times as long
_signal: Any = importlib.import_module("_signal")
_handler_of: Callable[[int], Any] = _signal.getsignal
_handle: Callable[[int, Any], Any] = _signal.signal

ROOM_FRAMES = 200
"""Calls within each other that serving sockets takes, with those of users' callbacks:
a RecursionError in the midst of it would lose a message."""

_INTERRUPT = int(SIGINT)
_OTHERS = tuple(map(int, (SIGALRM, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2)))


class MainThread:
    """The thread in which Python runs the handlers of signals.

    Attributes
    ----------
    ident : int or None
        Its identity, kept here as it is asked for very often.
    """

    ident = threading.main_thread().ident

    @classmethod
    def find(cls) -> None:
        """Find it anew: in a forked child it is the thread that forked."""
        cls.ident = threading.main_thread().ident


os.register_at_fork(after_in_child=MainThread.find)


def has_handlers() -> bool:
    """Return whether a signal other than Ctrl-C has a handler that could raise."""
    return any(map(callable, map(_handler_of, _OTHERS)))


def has_handlers_besides(ours: Collection[Any]) -> bool:
    """Return whether any signal has a handler that could raise and is none of these."""
    handlers = map(_handler_of, (*_OTHERS, _INTERRUPT))
    return any(callable(handler) and handler not in ours for handler in handlers)


def has_room() -> bool:
    """Return whether the caller may call a good deal more before Python stops it."""
    try:
        sys._getframe(sys.getrecursionlimit() - ROOM_FRAMES)
    except ValueError:
        return True
    return False


class Deferral:
    """Keeps Ctrl-C until it can do no harm; for use in the main thread.

    Parameters
    ----------
    on_interrupt : callable
        Called when the signal comes, between any two steps: must not raise.
    """

    def __init__(self, on_interrupt: Callable[[], None]) -> None:
        self._on_interrupt = on_interrupt
        self._original: Any = None
        self._frame: FrameType | None = None
        self._note_it = self._note
        self.is_due = False

    def begin(self) -> None:
        """Only note the signal from now on."""
        self.is_due = False
        original = _handler_of(_INTERRUPT)
        if callable(original):
            self._original = original
            _handle(_INTERRUPT, self._note_it)

    def end(self) -> None:
        """Let the signal be handled again, one that came meanwhile at once."""
        original, self._original = self._original, None
        # a callback may have set another one
        if original is not None and _handler_of(_INTERRUPT) is self._note_it:
            _handle(_INTERRUPT, original)
        if self.is_due:
            self.is_due = False
            frame, self._frame = self._frame, None
            handler = _handler_of(_INTERRUPT)
            if callable(handler):
                handler(_INTERRUPT, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_due = True
        self._frame = frame
        self._on_interrupt()
