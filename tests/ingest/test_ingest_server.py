"""Servers over real sockets: what is accepted is processed once, and is told."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import zlib
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import trustme
from ingest_tools import (
    Notebook,
    Sender,
    config,
    packed,
    serving,
    wait_until,
)

from opencluster import Manager, WorkPiece
from opencluster.config import Config
from opencluster.config.settings import ClusterSettings
from opencluster.errors import (
    ConfigError,
    IngestError,
    NoSuitableWorker,
    SecurityError,
)
from opencluster.ingest import (
    Event,
    Framing,
    IngestServer,
    ItemBegun,
    ItemData,
    ItemEnded,
    ItemFraming,
    Rejected,
    TLSFiles,
    Verdict,
    item_head,
)

LARGE = bytes(range(256)) * 1000


def test_items_are_answered_and_processed_once(tmp_path: Path) -> None:
    items = {f"item {n}": bytes([n]) * (n * 20_000) for n in range(12)}
    notebook = Notebook()
    with serving(tmp_path, notebook) as server, Sender(server.address) as sender:
        sender.send(b"".join(packed(id, data) for id, data in items.items()))
        answers = [sender.verdict() for _ in items]
        assert answers == [(id, Verdict.ACCEPTED) for id in items]
        wait_until(lambda: server.status.processed == len(items))
        sender.item("item 3", b"again")
        assert sender.verdict() == ("item 3", Verdict.KNOWN)
    assert sorted(notebook.seen) == sorted(items.items())
    status = server.status
    assert (status.received, status.accepted, status.known) == (13, 12, 1)
    assert status.accepted_bytes == sum(map(len, items.values()))
    assert (status.spooled, status.spooled_bytes, status.running) == (0, 0, 0)
    assert not status.rejected
    assert not list(tmp_path.glob("*.item"))


def test_a_sender_may_close_its_side_before_it_is_answered(tmp_path: Path) -> None:
    notebook = Notebook()
    with serving(tmp_path, notebook) as server, Sender(server.address) as sender:
        sender.item("a", LARGE)
        sender.sock.shutdown(socket.SHUT_WR)
        assert sender.verdict() == ("a", Verdict.ACCEPTED)
        assert sender.is_closed()
        wait_until(lambda: notebook.names == ["a"])


def test_two_senders_of_one_item_are_both_told(tmp_path: Path) -> None:
    notebook = Notebook()
    with (
        serving(tmp_path, notebook) as server,
        Sender(server.address) as first,
        Sender(server.address) as second,
    ):
        first.send(packed("a", LARGE)[:-1])
        second.send(packed("a", LARGE)[:-1])
        wait_until(lambda: server.status.received == 2)
        first.send(LARGE[-1:])
        second.send(LARGE[-1:])
        found = {first.answer().verdict, second.answer().verdict}
        assert found == {Verdict.ACCEPTED, Verdict.KNOWN}
        wait_until(lambda: server.status.processed == 1)
    assert notebook.names == ["a"]


def test_what_was_changed_on_its_way_is_asked_for_again(tmp_path: Path) -> None:
    notebook = Notebook()
    with serving(tmp_path, notebook) as server, Sender(server.address) as sender:
        sender.send(item_head("a", 5, zlib.crc32(b"right")) + b"wrong")
        answer = sender.answer()
        assert (answer.id, answer.verdict) == ("a", Verdict.LATER)
        assert answer.reason == "the data are not those of the checksum"
        sender.item("a", b"right")
        assert sender.verdict() == ("a", Verdict.ACCEPTED)
        wait_until(lambda: notebook.seen == [("a", b"right")])
    assert server.status.rejected == {"checksum": 1}


def test_what_is_too_large_ends_the_connection(tmp_path: Path) -> None:
    with (
        serving(tmp_path, Notebook(), max_item_bytes=1000) as server,
        Sender(server.address) as sender,
    ):
        sender.item("fits", bytes(1000))
        assert sender.verdict() == ("fits", Verdict.ACCEPTED)
        sender.send(item_head("huge", 1 << 60, 0))
        answer = sender.answer()
        assert answer.verdict is Verdict.REFUSED
        assert answer.reason == f"{1 << 60:,} bytes, the most is 1,000"
        assert sender.is_closed()
    assert server.status.rejected == {"too large": 1}


def test_what_is_no_item_ends_the_connection(tmp_path: Path) -> None:
    with serving(tmp_path, Notebook()) as server, Sender(server.address) as sender:
        sender.item("a", b"x")
        sender.send(b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n" * 1000)
        # what was accepted is answered for when it is on disk
        found = {sender.verdict(), sender.verdict()}
        assert found == {("a", Verdict.ACCEPTED), ("", Verdict.REFUSED)}
        assert sender.is_closed()
        with Sender(server.address) as other:
            other.item("b", b"x")
            assert other.verdict() == ("b", Verdict.ACCEPTED)
    assert server.status.rejected == {"framing": 1}


def test_a_sender_that_goes_in_mid_item_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, Notebook()) as server:
        with Sender(server.address) as sender:
            sender.send(packed("a", LARGE)[:-1])
            wait_until(lambda: server.status.received == 1)
        wait_until(lambda: server.status.rejected == {"cut off": 1})
        wait_until(lambda: server.spool.used_bytes == 0)
        assert not list(tmp_path.glob("*.item"))
        with Sender(server.address) as sender:
            sender.item("a", LARGE)
            assert sender.verdict() == ("a", Verdict.ACCEPTED)


def test_one_byte_now_and_then_is_too_slow(tmp_path: Path) -> None:
    settings = {"slow_s": 0.2, "slow_bytes": 1000, "idle_s": 60.0}
    with (
        serving(tmp_path, Notebook(), **settings) as server,
        Sender(server.address) as sender,
    ):
        sender.send(packed("a", LARGE)[:100])
        assert sender.is_closed()
        wait_until(lambda: server.status.connections == 0)
    assert server.status.rejected == {"slow": 1, "cut off": 1}


def test_who_is_silent_is_cut_off_however_much_it_sent(tmp_path: Path) -> None:
    with (
        serving(tmp_path, Notebook(), idle_s=0.2, slow_s=0.1) as server,
        Sender(server.address) as sender,
    ):
        sender.item("a", LARGE)
        assert sender.verdict() == ("a", Verdict.ACCEPTED)
        assert sender.is_closed()
    assert server.status.rejected == {"idle": 1}


def test_who_does_not_read_the_answers_is_cut_off(tmp_path: Path) -> None:
    server = serving(tmp_path, Notebook(), idle_s=0.5, slow_s=0.5)
    with server, Sender(server.address) as sender:
        sender.item("a" * 200, b"")
        assert sender.verdict() == ("a" * 200, Verdict.ACCEPTED)
        again = packed("a" * 200, b"") * 1000
        sender.sock.settimeout(0.05)
        with suppress(ConnectionError):
            while not server.status.rejected:
                with suppress(TimeoutError):
                    sender.sock.sendall(again)
        wait_until(lambda: server.status.connections == 0)
    assert server.status.rejected["idle"] == 1


def test_two_hundred_senders_are_served_and_no_more(tmp_path: Path) -> None:
    notebook = Notebook()
    limits = {"max_connections": 200, "max_connections_per_address": 150}
    with serving(tmp_path, notebook, **limits) as server, ExitStack() as stack:
        # all of 127.0.0.0/8 is this computer
        sources = ["127.0.0.1"] * 150 + ["127.0.0.2"] * 50
        senders = [
            stack.enter_context(Sender(server.address, source=source))
            for source in sources
        ]
        wait_until(lambda: server.status.connections == 200)
        for source in ("127.0.0.1", "127.0.0.3"):
            with Sender(server.address, source=source) as one_more:
                assert one_more.is_closed()
        for n, sender in enumerate(senders):
            sender.item(str(n), bytes([n]) * 1000)
        for n, sender in enumerate(senders):
            assert sender.verdict() == (str(n), Verdict.ACCEPTED)
        wait_until(lambda: server.status.processed == 200)
        senders[0].close()
        wait_until(lambda: server.status.connections == 199)
        with Sender(server.address, source="127.0.0.3") as sender:
            sender.item("last", b"x")
            assert sender.verdict() == ("last", Verdict.ACCEPTED)
    assert server.status.connections_refused == 2


def test_the_rate_of_a_sender_has_a_limit(tmp_path: Path) -> None:
    with (
        serving(tmp_path, Notebook(), rate_bytes=1 << 40) as server,
        Sender(server.address) as sender,
    ):
        sender.item("a", LARGE)
        assert sender.verdict() == ("a", Verdict.ACCEPTED)
    with (
        serving(tmp_path, Notebook(), rate_bytes=100_000) as server,
        Sender(server.address) as sender,
    ):
        # a second's worth may come at once, of the rest hardly anything
        sender.send(packed("b", LARGE * 8))
        wait_until(lambda: server.status.received_bytes > 100_000)
        assert server.status.accepted == 0


def test_a_full_spool_makes_senders_wait_and_loses_nothing(tmp_path: Path) -> None:
    notebook = Notebook()
    notebook.gate.clear()
    with (
        serving(tmp_path, notebook, spool_bytes=3 * len(LARGE), managers=1) as server,
        Sender(server.address) as sender,
    ):
        for id in "abc":
            sender.item(id, LARGE)
            assert sender.verdict() == (id, Verdict.ACCEPTED)
        sending = threading.Thread(
            target=sender.send, args=(b"".join(packed(id, LARGE) for id in "def"),)
        )
        sending.start()
        answer = sender.answer()
        assert (answer.id, answer.verdict) == ("d", Verdict.WAIT)
        assert "bytes of the spool are used" in answer.reason
        # others are told as well, and still known items are not waited for
        with Sender(server.address) as other:
            other.item("a", LARGE)
            assert other.verdict() == ("a", Verdict.KNOWN)
            other.item("z", LARGE)
            assert other.verdict() == ("z", Verdict.WAIT)
            notebook.gate.set()
            assert other.verdict() == ("z", Verdict.ACCEPTED)
        found = [sender.verdict() for _ in "def"]
        while (found[-1][1]) is Verdict.WAIT or len(found) < 3:
            found.append(sender.verdict())
        accepted = [id for id, verdict in found if verdict is Verdict.ACCEPTED]
        while accepted[-1] != "f":
            id, verdict = sender.verdict()
            accepted += [id] if verdict is Verdict.ACCEPTED else []
        assert accepted == ["d", "e", "f"]
        sending.join()
        wait_until(lambda: server.status.processed == 7)
    assert sorted(notebook.names) == list("abcdefz")
    assert not server.status.dropped


class Lines(Framing):
    """Each line is an item of its own name; there are no answers."""

    def __init__(self) -> None:
        self._kept = b""

    def receive(self, data: memoryview, now: float) -> Sequence[Event]:
        *lines, self._kept = (self._kept + bytes(data)).split(b"\n")
        events: list[Event] = []
        for line in lines:
            if line.startswith(b"#"):
                events.append(Rejected("comment"))
                continue
            name = line.split(b" ")[0].decode()
            half = len(line) // 2
            events += [
                ItemBegun(name, len(line)),
                ItemData(line[:half]),
                ItemData(memoryview(line)[half:]),
                ItemEnded({"length": len(line)}),
            ]
        return events


def line(name: str, size: int = 250_000) -> bytes:
    return name.encode().ljust(size, b" ") + b"\n"


def test_a_feed_without_answers_waits_in_its_socket(tmp_path: Path) -> None:
    notebook = Notebook()
    notebook.gate.clear()
    names = [str(n) for n in range(60)]
    with serving(
        tmp_path, notebook, Lines, spool_bytes=1_000_000, managers=1
    ) as server:
        sender = Sender(server.address)
        sending = threading.Thread(
            target=sender.send, args=(b"".join(map(line, names)),)
        )
        sending.start()
        wait_until(lambda: server.status.accepted == 4)
        wait_until(lambda: server.status.received_bytes > 4 * 250_000)
        notebook.gate.set()
        sending.join()
        sender.close()
        wait_until(lambda: server.status.processed == len(names))
    assert notebook.names == names
    assert server.status.dropped == 0


def test_the_oldest_go_where_the_policy_says_so(tmp_path: Path) -> None:
    notebook = Notebook()
    notebook.gate.clear()
    with (
        serving(
            tmp_path,
            notebook,
            Lines,
            spool_bytes=1_000_000,
            managers=1,
            policy="drop-oldest",
        ) as server,
        Sender(server.address) as sender,
    ):
        sender.send(line("0"))
        notebook.begun.get(timeout=30)
        sender.send(b"".join(line(str(n)) for n in range(1, 10)))
        wait_until(lambda: server.status.accepted == 10)
        wait_until(lambda: server.status.dropped == 6)
        notebook.gate.set()
        wait_until(lambda: server.status.processed == 4)
    assert notebook.names == ["0", "7", "8", "9"]
    # what was let go of is known, and not taken again
    assert server.status.spooled == 0


def test_fewer_are_kept_where_the_policy_says_so(tmp_path: Path) -> None:
    notebook = Notebook()
    notebook.gate.clear()
    with (
        serving(
            tmp_path,
            notebook,
            Lines,
            spool_bytes=1_000_000,
            managers=1,
            policy="sample",
        ) as server,
        Sender(server.address) as sender,
    ):
        sender.send(b"".join(line(str(n), 100_000) for n in range(40)))
        wait_until(lambda: server.status.received == 40)
        kept, dropped = server.status.accepted, server.status.dropped
        notebook.gate.set()
        wait_until(lambda: server.status.processed + dropped == 40)
    assert kept <= server.status.processed < 20
    assert notebook.names[:5] == list("01234")


def test_what_a_framing_leaves_out_is_counted(tmp_path: Path) -> None:
    status_file = tmp_path / "status.json"
    notebook = Notebook()
    with (
        serving(tmp_path / "s", notebook, Lines, status_file=status_file) as server,
        Sender(server.address) as sender,
    ):
        sender.send(b"# one\n# two\na b\n")
        wait_until(lambda: server.status.processed == 1)
    told = json.loads(status_file.read_text())
    assert told["rejected"] == {"comment": 2}
    assert (told["accepted"], told["processed"], told["spooled"]) == (1, 1, 0)
    assert str(server.status).endswith("1 processed; rejected: comment 2")


def test_a_manager_that_fails_is_tried_again_and_then_given_up(tmp_path: Path) -> None:
    notebook = Notebook()
    notebook.failures = {
        "twice": [ValueError("1"), ValueError("2")],
        "always": [ValueError("no")] * 10,
        "cluster": [NoSuitableWorker("none")] * 8,
    }
    with (
        serving(tmp_path, notebook, retries=2, retry_delay_s=0.001) as server,
        Sender(server.address) as sender,
    ):
        for id in ("twice", "always", "cluster", "good"):
            sender.item(id, id.encode())
        wait_until(lambda: server.status.processed == 3)
        wait_until(lambda: server.status.failed == 1)
    assert sorted(notebook.names) == ["cluster", "good", "twice"]
    assert server.status.retried == 2 + 2 + 8
    (failed,) = (tmp_path / "failed").iterdir()
    assert failed.read_bytes() == b"always"


class Wrong(ItemFraming):
    """Has an error, in what it is told at the end too."""

    def receive(self, data: memoryview, now: float) -> Sequence[Event]:
        if bytes(data[:1]) == b"!":
            raise ZeroDivisionError("wrong")
        return super().receive(data, now)

    def end(self, now: float) -> Sequence[Event]:
        raise ZeroDivisionError("wrong as well")


def test_an_error_of_a_framing_costs_its_connection_alone(tmp_path: Path) -> None:
    with (
        serving(tmp_path, Notebook(), Wrong) as server,
        Sender(server.address) as good,
        Sender(server.address) as bad,
    ):
        bad.send(b"!")
        answer = bad.answer()
        assert (answer.verdict, answer.reason) == (
            Verdict.REFUSED,
            "the server has an error",
        )
        assert bad.is_closed()
        bad.close()
        good.item("a", b"x")
        assert good.verdict() == ("a", Verdict.ACCEPTED)
        good.close()
        wait_until(lambda: server.status.connections == 0)
        assert server.status.rejected == {"error": 2}


def test_a_manager_that_exits_costs_its_run_alone(tmp_path: Path) -> None:
    notebook = Notebook()
    notebook.failures = {"a": [SystemExit(3)]}  # type: ignore[list-item]
    with (
        serving(tmp_path, notebook, managers=1) as server,
        Sender(server.address) as sender,
    ):
        sender.item("a", b"x")
        wait_until(lambda: server.status.processed == 1)
    assert server.status.retried == 1


def test_an_error_of_the_server_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(tmp_path, Notebook())

    def broken(*given: object) -> None:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(server.spool, "commit", broken)
    with Sender(server.address) as sender:
        sender.item("a", b"x")
        with pytest.raises(ZeroDivisionError, match="unforeseen"):
            server.run()
        assert sender.is_closed()
    assert server.wait(0)


def test_a_server_that_stops_leaves_the_rest_to_the_next_one(tmp_path: Path) -> None:
    notebook = Notebook()
    notebook.gate.clear()
    server = serving(tmp_path, notebook, managers=1)
    server.start()
    with Sender(server.address) as sender, Sender(server.address) as half:
        for id in "abc":
            sender.item(id, LARGE)
            assert sender.verdict() == (id, Verdict.ACCEPTED)
        half.send(packed("half", LARGE)[:-1])
        notebook.begun.get(timeout=30)
        server.stop()
        assert sender.is_closed()
        assert half.is_closed()
        # the one that runs is waited for
        assert not server.wait(0.05)
        notebook.gate.set()
        assert server.wait(30)
    assert notebook.names == ["a"]
    assert server.status.rejected == {}
    with serving(tmp_path, notebook) as again:
        wait_until(lambda: again.status.processed == 2)
        assert again.status.left == 2
    assert sorted(notebook.names) == ["a", "b", "c"]


def test_a_server_may_be_asked_to_drain_its_spool(tmp_path: Path) -> None:
    notebook = Notebook()
    with serving(tmp_path, notebook, managers=1, drain=True) as server:
        with Sender(server.address) as sender:
            for n in range(20):
                sender.item(str(n), b"x")
            for _ in range(20):
                sender.answer()
        server.stop()
        assert server.wait(30)
    assert notebook.names == [str(n) for n in range(20)]


def test_a_manager_that_hangs_does_not_keep_a_server(tmp_path: Path) -> None:
    notebook = Notebook()
    notebook.gate.clear()
    server = serving(tmp_path, notebook, stop_grace_s=0.05)
    with server, Sender(server.address) as sender:
        sender.item("a", b"x")
        notebook.begun.get(timeout=30)
    assert server.wait(0)
    notebook.gate.set()
    wait_until(lambda: notebook.names == ["a"])
    # nobody wrote down that it is done, so it is done again
    with serving(tmp_path, notebook) as again:
        wait_until(lambda: again.status.processed == 1)


def test_a_task_can_be_made_of_the_item(tmp_path: Path) -> None:
    seen = []

    class Sizes(Manager):
        def schedule(self, task: WorkPiece) -> WorkPiece:
            seen.append(dict(task))
            return WorkPiece()

    server = IngestServer(
        Lines,
        lambda: Sizes("local"),
        tmp_path,
        config=config(),
        task=lambda item, data: WorkPiece(name=item.id, n=len(data), **item.about),
    )
    with server, Sender(server.address) as sender:
        host, port = sender.sock.getsockname()
        sender.send(b"abc\n")
        wait_until(lambda: seen)
    assert seen == [{"name": "abc", "n": 3, "length": 3, "peer": f"{host}:{port}"}]


def test_strangers_are_not_listened_to_without_tls(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="refusing to listen at 0.0.0.0 without"):
        serving(tmp_path, Notebook(), host="0.0.0.0")
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(SecurityError, match="asks senders for no certificate"):
        serving(tmp_path, Notebook(), host="0.0.0.0", tls=lax)
    insecure = Config(cluster=ClusterSettings(insecure=True))
    server = IngestServer(
        ItemFraming, Notebook().manager, tmp_path, host="0.0.0.0", config=insecure
    )
    with server, Sender(("127.0.0.1", server.address[1])) as sender:
        sender.item("a", b"x")
        assert sender.verdict() == ("a", Verdict.ACCEPTED)


def test_an_address_in_use_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, Notebook()) as server:
        with pytest.raises(IngestError, match="Address already in use"):
            IngestServer(
                ItemFraming,
                Notebook().manager,
                tmp_path / "other",
                port=server.address[1],
                config=config(),
            )
        with pytest.raises(IngestError, match="in use by another server"):
            serving(tmp_path, Notebook())


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def files(authority: trustme.CA, folder: Path, trusted: trustme.CA) -> TLSFiles:
    folder.mkdir()
    made = authority.issue_cert("localhost")
    paths = [folder / name for name in ("cert.pem", "key.pem", "ca.pem")]
    paths[0].write_bytes(b"".join(b.bytes() for b in made.cert_chain_pems))
    paths[1].write_bytes(made.private_key_pem.bytes())
    paths[2].write_bytes(trusted.cert_pem.bytes())
    return TLSFiles(*paths)


def test_senders_with_certificates_are_let_in(
    tmp_path: Path, authority: trustme.CA
) -> None:
    ours = files(authority, tmp_path / "tls", authority)
    notebook = Notebook()
    with serving(tmp_path / "s", notebook, tls=ours.for_server()) as server:
        with Sender(server.address, ours.for_client()) as sender:
            for n in range(20):
                sender.item(str(n), LARGE)
            assert {sender.answer().verdict for _ in range(20)} == {Verdict.ACCEPTED}
        wait_until(lambda: server.status.processed == 20)
    assert sorted(notebook.seen) == sorted((str(n), LARGE) for n in range(20))


def ask(address: tuple[str, int], context: ssl.SSLContext) -> None:
    with Sender(address, context) as sender:
        sender.item("a", b"x")
        sender.answer()


def test_strangers_are_not_let_in(tmp_path: Path, authority: trustme.CA) -> None:
    ours = files(authority, tmp_path / "tls", authority)
    strange = files(trustme.CA(), tmp_path / "strange", authority)
    with serving(tmp_path / "s", Notebook(), tls=ours.for_server()) as server:
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.load_verify_locations(ours.authority)
        for context in (bare, strange.for_client()):
            with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
                ask(server.address, context)
        with Sender(server.address) as plain:
            plain.item("a", b"x" * 100)
            assert plain.is_closed()
        wait_until(lambda: server.status.rejected["tls"] == 3)
        wait_until(lambda: len(server._gate) == 0)
    assert server.status.received == 0


def test_tls_files_that_cannot_be_used_are_named(
    tmp_path: Path, authority: trustme.CA
) -> None:
    ours = files(authority, tmp_path / "tls", authority)
    others = files(authority, tmp_path / "others", authority)
    mixed = TLSFiles(ours.certificate, others.key, ours.authority)
    with pytest.raises(ConfigError, match="the key belongs to the certificate"):
        mixed.for_server()
    with pytest.raises(ConfigError, match="none.pem"):
        TLSFiles(tmp_path / "none.pem", ours.key, ours.authority).for_client()
