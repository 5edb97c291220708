"""Where others come in: the listening sockets of the express lane.

Must not do: anything with what is said on a connection.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opencluster.errors import OpenClusterError, SecurityError
from opencluster.net.rejections import WARN_INTERVAL_S, Rejections
from opencluster.net.zmq_transport import EndpointInUse

log = logging.getLogger(__name__)

SCHEME = "unix://"
PATH_BYTES = 107
"""Longest path of a unix socket."""
BACKLOG = 4096
"""Connections that wait to be accepted, as far as the system lets so many wait."""
ACCEPTS_PER_TURN = 64
"""Connections that are accepted before those that stand get their turn."""

_CREDENTIALS = struct.Struct("3i")
_PASSING = (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR)
"""Why nothing can be accepted that does not last."""


@dataclass(slots=True, eq=False)
class _Listener:
    """A socket that listens, its path, and the file that it made there."""

    sock: socket.socket
    path: Path
    file: tuple[int, int]


class Door:
    """Listens, and lets processes of the same user in.

    Parameters
    ----------
    epoll : select.epoll
        In which the sockets are watched.
    rejections : Rejections
        Where it is noted who was refused.
    """

    def __init__(self, epoll: select.epoll, rejections: Rejections) -> None:
        self._epoll = epoll
        self._rejections = rejections
        self._listeners: dict[int, _Listener] = {}
        self._resting: list[int] = []
        self._told_at: float | None = None

    def open(self, endpoint: str) -> None:
        """Listen at an endpoint; a file there that nobody listens at is replaced.

        Raises
        ------
        EndpointInUse
            When somebody listens there, or no socket can be there.
        """
        path = path_in(endpoint)
        sock = _socket()
        try:
            try:
                sock.bind(str(path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                    raise
                path.unlink()
                sock.bind(str(path))
            # before it listens: no moment in which others could come in
            path.chmod(0o700)
            sock.listen(BACKLOG)
            file = _file(path)
        except OSError as error:
            sock.close()
            raise EndpointInUse(
                f"cannot listen at {endpoint}: {error.strerror}; choose another path, "
                "or stop the process that has it"
            ) from None
        self._listeners[sock.fileno()] = _Listener(sock, path, file)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def has(self, fd: int) -> bool:
        """Return whether a descriptor is that of one of the sockets."""
        return fd in self._listeners

    def come_in(self, fd: int) -> Iterator[socket.socket]:
        """Yield those who stand at one of the sockets, and may come in."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = self._listeners[fd].sock.accept()
            except OSError as error:
                if error.errno not in _PASSING:
                    self._rest(fd, error)
                return
            user = credentials(sock)[1]
            if user not in (os.geteuid(), 0):
                sock.close()
                what = f"a process of another user ({user}) may not connect"
                self._rejections.note(SecurityError(what))
                continue
            sock.setblocking(False)
            yield sock

    @property
    def is_resting(self) -> bool:
        """Whether nobody is let in for the moment, as there are no descriptors left."""
        return bool(self._resting)

    def wake(self) -> None:
        """Let people in again."""
        resting, self._resting = self._resting, []
        for fd in resting:
            self._epoll.register(fd, select.EPOLLIN)

    def close(self) -> None:
        """Listen no more, and remove the files."""
        for listener in self._listeners.values():
            listener.sock.close()
            with contextlib.suppress(OSError):
                # somebody else may listen there by now
                if _file(listener.path) == listener.file:
                    listener.path.unlink()
        self._listeners.clear()

    def abandon(self) -> None:
        """Close the sockets, in a process that has copies of another's."""
        for listener in self._listeners.values():
            listener.sock.close()
        self._listeners.clear()

    def _rest(self, fd: int, error: OSError) -> None:
        """Look away from a socket, which would be ready again and again."""
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= WARN_INTERVAL_S:
            self._told_at = now
            log.warning("cannot take a connection: %s; it has to wait", error.strerror)
        self._epoll.unregister(fd)
        self._resting.append(fd)


def path_in(endpoint: str) -> Path:
    """Return the path in an endpoint of the lane.

    Raises
    ------
    OpenClusterError
        When it is no such endpoint.
    """
    path = endpoint.removeprefix(SCHEME)
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError:
        length = PATH_BYTES + 1
    is_path = path.startswith("/") and "\0" not in path and length <= PATH_BYTES
    if not endpoint.startswith(SCHEME) or not is_path:
        raise OpenClusterError(
            f"{endpoint!r} is no endpoint of the express lane: use {SCHEME} and an "
            f"absolute path of at most {PATH_BYTES} bytes"
        )
    return Path(path)


def dial(endpoint: str) -> tuple[socket.socket, int]:
    """Return a connection to whoever listens at an endpoint, and its process.

    Raises
    ------
    OpenClusterError
        When nobody listens there.
    SecurityError
        When it is a process of another user.
    """
    path = path_in(endpoint)
    try:
        sock = _socket()
    except OSError as error:
        raise _unreachable(endpoint, error) from None
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise _unreachable(endpoint, error) from None
    pid, user = credentials(sock)
    if os.geteuid() not in (user, 0) and user != 0:
        sock.close()
        raise SecurityError(f"a process of another user ({user}) listens at {endpoint}")
    return sock, pid


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Return the number of the process at the other end, and of its user."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(packed)
    return pid, user


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    return sock


def _is_left_over(path: Path) -> bool:
    """Return whether a socket's file is there at which nobody listens."""
    if not path.is_socket():
        return False
    with _socket() as probe:
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def _file(path: Path) -> tuple[int, int]:
    status = path.stat(follow_symlinks=False)
    return status.st_dev, status.st_ino


def _unreachable(endpoint: str, error: OSError) -> OpenClusterError:
    return OpenClusterError(f"cannot connect to {endpoint}: {error.strerror}")
