"""The other side of `ItemFraming`: sends items until each one is answered for.

It has one thread, the caller's. What was not answered for when a connection breaks is
sent again on the next one; a server that knows it already says so.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from opencluster.errors import IngestError
from opencluster.ingest.framing import Verdict
from opencluster.ingest.items import Answer, AnswerReader, item_head

CONNECT_S = 10.0
"""Time for a connection to come about."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 5.0
"""Before a connection is tried again; doubled each time."""
BARREN = 3
"""So many connections without an answer are no accident."""
WRITE_BYTES = 256 * 1024
"""Most that is written at a time, before answers are looked for."""


class Link:
    """A connection that is written and read by one thread.

    Parameters
    ----------
    address : tuple of (str, int)
        Where to.
    tls : ssl.SSLContext or None
        Of `TLSFiles.for_client`.

    Raises
    ------
    OSError
        Here and below, when there is no connection any more.
    """

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
        plain = socket.create_connection(address, CONNECT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = plain
        if tls is not None:
            self._sock = tls.wrap_socket(plain, server_hostname=address[0])
        self._sock.setblocking(False)

    def write(
        self,
        data: bytes | memoryview,
        came: Callable[[bytes], None],
        sent: Callable[[int], None],
    ) -> None:
        """Write all of it, and hand on what comes meanwhile."""
        rest = memoryview(data).cast("B")
        while rest:
            readable, writable, _ = select.select([self._sock], [self._sock], [])
            if readable and (read := self._read()):
                came(read)
            if writable:
                try:
                    count = self._sock.send(rest[:WRITE_BYTES])
                except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    continue
                sent(count)
                rest = rest[count:]

    def read(self, timeout_s: float) -> bytes:
        """Return what has come, nothing if nothing came in time."""
        readable, _, _ = select.select([self._sock], [], [], timeout_s)
        return self._read() if readable else b""

    def see_off(self, timeout_s: float) -> None:
        """Write no more, and wait until the other side has read all of it."""
        self._sock.settimeout(timeout_s)
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.unwrap()
            return
        self._sock.shutdown(socket.SHUT_WR)
        while self._sock.recv(65536):
            pass

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def _read(self) -> bytes:
        found = []
        try:
            # under TLS there may be more than the socket shows
            while True:
                came = self._sock.recv(65536)
                if not came:
                    raise ConnectionResetError("the server has closed the connection")
                found.append(came)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError:
            if not found:
                raise
        return b"".join(found)


@dataclass(eq=False)
class Sent:
    """What has become of the items so far.

    Attributes
    ----------
    accepted, known : int
        Items that are on the server's disk, and those that it had before.
    refused : dict of str to str
        The others by name, and why.
    repeated : int
        Items that were sent again.
    connections : int
        How many were made.
    written_bytes : int
        All that was written.
    waits : str
        Why the server reads nothing now, or nothing.
    """

    accepted: int = 0
    known: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    connections: int = 0
    written_bytes: int = 0
    waits: str = ""


class ItemSender:
    """Sends items to a server, and sends again what was not kept.

    Parameters
    ----------
    address : tuple of (str, int)
        Where the server listens.
    tls : ssl.SSLContext, optional
        Of `TLSFiles.for_client`.
    window : int, optional
        Items that are under way without an answer; they stay in memory.
    patience_s : float, optional
        For how long a server that is not there is tried.
    on_change : callable, optional
        Called when `sent` has changed.

    Attributes
    ----------
    sent : Sent
        What has become of them.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        window: int = 4,
        patience_s: float = 60.0,
        on_change: Callable[[Sent], None] | None = None,
    ) -> None:
        self.sent = Sent()
        self._address = address
        self._tls = tls
        self._window = window
        self._patience_s = patience_s
        self._on_change = on_change
        self._link: Link | None = None
        self._reader = AnswerReader()
        self._pending: dict[str, bytes | memoryview] = {}
        self._to_send: list[str] = []
        self._barren = 0
        self._heard_at = time.monotonic()

    def send(self, id: str, data: bytes | memoryview) -> None:
        """Send an item; it returns when there is room for a further one.

        Parameters
        ----------
        id : str
            Its name.
        data : bytes-like
            What it is, not to be changed before it is answered for.

        Raises
        ------
        IngestError
            When the server cannot be reached, or what listens there is none.
        """
        self._pending[id] = data
        self._to_send.append(id)
        self._advance(self._window - 1)

    def finish(self) -> Sent:
        """Wait until each item is answered for.

        Raises
        ------
        IngestError
            As for `send`.
        """
        self._advance(0)
        return self.sent

    def close(self) -> None:
        """Close the connection; what was not answered for may be lost."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- inside --------------------------------------------------------------

    def _advance(self, most: int) -> None:
        """Send what is to be sent, until so few are not answered for."""
        while self._to_send or len(self._pending) > most:
            link = self._linked()
            try:
                if self._to_send:
                    self._write(link, self._to_send.pop(0))
                elif came := link.read(1.0):
                    self._came(came)
            except OSError as error:
                self._break(error)

    def _write(self, link: Link, id: str) -> None:
        data = self._pending.get(id)
        if data is not None:
            head = item_head(id, len(data), zlib.crc32(data))
            link.write(head, self._came, self._wrote)
            link.write(data, self._came, self._wrote)

    def _wrote(self, count: int) -> None:
        self.sent.written_bytes += count
        self.sent.waits = ""
        self._changed()

    def _came(self, data: bytes) -> None:
        for answer in self._reader.receive(data):
            self._take(answer)
        self._changed()

    def _take(self, answer: Answer) -> None:
        self._barren, self._heard_at = 0, time.monotonic()
        if answer.verdict is Verdict.WAIT:
            self.sent.waits = answer.reason
            return
        if answer.id not in self._pending:
            if answer.id == "":
                raise IngestError(f"the server understands nothing: {answer.reason}")
            return
        if answer.verdict is Verdict.LATER:
            self.sent.repeated += 1
            self._to_send.append(answer.id)
            return
        del self._pending[answer.id]
        if answer.verdict is Verdict.ACCEPTED:
            self.sent.accepted += 1
        elif answer.verdict is Verdict.KNOWN:
            self.sent.known += 1
        else:
            self.sent.refused[answer.id] = answer.reason

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self.sent)

    def _break(self, error: OSError) -> None:
        """Make everything as it was before the connection, and wait a little."""
        self.close()
        self._barren += 1
        is_late = time.monotonic() - self._heard_at > self._patience_s
        if is_late and self._barren >= BARREN:
            host, port = self._address
            raise IngestError(
                f"{host} port {port} closes each connection without an answer: "
                f"{error}; does the server use TLS, and this framing?"
            )
        time.sleep(min(FIRST_DELAY_S * 2 ** (self._barren - 1), LONGEST_DELAY_S))
        self._reader = AnswerReader()
        again = [id for id in self._pending if id not in self._to_send]
        self.sent.repeated += len(again)
        self._to_send = [*again, *self._to_send]

    def _linked(self) -> Link:
        if self._link is None:
            self._link = connect(self._address, self._tls, self._patience_s)
            self.sent.connections += 1
        return self._link


def connect(
    address: tuple[str, int], tls: ssl.SSLContext | None, patience_s: float
) -> Link:
    """Connect to a server, however often it has to be tried.

    Raises
    ------
    IngestError
        When it could not be reached for so many seconds, or is not whom it should be.
    """
    until, delay_s = time.monotonic() + patience_s, FIRST_DELAY_S
    while True:
        try:
            return Link(address, tls)
        except ssl.SSLError as error:
            raise IngestError(
                f"{address[0]} port {address[1]} is not connected to: {error}; do both "
                "sides have certificates that the other one's authority has signed?"
            ) from None
        except OSError as error:
            if time.monotonic() + delay_s > until:
                raise IngestError(
                    f"{address[0]} port {address[1]} cannot be reached: "
                    f"{error.strerror or error}; does a server run there?"
                ) from None
        time.sleep(delay_s)
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)
