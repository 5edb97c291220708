"""What is done about a message that is refused: it is counted and told.

Must not decide what makes sense, or who may say what. A flood of such messages costs a
counter each and a line a minute, so that nobody can fill a disk with a log.
"""

from __future__ import annotations

import logging
import time

from opencluster.errors import OpenClusterError, SecurityError
from opencluster.net.transport import TransportCounts

WARN_INTERVAL_S = 60.0
"""Malformed messages are logged at most this often."""

MAX_REASON = 500
"""Characters of what was wrong, as it may quote the message."""

MALFORMED = (
    OpenClusterError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
)
"""What reading fields raises that are missing, or not of the type expected."""


class Rejections:
    """Counts and logs the messages that were refused.

    Parameters
    ----------
    counts : TransportCounts
        Where they are counted.
    log : logging.Logger
        Where they are told.
    """

    def __init__(self, counts: TransportCounts, log: logging.Logger) -> None:
        self._counts = counts
        self._log = log
        self._told_at: float | None = None
        self._noted = 0
        self._told = 0

    def note(self, error: Exception) -> None:
        """Take note of a message, given what was wrong with it."""
        self._noted += 1
        if isinstance(error, SecurityError):
            self._counts.rejected_credentials += 1
        else:
            self._counts.rejected_messages += 1
        self._log.debug("a message is refused", exc_info=error)
        now = time.monotonic()
        if self._told_at is not None and now - self._told_at < WARN_INTERVAL_S:
            return
        new = self._noted - self._told
        what = "a message" if new == 1 else f"{new} messages, the last one"
        self._log.warning("rejected %s: %.*s", what, MAX_REASON, error)
        self._told_at, self._told = now, self._noted
