"""Senders, managers and servers for tests of ingest."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from opencluster import Manager, WorkPiece
from opencluster.config import Config
from opencluster.config.settings import IngestSettings
from opencluster.ingest import (
    Answer,
    AnswerReader,
    IngestServer,
    ItemFraming,
    Verdict,
    item_head,
)

DEADLINE_S = 30.0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


def packed(id: str, data: bytes) -> bytes:
    return item_head(id, len(data), zlib.crc32(data)) + data


class Sender:
    """A connection that sends anything, and reads answers."""

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
    ) -> None:
        self.sock = socket.create_connection(address, DEADLINE_S, (source, 0))
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self._reader = AnswerReader()
        self._read: list[Answer] = []

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def item(self, id: str, data: bytes) -> None:
        self.send(packed(id, data))

    def answer(self) -> Answer:
        while not self._read:
            came = self.sock.recv(65536)
            assert came, "the server has closed the connection"
            self._read += self._reader.receive(came)
        return self._read.pop(0)

    def verdict(self) -> tuple[str, Verdict]:
        answer = self.answer()
        return answer.id, answer.verdict

    def is_closed(self) -> bool:
        """Wait for the end of the connection."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Notebook:
    """Notes what managers were given; they wait for `gate`, and fail as told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun: SimpleQueue[str] = SimpleQueue()
        self.failures: dict[str, list[Exception]] = {}

    def manager(self) -> Manager:
        notebook = self

        class Noting(Manager):
            def schedule(self, task: WorkPiece) -> WorkPiece:
                notebook.begun.put(task["item"])
                assert notebook.gate.wait(DEADLINE_S)
                left = notebook.failures.get(task["item"])
                if left:
                    raise left.pop(0)
                notebook.seen.append((task["item"], bytes(task["data"])))
                return WorkPiece()

        return Noting("local")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


def config(**settings: Any) -> Config:
    given = {"margin_bytes": 0, "retry_delay_s": 0.01, "stop_grace_s": 20.0}
    return Config(ingest=IngestSettings(**{**given, **settings}))


def serving(
    folder: Path, notebook: Notebook, framing: Any = ItemFraming, **given: Any
) -> IngestServer:
    names = {"task", "tls", "policy", "managers", "status_file", "drain", "host"}
    options = {name: given.pop(name) for name in list(given) if name in names}
    return IngestServer(
        framing, notebook.manager, folder, config=config(**given), **options
    )
