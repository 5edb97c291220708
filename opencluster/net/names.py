"""The address of a host's name, without waiting long for name servers.

Whoever looks for a name holds up the process's sockets meanwhile, and the system waits
half a minute for name servers that do not answer. So it is asked in a thread of its
own, and waited for a moment. A name that took longer is not waited for again: whoever
tries it once more is told what came out in between.
"""

from __future__ import annotations

import socket
import threading
from concurrent.futures import Future

WAIT_S = 1.0
"""How long a name is waited for, once."""

_lock = threading.Lock()
_asked: dict[str, Future[str]] = {}
_slow: set[str] = set()


def address_of(host: str) -> str:
    """Return the IPv4 address of a host.

    Parameters
    ----------
    host : str
        A name, or an address, which is returned as it is.

    Raises
    ------
    OSError, UnicodeError
        When it has none, or that was not found out in time.
    """
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return _looked_up(host)
    return host


def _looked_up(host: str) -> str:
    with _lock:
        asked = _asked.get(host)
        if asked is None:
            asked = _asked[host] = Future()
            name = f"name-{host[:32]}"
            threading.Thread(
                target=_look_up, args=(host, asked), name=name, daemon=True
            ).start()
        wait_s = 0.0 if host in _slow else WAIT_S
    try:
        address = asked.result(wait_s)
    except TimeoutError:
        with _lock:
            _slow.add(host)
        raise OSError(f"no name server has answered within {WAIT_S:g} s") from None
    except (OSError, UnicodeError):
        _forget(host, asked)
        raise
    _forget(host, asked)
    with _lock:
        _slow.discard(host)
    return address


def _forget(host: str, asked: Future[str]) -> None:
    """Have the name looked up anew the next time."""
    with _lock:
        if _asked.get(host) is asked:
            del _asked[host]


def _look_up(host: str, asked: Future[str]) -> None:
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET)
        asked.set_result(str(found[0][4][0]))
    except (OSError, UnicodeError) as error:
        asked.set_exception(error)
