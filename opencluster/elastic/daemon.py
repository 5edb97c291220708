"""The daemon that looks after elastic types, again and again, until it is stopped."""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from opencluster.config import Config
from opencluster.core.elastic_report import metrics_of
from opencluster.core.metrics import Metric
from opencluster.elastic.keeper import Keeper
from opencluster.node.notify import Notifier

log = logging.getLogger(__name__)


class Elastic:
    """Has a keeper look, in the thread that calls `run`.

    Parameters
    ----------
    config : Config
        The settings.
    keeper : Keeper
        Who looks.
    close : callable
        Called at the end of `run`.
    """

    def __init__(
        self, config: Config, keeper: Keeper, close: Callable[[], None]
    ) -> None:
        self.config = config
        self._keeper = keeper
        self._close = close
        self._is_stopping = False
        self._posted: deque[Callable[[], None]] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watched = [self._wake_fd]
        self._notifier = Notifier({})

    def run(self) -> None:
        """Look after the types until `stop`, or until the cluster has ended.

        What runs then stays.
        """
        log.info("looks after %s", ", ".join(self._keeper.types))
        try:
            while not self._is_stopping:
                if self._notifier.interval_s:
                    self._notifier.alive()
                self._keeper.look(time.monotonic())
                if self._keeper.is_over:
                    break
                self._wait()
        finally:
            self._keeper.end()
            self._close()
            os.close(self._wake_fd)
        log.info("looks after nothing any more; what runs stays")

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler."""
        self._is_stopping = True
        self._wake()

    def end_with(self, pidfd: int) -> None:
        """Stop when the process that a file descriptor stands for has ended."""
        self._watched.append(pidfd)

    def report_to(self, notifier: Notifier) -> None:
        """Tell the service manager that it is ready, and at each look that it lives."""
        self._notifier = notifier
        notifier.ready()

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run in its loop."""
        self._posted.append(callback)
        self._wake()

    def metrics(self) -> list[Metric]:
        """Return numbers by which it is watched; call it from its loop, see `post`."""
        return metrics_of([self._keeper.report] if self._keeper.report else [])

    # --- inside --------------------------------------------------------------

    def _wait(self) -> None:
        """Wait until the next look, and do what was posted."""
        deadline = time.monotonic() + self.config.elastic.interval_s
        left_s = self.config.elastic.interval_s
        while left_s > 0.0 and not self._is_stopping:
            ready, _, _ = select.select(self._watched, [], [], left_s)
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)
            while self._posted:
                self._posted.popleft()()
            self._is_stopping |= any(fd != self._wake_fd for fd in ready)
            left_s = deadline - time.monotonic()

    def _wake(self) -> None:
        # it may have ended, and with it what is written to
        with suppress(OSError):
            os.eventfd_write(self._wake_fd, 1)
