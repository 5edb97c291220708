"""What stands for the result of a piece until it is there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from opencluster.engines.base import Engine
from opencluster.errors import PieceCancelled


class PieceFuture(Future[Any]):
    """The result of one piece, to come; cancelling it withdraws the piece.

    Parameters
    ----------
    engine : Engine
        What the piece runs on.
    owner : object
        Whose job the piece belongs to: the job lasts as long as that lives.

    Attributes
    ----------
    numbers : sequence of int
        The piece, when it was submitted.
    """

    _ready_made: Future[Any] = Future()
    _ready_made.set_running_or_notify_cancel()

    def __init__(self, engine: Engine, owner: object) -> None:
        # Future() makes a lock and a condition, which take longer than all the rest of
        # a small piece and keep the garbage collector busy. As nobody waits for them
        # but through the engine, all futures share those of one that is running.
        self.__dict__.update(self._ready_made.__dict__)
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self.engine = engine
        self.numbers: Sequence[int] = ()
        self._owner = owner

    def cancel(self) -> bool:
        """Withdraw the piece; its result is a `PieceCancelled` then."""
        if self.done():
            return False
        self.engine.cancel(self.numbers)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result, or raise the error; the engine's work is done here."""
        return super().result(self._wait(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the result, and return the error, if it is one."""
        return super().exception(self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        """Wait until the result is there, and return how long may still be waited."""
        if self.done() or self.engine.wait(self.done, timeout) or timeout is None:
            return timeout
        return 0.0

    def cancelled(self) -> bool:
        """Return whether the piece was withdrawn."""
        return self.done() and isinstance(self.exception(), PieceCancelled)

    def interrupt(self) -> None:
        """Interrupt the piece if it runs."""
        self.engine.interrupt(self.numbers)
