"""A file descriptor that can be read every so often, for who has no timers.

Must not do: anything with the time of day, or in a thread of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

_NANOSECONDS = 1_000_000_000
_TICK_BYTES = 8


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Timer(ctypes.Structure):
    _fields_ = [("interval", _Time), ("first", _Time)]


class Ticker:
    """Ticks while it is wanted; it stands still at first.

    Parameters
    ----------
    interval_s : float
        From tick to tick.

    Raises
    ------
    OSError
        When there is no descriptor left for it.
    """

    def __init__(self, interval_s: float) -> None:
        # Python has these two from 3.13 on
        libc = ctypes.CDLL(None, use_errno=True)
        self._set = libc.timerfd_settime
        seconds, rest = divmod(round(interval_s * _NANOSECONDS), _NANOSECONDS)
        self._interval = _Time(seconds, rest)
        self._is_running = False
        self._fd = libc.timerfd_create(
            time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC
        )
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def fileno(self) -> int:
        """Return the descriptor that can be read after a tick."""
        return int(self._fd)

    def run(self, is_wanted: bool) -> None:
        """Tick from now on, or no more."""
        if is_wanted == self._is_running:
            return
        self._is_running = is_wanted
        interval = self._interval if is_wanted else _Time(0, 0)
        self._set(self._fd, 0, ctypes.byref(_Timer(interval, interval)), None)

    def take(self) -> None:
        """Take note of the ticks so far, so that the descriptor waits for the next."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _TICK_BYTES)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._fd)
