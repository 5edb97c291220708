"""Tell the service manager of this computer how a daemon is doing.

systemd gives a service the name of a socket, to which a line goes when it is ready,
when it is about to end, and, as often as the unit's ``WatchdogSec`` asks, that it
lives; one that falls silent is killed and started anew. Where nobody asked, nothing is
sent.

Source: sd_notify(3) and sd_watchdog_enabled(3) of systemd.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Sends a service's state to whoever started it.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are looked for.

    Attributes
    ----------
    interval_s : float
        How often `alive` is to be called; 0 for never.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        address = found.get("NOTIFY_SOCKET", "")
        # a name that begins with @ stands in no folder
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.interval_s = _watchdog_s(found) / 2 if address else 0.0

    def ready(self) -> None:
        """Tell that the service can be used."""
        self._send("READY=1")

    def alive(self) -> None:
        """Tell that the service does what it is there for."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Tell that the service is about to end."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            ) as end:
                end.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("the service manager cannot be told %s: %s", state, error)


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Return after how many seconds of silence a service is killed; 0 for never."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0, int(environment.get("WATCHDOG_USEC", "0"))) * 1e-6
    except ValueError:
        return 0.0
