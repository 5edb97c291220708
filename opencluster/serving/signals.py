"""Which signals reach a process that performs pieces, and that its children are free.

Must not decide what they lead to: their handlers are given.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType

from opencluster.errors import OpenClusterError

INTERRUPT_SIGNAL = signal.SIGUSR2
"""Raises the exception of an interrupt in the main thread, out of a system call too."""

Handler = Callable[[int, FrameType | None], None]


def handle_signals(
    on_interrupt: Handler, on_end: Handler, on_fork: Callable[[], None]
) -> None:
    """Have signals handled in the main thread, where this must be called.

    Parameters
    ----------
    on_interrupt : callable
        Called after `interrupt_main_thread`; may raise.
    on_end : callable
        Called when the process is asked to end; may raise.
    on_fork : callable
        Called in each process that is forked from this one.

    Raises
    ------
    OpenClusterError
        In any other thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise OpenClusterError(
            "ready() must be called in the main thread, where perform() runs"
        )
    signal.signal(INTERRUPT_SIGNAL, on_interrupt)
    signal.signal(signal.SIGTERM, on_end)
    signal.signal(signal.SIGINT, on_end)
    _let_forks_end(on_fork)


def interrupt_main_thread() -> None:
    """Have the handler of interrupts called in the main thread, whatever it does."""
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, INTERRUPT_SIGNAL)


def set_alarm(after_s: float) -> None:
    """Have the kernel end this process after some time, which needs no Python; or not.

    Parameters
    ----------
    after_s : float
        The time in seconds; 0 takes the order back.
    """
    if after_s:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, after_s)


def end_fork() -> None:
    """End a process that perform() forked and that returned; it owns no sockets."""
    os.write(2, b"perform() returned in a forked child; the child ends here\n")
    os._exit(1)


def _let_forks_end(forked: Callable[[], None]) -> None:
    """Let what perform() forks, such as the processes of a pool, end when asked.

    `forked` is called in each of them.
    """
    ours = (INTERRUPT_SIGNAL, signal.SIGTERM, signal.SIGINT)

    def restore() -> None:
        forked()
        for number in ours[:2]:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)

    os.register_at_fork(
        # or a signal that the child gets before its handlers are its own is lost
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, ours),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, ours),
        after_in_child=restore,
    )
