"""What one client may ask of the daemons has bounds, and what exceeds them is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq
from fault_tools import (
    DEADLINE_S,
    cluster,
    entries,
    fault,
    perform,
    wait_until,
    zmq_endpoint,
)

from opencluster.config import load
from opencluster.core.entries import Entry
from opencluster.place import factories
from opencluster.testing import LocalCluster
from opencluster.wire import codec, frames, kinds

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("here")]

NESTING = 40
TEXT = 300
ENTRIES = 5
SUBSCRIBERS = 3
JOBS = 3
MEMBERS = 12
QUEUED_BYTES = 100_000
QUEUED = 4
REQUEST_BYTES = 1 << 20
UNREAD = 100


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    settings = {
        "limits.max_nesting": NESTING,
        "limits.max_text": TEXT,
        "limits.max_entry_bytes": 128 << 10,
        "limits.max_entries_per_client": ENTRIES,
        "limits.max_subscribers": SUBSCRIBERS,
        "limits.max_request_bytes": REQUEST_BYTES,
        "limits.max_queued_messages": UNREAD,
        "factory.jobs_kept": JOBS,
        "factory.max_entries": MEMBERS,
        "worker.max_queued_bytes": QUEUED_BYTES,
        "worker.max_queued": QUEUED,
        # who does not read answers no pings, and is to be let down for that alone
        "network.zmtp_heartbeat_s": 0,
    }
    with cluster(settings, FaultWorker=1) as here:
        yield here


class Client:
    """Somebody who asks a daemon without OpenCluster's own caution."""

    def __init__(self, sock: zmq.Socket[bytes]) -> None:
        self.sock = sock

    def say(self, *fields: Any, buffers: tuple[bytes, ...] = ()) -> None:
        self.sock.send_multipart([frames.pack(*fields), *buffers])

    def hear(self, kind: str) -> list[Any]:
        """Return the fields of the next message of a kind."""
        while True:
            fields = frames.unpack(self.sock.recv_multipart()[0])
            if fields[0] == kind:
                return fields

    def ask(self, operation: str, arguments: Any) -> Any:
        self.say(kinds.REQUEST, 1, operation, arguments)
        return self.hear(kinds.REPLY)[3]

    def refusal(self, operation: str, arguments: Any) -> str:
        self.say(kinds.REQUEST, 2, operation, arguments)
        reply = self.hear(kinds.REPLY)
        assert reply[1:3] == [2, False]
        message: str = reply[3]["message"]
        return message


@contextmanager
def client(endpoint: str, unread: int = 1000) -> Iterator[Client]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.set(zmq.LINGER, 0)
        sock.set(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        sock.set(zmq.RCVHWM, unread)
        sock.connect(endpoint)
        yield Client(sock)


def factory_of(here: LocalCluster) -> str:
    return factories(load(), here.place)[0][0]


def member(number: int, **fields: Any) -> dict[str, Any]:
    name = f"Guest-{number}"
    return Entry(name, "worker", type="Guest", name=name).to_fields() | fields


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else 0


@pytest.mark.parametrize("name", ["factory", "workshop", "worker"])
def test_nesting_of_a_message(here: LocalCluster, name: str) -> None:
    endpoint = factory_of(here)
    if name != "factory":
        endpoint = zmq_endpoint(entries(here, name)[0])

    def rejected() -> int:
        status = here.ask_factory("status")
        if name == "factory":
            return int(status["factories"][0]["rejected_messages"])
        (identity,) = (e["id"] for e in status["entries"] if e["kind"] == name)
        return int(status["figures"].get(identity, {}).get("rejected_messages", 0))

    before = rejected()
    with client(endpoint) as sender:
        # the array of the message and the mapping of the arguments are levels too
        for levels in (NESTING - 2, NESTING - 1):
            sender.say(kinds.REQUEST, 1, "surprise", {"x": nested(levels)})
        expected = before + (2 if name == "worker" else 1)
        wait_until(lambda: rejected() >= expected)
        if name != "worker":
            assert "no such request" in sender.hear(kinds.REPLY)[3]["message"]
    assert rejected() == expected
    assert perform(fault("ok", n=1))["n"] == 1


def test_length_of_a_text(here: LocalCluster) -> None:
    with client(factory_of(here)) as sender:
        bad = {"entries": [member(1, host="x" * (TEXT + 1))]}
        assert "max_text" in sender.refusal("register", bad)
        assert sender.ask("find", {"type": "Guest"}) == []


def test_size_of_an_entry_and_of_all_that_is_told(here: LocalCluster) -> None:
    large = {"x": "x" * (128 << 10)}
    deep = {"x": nested(NESTING - 10)}
    with client(factory_of(here)) as sender:
        sender.ask("register", {"entries": [member(1)]})
        for much, told in ((large, "max_entry_bytes"), (deep, "nested deeper")):
            bad: dict[str, Any] = {"entries": [member(2, attributes=much)]}
            assert told in sender.refusal("register", bad)
            assert told in sender.refusal("job", {"job": {"id": "j"} | much})
            bad = {"id": "Guest-1", "cause": {"reason": "-"} | much}
            assert told in sender.refusal("deregister", bad)
        renewal = {"ids": ["Guest-1"], "figures": b"x" * ((128 << 10) + 1)}
        assert "max_entry_bytes" in sender.refusal("renew", renewal)
        assert [e["id"] for e in entries(here, type="Guest")] == ["Guest-1"]
        assert sender.ask("deregister", {"id": "Guest-1"}) is None


def test_entries_of_a_client(here: LocalCluster) -> None:
    with client(factory_of(here)) as greedy, client(factory_of(here)) as other:
        for number in range(ENTRIES):
            greedy.ask("register", {"entries": [member(number)]})
        bad = {"entries": [member(99)]}
        assert "max_entries_per_client" in greedy.refusal("register", bad)
        other.ask("register", bad)
        assert len(entries(here, type="Guest")) == ENTRIES + 1
        for number in (*range(ENTRIES), 99):
            greedy.ask("deregister", {"id": f"Guest-{number}"})
        greedy.ask("register", bad)
        greedy.ask("deregister", {"id": "Guest-99"})


def test_entries_in_one_message(here: LocalCluster) -> None:
    with client(factory_of(here)) as greedy:
        rows = [member(number) for number in range(ENTRIES + 1)]
        told = greedy.refusal("register", {"entries": rows})
        assert f"{ENTRIES + 1} entries at once" in told
        assert "max_entries_per_client" in told
        assert greedy.ask("find", {"type": "Guest"}) == []
        greedy.ask("register", {"entries": rows[1:]})
        for row in rows[1:]:
            greedy.ask("deregister", {"id": row["id"]})


def test_entries_of_all(here: LocalCluster) -> None:
    with ExitStack() as stack:
        many = [stack.enter_context(client(factory_of(here))) for _ in range(3)]
        free = MEMBERS - len(entries(here))
        for number in range(free):
            many[number // ENTRIES].ask("register", {"entries": [member(number)]})
        bad = {"entries": [member(99)]}
        told = many[-1].refusal("register", bad)
        assert f"full ({MEMBERS} entries)" in told and "max_entries" in told
        # those that are here are not hurt by it
        many[0].ask("register", {"entries": [member(0)]})
        for number in range(free):
            many[0].ask("deregister", {"id": f"Guest-{number}"})
        many[-1].ask("register", bad)
        many[-1].ask("deregister", {"id": "Guest-99"})


@pytest.mark.parametrize("name", ["factory", "workshop"])
def test_size_of_a_message_to_a_daemon(here: LocalCluster, name: str) -> None:
    endpoint = factory_of(here)
    if name == "workshop":
        endpoint = zmq_endpoint(entries(here, name)[0])

    def refusals() -> int:
        status = here.ask_factory("status")
        counts = status["factories"][0]
        if name == "workshop":
            (identity,) = (e["id"] for e in status["entries"] if e["kind"] == name)
            counts = status["figures"].get(identity, {})
        return int(counts.get("dropped_connections", 0))

    with client(endpoint) as sender:
        much = bytes(REQUEST_BYTES - 1000)
        assert "no such request" in sender.refusal("surprise", {"x": much})
        before = refusals()
        sender.say(kinds.REQUEST, 1, "surprise", {"x": bytes(REQUEST_BYTES)})
        wait_until(lambda: refusals() > before)
        # it is cut off for that, comes back by itself, and is served as before
        assert "no such request" in sender.refusal("surprise", {})
    assert perform(fault("ok", n=1))["n"] == 1


def test_messages_that_wait_for_who_does_not_read(here: LocalCluster) -> None:
    endpoint = factory_of(here)
    # the manager of this process is the first one to subscribe
    assert perform(fault("ok", n=1))["n"] == 1
    with (
        client(endpoint, unread=1) as silent,
        client(endpoint) as busy,
        client(endpoint) as third,
    ):
        for one in (silent, busy):
            # those of the test before may not have been missed yet
            wait_until(partial(subscribed, one))
        assert "max_subscribers" in third.refusal("subscribe", {})
        heard = 0
        large = member(1, attributes={"x": "x" * 100_000})
        while not subscribed(third):
            assert heard < 1000, "what it does not read is kept for ever"
            busy.say(kinds.REQUEST, 1, "register", {"entries": [large]})
            busy.say(kinds.REQUEST, 1, "deregister", {"id": large["id"]})
            for _ in range(2):
                # who reads misses nothing, whatever others do
                assert busy.hear(kinds.DELTA)[2]["id"] == large["id"]
                heard += 1
        # not all that waits is a change: there are beats as well
        assert heard >= UNREAD // 2
    assert perform(fault("ok", n=1))["n"] == 1


def subscribed(sender: Client) -> bool:
    """Subscribe, and return whether there was room."""
    sender.say(kinds.REQUEST, 1, "subscribe", {})
    return bool(sender.hear(kinds.REPLY)[2])


def test_subscribers_of_a_factory(here: LocalCluster) -> None:
    with ExitStack() as stack:
        told = ""
        for _ in range(SUBSCRIBERS + 1):
            sender = stack.enter_context(client(factory_of(here)))
            sender.say(kinds.REQUEST, 1, "subscribe", {})
            reply = sender.hear(kinds.REPLY)
            told = "" if reply[2] else reply[3]["message"]
        assert "max_subscribers" in told
    # once it is noticed that they are gone, there is room again
    with client(factory_of(here)) as last:
        wait_until(lambda: subscribed(last))


def test_jobs_that_are_kept(here: LocalCluster) -> None:
    with client(factory_of(here)) as sender:
        for number in range(JOBS + 2):
            sender.ask("job", {"job": {"id": f"j{number}", "state": "done"}})
        jobs = sender.ask("status", {})["jobs"]
        assert [job["id"] for job in jobs] == [f"j{n}" for n in range(2, JOBS + 2)]


def test_pieces_that_wait_in_a_worker(here: LocalCluster, tmp_path: Path) -> None:
    entry = entries(here, type="Fault")[0]
    endpoint, worker = zmq_endpoint(entry), entry["id"]
    gate = tmp_path / "gate"
    running, _ = codec.encode(fault("wait_for", path=str(gate)))
    small, _ = codec.encode(fault("ok"))
    with client(endpoint) as sender:
        sender.say(kinds.PIECES, [[1, 9, 0.0, running, 0]], worker)
        sender.hear(kinds.PROGRESS)
        rows = [[number, 0, 0.0, small, 0] for number in range(2, QUEUED + 4)]
        sender.say(kinds.PIECES, rows, worker)
        assert sender.hear(kinds.RETURNED)[1] == [QUEUED + 2, QUEUED + 3]
        gate.touch()
        done: list[int] = []
        while len(done) < QUEUED + 1:
            done += [row[0] for row in sender.hear(kinds.RESULTS)[1]]
        assert done == list(range(1, QUEUED + 2))
    assert perform(fault("ok", n=1))["n"] == 1


def test_bytes_that_wait_in_a_worker(here: LocalCluster, tmp_path: Path) -> None:
    entry = entries(here, type="Fault")[0]
    endpoint, worker = zmq_endpoint(entry), entry["id"]
    gate = tmp_path / "gate"
    piece, _ = codec.encode(fault("wait_for", path=str(gate)))

    def rows(*sizes: tuple[int, int]) -> list[list[Any]]:
        works = [(n, codec.encode(fault("ok", pad=bytes(s)))[0]) for n, s in sizes]
        return [[number, 0, 0.0, payload, 0] for number, payload in works]

    large = QUEUED_BYTES * 6 // 10
    with client(endpoint) as one, client(endpoint) as other:
        one.say(kinds.PIECES, [[1, 9, 0.0, piece, 0]], worker)
        one.hear(kinds.PROGRESS)
        # the second one finds no room, and then the same number does
        too_many = rows((2, large), (3, large), (3, 10), (4, 3 * large))
        one.say(kinds.PIECES, too_many, worker)
        assert one.hear(kinds.RETURNED)[1] == [3, 4]
        other.say(kinds.PIECES, rows((2, large), (3, 10)), worker)
        assert other.hear(kinds.RETURNED)[1] == [2]
        gate.touch()
        done: list[int] = []
        while len(done) < 3:
            done += [row[0] for row in one.hear(kinds.RESULTS)[1]]
        assert done == [1, 2, 3]
        assert other.hear(kinds.RESULTS)[1][0][0] == 3
        # of whatever size, one may wait
        one.say(kinds.PIECES, rows((9, 3 * QUEUED_BYTES)), worker)
        assert one.hear(kinds.RESULTS)[1][0][0] == 9
    assert perform(fault("ok", n=1))["n"] == 1


# --- messages that come too late -------------------------------------------------


def test_pieces_for_a_process_that_ended_do_not_run_in_the_next_at_its_address(
    here: LocalCluster, tmp_path: Path
) -> None:
    entry = entries(here, type="Fault")[0]
    runs = tmp_path / "runs"
    stale, _ = codec.encode(fault("ok", runs=str(runs)))
    fresh, _ = codec.encode(fault("ok", n=2))
    with client(zmq_endpoint(entry)) as sender:
        sender.say(kinds.PIECES, [[1, 9, 0.0, stale, 0]], "Fault-1.gone")
        assert sender.hear(kinds.GONE)[1] == "Fault-1.gone"
        sender.say(kinds.PIECES, [[2, 0, 0.0, fresh, 0]], entry["id"])
        assert [row[0] for row in sender.hear(kinds.RESULTS)[1]] == [2]
    assert not runs.exists()
