"""Senders of items, and servers that go, answer oddly or want others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from opencluster.errors import IngestError
from opencluster.ingest import ItemBegun, ItemEnded, ItemFraming, ItemSender, Verdict
from opencluster.ingest.items import pack_answer
from opencluster.ingest.sender import Sent

Answering = Callable[[str], bytes | None]


@contextmanager
def scripted(answering: Answering) -> Iterator[tuple[tuple[str, int], list[str]]]:
    """Yield the address of a server that answers as a function says.

    ``None`` closes the connection.
    """
    received: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            with sock:
                answer_all(sock)

    def answer_all(sock: socket.socket) -> None:
        framing = ItemFraming()
        id = ""
        while data := sock.recv(65536):
            for event in framing.receive(memoryview(data), 0.0):
                if isinstance(event, ItemBegun):
                    id = event.id
                if isinstance(event, ItemEnded):
                    received.append(id)
                    said = answering(id)
                    if said is None:
                        return
                    sock.sendall(said)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname(), received
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def test_what_was_not_answered_is_sent_again_over_another_connection() -> None:
    left = [3]

    def answering(id: str) -> bytes | None:
        left[0] -= 1
        return None if left[0] == 0 else pack_answer(id, Verdict.ACCEPTED)

    with scripted(answering) as (address, received), ItemSender(address) as sender:
        for id in "abcdef":
            sender.send(id, id.encode() * 10_000)
        sent = sender.finish()
    assert sent.accepted == 6
    assert sent.connections == 2
    assert sorted(set(received)) == list("abcdef")
    assert received.count("c") == 2


def test_what_is_to_come_later_is_sent_again() -> None:
    seen: list[Sent] = []
    verdicts = {"a": [Verdict.LATER, Verdict.LATER, Verdict.ACCEPTED]}

    def answering(id: str) -> bytes:
        wait = pack_answer(id, Verdict.WAIT, "no room")
        return wait + pack_answer(id, verdicts[id].pop(0), "the disk is full")

    with (
        scripted(answering) as (address, received),
        ItemSender(address, on_change=seen.append) as sender,
    ):
        sender.send("a", b"data")
        sent = sender.finish()
    assert (sent.accepted, sent.repeated) == (1, 2)
    assert received == ["a"] * 3
    assert sent.waits == "no room"
    assert seen and seen[-1] is sent


def test_what_is_refused_is_told_and_not_sent_again() -> None:
    def answering(id: str) -> bytes:
        verdict = Verdict.REFUSED if id == "b" else Verdict.KNOWN
        return pack_answer(id, verdict, "it is odd")

    with scripted(answering) as (address, received), ItemSender(address) as sender:
        for id in "abc":
            sender.send(id, b"data")
        sent = sender.finish()
    assert (sent.known, sent.refused) == (2, {"b": "it is odd"})
    assert received == ["a", "b", "c"]


def test_a_window_bounds_what_is_under_way() -> None:
    gate = threading.Event()

    def answering(id: str) -> bytes:
        assert gate.wait(30)
        return pack_answer(id, Verdict.ACCEPTED)

    with scripted(answering) as (address, _), ItemSender(address, window=3) as sender:
        sender.send("a", b"x")
        sender.send("b", b"x")
        assert sender.sent.accepted == 0
        gate.set()
        sender.send("c", b"x")
        assert sender.sent.accepted >= 1
        assert sender.finish().accepted == 3


def test_a_server_that_takes_nothing_is_given_up() -> None:
    with (
        scripted(lambda id: None) as (address, received),
        ItemSender(address, patience_s=0.01) as sender,
    ):
        sender.send("a", b"x")
        with pytest.raises(IngestError, match="closes each connection without an ans"):
            sender.finish()
    assert len(received) == 3


def test_what_is_no_server_of_items_is_told() -> None:
    answers = {"a": b"HTTP/1.1 400 Bad Request\r\n\r\n"}
    with scripted(answers.get) as (address, _), ItemSender(address) as sender:
        sender.send("a", b"x")
        with pytest.raises(IngestError, match="is it the right port"):
            sender.finish()
    answers = {"a": pack_answer("", Verdict.REFUSED, "an item begins with b'OCIT'")}
    with scripted(answers.get) as (address, _), ItemSender(address) as sender:
        sender.send("a", b"x")
        with pytest.raises(IngestError, match="understands nothing: an item begins"):
            sender.finish()
