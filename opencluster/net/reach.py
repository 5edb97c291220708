"""Why a process is not reached over the network, in words that name both ends.

libzmq tries again and again and says nothing. So when somebody does not answer for some
time, a connection of its own is opened there to see what becomes of it, from the
reactor and without waiting. Must not decide what follows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from concurrent.futures import Future

from opencluster.net.announce import way_out
from opencluster.net.names import address_of
from opencluster.net.reactor import Reactor

ANSWER_S = 2.0
"""How long somebody may take to answer before a firewall is thought of: a packet that
is lost is sent again after one second."""
GREETING_BYTES = 10
"""What whoever speaks ZMTP says first, unasked (RFC 23): 0xff, a length, 0x7f."""

_TCP = "tcp://"
_REFUSED = (
    "connection refused: nothing listens there, as it has ended or its port is another "
    "one, or a firewall rejects it"
)
_SILENT = (
    "no answer within {:g} s: that computer is off, or a firewall on the way drops "
    "what is sent there or what comes back, or the address is none that is reached "
    "from here ([network] announce there says which one is told)"
)
_HANGS = (
    "the connection is taken, and nothing is said on it within {:g} s: the process "
    "there hangs, or what is sent back is lost"
)
_NO_ADDRESS = (
    "{!r} has no address here ({}): check the name, and what this computer looks names "
    "up in, or give a numeric address"
)
_STRANGER = "what listens there is not of OpenCluster"
_FORBIDDEN = "a firewall of this computer forbids it"
_WORDS = {errno.ECONNREFUSED: _REFUSED, errno.EPERM: _FORBIDDEN}
_WORDS[errno.EACCES] = _FORBIDDEN
_WORDS[errno.EHOSTUNREACH] = (
    "no route to host: nobody has that address, or that computer is off, or a firewall "
    "rejects what is sent there"
)
_WORDS[errno.ENETUNREACH] = (
    "network is unreachable: this computer knows no way to that address"
)


class _Socket(socket.socket):
    """One that a reactor may leave behind when it ends."""

    def __del__(self) -> None:
        self.close()


def here(endpoint: str = "") -> str:
    """Return this computer's name, and its address as it is seen from an endpoint."""
    return f"{socket.gethostname()} ({way_out([endpoint])})"


def cannot_reach(whom: str, endpoint: str, why: str) -> str:
    """Return in one sentence who cannot reach whom."""
    return f"{here(endpoint)} cannot reach {whom} at {endpoint}: {why}"


def look(reactor: Reactor, endpoint: str, timeout_s: float = ANSWER_S) -> Future[str]:
    """Find out why nobody is reached at an endpoint; to be called by its reactor.

    Parameters
    ----------
    reactor : Reactor
        Watches the connection.
    endpoint : str
        ``tcp://host:port``.
    timeout_s : float
        How long an answer may take.

    Returns
    -------
    Future
        Why, as a predicate to "cannot reach"; an empty text if somebody answers.
    """
    found: Future[str] = Future()
    host, _, port = endpoint.removeprefix(_TCP).rpartition(":")
    sock = _Socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)

    def end(why: str) -> None:
        if not found.done():
            reactor.unwatch(sock.fileno())
            sock.close()
            found.set_result(why)

    def overdue() -> None:
        if not found.done():
            with contextlib.suppress(OSError):
                sock.getpeername()
                end(_HANGS.format(timeout_s))
                return
            end(_SILENT.format(timeout_s))

    def readable() -> None:
        try:
            said = sock.recv(GREETING_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            end(_in_words(error.errno))
            return
        end("" if said[:1] == b"\xff" and said[-1:] == b"\x7f" else _STRANGER)

    try:
        begun = sock.connect_ex((address_of(host), int(port)))
    except (OSError, ValueError, OverflowError) as error:
        sock.close()
        found.set_result(
            _NO_ADDRESS.format(host, getattr(error, "strerror", 0) or error)
        )
        return found
    if begun not in (0, errno.EINPROGRESS):
        sock.close()
        found.set_result(_in_words(begun))
        return found
    reactor.watch(sock.fileno(), readable)
    reactor.after(timeout_s, overdue)
    return found


def _in_words(number: int | None) -> str:
    return _WORDS.get(number or 0) or os.strerror(number or 0).lower()
