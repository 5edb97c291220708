"""Values in real processes' shoes: kept, fetched, spilled, shared, let go.

Each `Site` is what a worker process is to others: a transport, a reactor and a keeper,
here in one process. The manager is a bare transport that says what managers say.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opencluster import empty
from opencluster.config import Config
from opencluster.config.settings import (
    ClusterSettings,
    MemorySettings,
    NetworkSettings,
)
from opencluster.keeping import (
    LEAVING,
    Claim,
    Keeper,
    ShouldStop,
    Wanted,
    own_share,
    owned,
    wanted_in,
)
from opencluster.net.exchange import Parts
from opencluster.net.joined import local_endpoints, open_transport
from opencluster.net.reactor import Reactor
from opencluster.net.transport import PeerConnected, PeerLost, Received, TransportEvent
from opencluster.node.host import host_id
from opencluster.references import Holder
from opencluster.store.spill import Spill
from opencluster.wire import codec, frames, kinds
from opencluster.wire.refs import holder_fields

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
DEADLINE_S = 30.0
MEGABYTE = 1 << 20


def never() -> bool:
    return False


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.002)


class Manager:
    """Says what managers say, and keeps what it is told."""

    def __init__(self, config: Config) -> None:
        self.transport = open_transport(config, None)
        self.reactor = Reactor(self.transport, self._event, is_vital=False)
        self.told: list[tuple[list[Any], list[bytes]]] = []
        self.larder: dict[bytes, Parts] = {}
        self.reactor.start()

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, Received):
            fields = frames.unpack(event.header)
            if fields[0] in (kinds.FETCH, kinds.PART):
                self._serve(event.peer, fields)
            else:
                buffers = [bytes(buffer) for buffer in event.buffers]
                self.told.append((fields, buffers))

    def _serve(self, peer: bytes, fields: list[Any]) -> None:
        kind, number, id, *rest = fields
        parts = self.larder[id]
        if kind == kinds.FETCH:
            sizes = [len(part) for part in parts]
            header = frames.pack(kinds.VALUE, number, None, sizes)
            self.transport.send(peer, header)
        else:
            part, offset, nbytes = rest
            chunk = memoryview(parts[part])[offset : offset + nbytes]
            self.transport.send(peer, frames.pack(kinds.CHUNK, number), [chunk])

    def say(self, site: Site, kind: str, *fields: Any, buffers: Any = ()) -> None:
        peer = self.transport.connect(site.endpoints[0])
        header = frames.pack(kind, *fields)
        self.reactor.post(lambda: self._send(peer, header, buffers))

    def _send(self, peer: bytes, header: bytes, buffers: Any) -> None:
        assert self.transport.send(peer, header, buffers)

    def answer(self, kind: str) -> tuple[list[Any], list[bytes]]:
        """Wait for a message of a kind, and return it."""
        wait_for(lambda: any(fields[0] == kind for fields, _ in self.told))
        for at, (fields, _) in enumerate(self.told):
            if fields[0] == kind:
                return self.told.pop(at)
        raise AssertionError

    def put(self, site: Site, id: bytes, *parts: bytes) -> None:
        sizes = [len(part) for part in parts]
        self.say(site, kinds.PUT, 1, id, parts[0], sizes, buffers=parts[1:])
        assert self.answer(kinds.KEPT)[0] == [kinds.KEPT, 1, sum(sizes)]

    def fetch(self, site: Site, id: bytes) -> list[bytes] | None:
        self.say(site, kinds.FETCH, 7, id, 1 << 40)
        wait_for(lambda: self.told)
        fields, buffers = self.told.pop()
        if fields == [kinds.LOST, 7]:
            return None
        assert fields[:2] == [kinds.VALUE, 7]
        return buffers if fields[2] is None else [fields[2], *buffers]

    def close(self) -> None:
        self.reactor.stop()
        self.reactor.join()


class Site:
    """A keeper, and what it needs of a worker."""

    def __init__(self, config: Config, folder: Path, name: str) -> None:
        self.transport = open_transport(config, None)
        self.reactor = Reactor(self.transport, self._event, is_vital=False)
        self.keeper = Keeper(config, folder / "spill", self.reactor)
        ways = local_endpoints(self.transport, folder, name)
        self.endpoints = [self.transport.listen(way) for way in ways]
        self.holder = Holder(f"{name}.id", host_id(), tuple(self.endpoints))
        self.managers: list[bytes] = []
        self.keeper.open(self.holder.worker)
        self.reactor.start()

    def _event(self, event: TransportEvent) -> None:
        match event:
            case Received():
                self.managers.append(event.peer)
                fields = frames.unpack(event.header)
                self.keeper.received(event.peer, fields, event.buffers)
            case PeerConnected(peer):
                self.keeper.connected(peer)
            case PeerLost(peer):
                self.keeper.lost(peer)

    @property
    def held(self) -> int:
        return len(self.keeper._holdings)

    def get(self, *wanted: Wanted) -> dict[bytes, list[bytes]]:
        """Return the values, as a piece would have them."""
        claim = self.claim(*wanted)
        assert not claim.failed, claim.failed
        found = {id: [bytes(p) for p in parts] for id, parts in claim.parts.items()}
        self.keeper.give_up(claim)
        return found

    def claim(self, *wanted: Wanted, should_stop: ShouldStop = never) -> Claim:
        claim = Claim()
        self.keeper.claim(claim, wanted, should_stop)
        return claim

    def want(self, id: bytes, *holders: Site, nbytes: int = 10) -> Wanted:
        return Wanted(id, nbytes, tuple(site.holder for site in holders))

    def close(self) -> None:
        self.reactor.stop()
        self.reactor.join()
        self.keeper.close()


class Stage:
    """Makes sites and managers, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory = MemorySettings(kept_bytes=10 * MEGABYTE)
        self.network = NetworkSettings()
        self._made: list[Site | Manager] = []

    @property
    def config(self) -> Config:
        return Config(
            memory=self.memory,
            network=self.network,
            cluster=ClusterSettings(lease_s=0.2),
        )

    def site(self, name: str) -> Site:
        self._made.append(site := Site(self.config, self.folder, name))
        return site

    def manager(self) -> Manager:
        self._made.append(manager := Manager(self.config))
        return manager

    def close(self) -> None:
        for one in self._made:
            one.close()


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("k"))
    yield made
    made.close()


@pytest.fixture
def manager(stage: Stage) -> Manager:
    return stage.manager()


@pytest.fixture
def site(stage: Stage) -> Site:
    return stage.site("one")


@pytest.fixture
def other(stage: Stage) -> Site:
    return stage.site("two")


# --- values of managers ----------------------------------------------------------


def test_a_value_is_kept_and_sent_to_who_asks(manager: Manager, site: Site) -> None:
    manager.put(site, A, b"data", b"buffer" * 10_000)
    assert manager.fetch(site, A) == [b"data", b"buffer" * 10_000]
    assert manager.fetch(site, B) is None


def test_a_value_is_kept_until_it_is_released(manager: Manager, site: Site) -> None:
    manager.put(site, A, b"data")
    manager.say(site, kinds.RELEASE, [A, B])
    assert manager.fetch(site, A) is None
    assert site.held == 0


def test_a_large_value_is_fetched_from_the_manager(
    manager: Manager, site: Site
) -> None:
    parts = [b"data", bytes(range(256)) * (9 * MEGABYTE // 256)]
    manager.larder[A] = parts
    sizes = [len(part) for part in parts]
    manager.say(site, kinds.PUT, 3, A, None, sizes)
    assert manager.answer(kinds.KEPT)[0] == [kinds.KEPT, 3, sum(sizes)]
    assert manager.fetch(site, A) == parts


def test_a_value_is_copied_from_who_has_it(
    manager: Manager, site: Site, other: Site
) -> None:
    manager.put(site, A, b"data", b"x" * MEGABYTE)
    holders = [holder_fields(site.holder)]
    manager.say(other, kinds.COPY, 5, A, MEGABYTE, holders)
    assert manager.answer(kinds.KEPT)[0] == [kinds.KEPT, 5, MEGABYTE + 4]
    manager.say(site, kinds.RELEASE, [A])
    assert manager.fetch(other, A) == [b"data", b"x" * MEGABYTE]
    manager.say(other, kinds.COPY, 6, A, MEGABYTE, holders)
    assert manager.answer(kinds.KEPT)[0][1] == 6


def test_a_value_that_nobody_has_is_not_copied(
    manager: Manager, site: Site, other: Site
) -> None:
    manager.say(other, kinds.COPY, 5, A, 10, [holder_fields(site.holder)])
    fields, _ = manager.answer(kinds.UNKEPT)
    assert fields == [kinds.UNKEPT, 5, "one: it does not have it any more"]


def test_a_manager_learns_what_is_missing(manager: Manager, site: Site) -> None:
    manager.put(site, A, b"data")
    manager.put(site, B, b"data")
    manager.say(site, kinds.REFER, [A, C])
    assert manager.answer(kinds.MISSING)[0] == [kinds.MISSING, [C]]
    manager.say(site, kinds.REFERENCES, [A, C])
    assert manager.answer(kinds.MISSING)[0] == [kinds.MISSING, [C]]
    assert manager.fetch(site, B) is None
    assert manager.fetch(site, A) == [b"data"]


def test_what_a_lost_manager_referred_to_is_let_go(
    manager: Manager, site: Site
) -> None:
    manager.put(site, A, b"data")
    (peer,) = set(site.managers)
    assert site.keeper.managers() == {peer}
    site.reactor.post(lambda: site.keeper.lost(peer))
    wait_for(lambda: not site.keeper.managers())
    assert site.held == 0


# --- values for pieces -----------------------------------------------------------


def test_a_piece_gets_values_from_wherever_they_are(
    manager: Manager, site: Site, other: Site
) -> None:
    manager.put(site, A, b"own")
    manager.put(other, B, b"of the other", b"y" * 2 * MEGABYTE)
    found = site.get(site.want(A, site), site.want(B, other, nbytes=2 * MEGABYTE))
    assert found == {A: [b"own"], B: [b"of the other", b"y" * 2 * MEGABYTE]}


def test_a_value_is_fetched_once_and_then_at_hand(
    manager: Manager, site: Site, other: Site
) -> None:
    manager.put(other, A, b"data")
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: site.get(site.want(A, other)), range(8)))
    assert found == [{A: [b"data"]}] * 8
    assert other.keeper._exchange.sent_bytes == 4
    manager.say(site, kinds.RELEASE, [A])
    wait_for(lambda: site.held == 0)


def test_a_value_that_cannot_be_had_is_told_of(
    manager: Manager, site: Site, other: Site
) -> None:
    manager.put(other, A, b"data")
    claim = site.claim(site.want(A, other), site.want(B, other))
    why = "two: it does not have it any more"
    assert claim.failed == {B: (why, [other.holder.worker])}
    site.keeper.give_up(claim)
    wait_for(lambda: not claim.parts)


def test_a_holder_that_ends_meanwhile_is_lost(stage: Stage, site: Site) -> None:
    silent = open_transport(stage.config, None)
    ways = local_endpoints(silent, stage.folder, "silent")
    holder = Holder("silent.id", host_id(), tuple(silent.listen(way) for way in ways))
    # it takes the connection, and never answers
    reactor = Reactor(silent, lambda event: None, is_vital=False)
    reactor.start()
    with ThreadPoolExecutor(1) as threads:
        claimed = threads.submit(site.claim, Wanted(A, 10, (holder,)))
        wait_for(lambda: site.keeper._exchange._connected)
        reactor.stop()
        reactor.join()
        claim = claimed.result(DEADLINE_S)
    assert claim.failed == {A: ("silent: the connection to it broke", [])}
    site.keeper.give_up(claim)


def test_a_holder_that_cannot_be_reached_is_told_of(site: Site) -> None:
    gone = Holder("gone.id", host_id(), ("ipc:///nonexistent/w.sock",))
    claim = site.claim(Wanted(A, 10, (gone,)))
    assert claim.failed == {A: ("gone: it cannot be reached from here", [])}


def test_a_piece_that_is_to_stop_waits_no_longer(stage: Stage, site: Site) -> None:
    manager = stage.manager()
    manager.larder[A] = [b"x" * 100]
    peer = manager.transport.connect(site.endpoints[0])
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        # nobody answers: the value is ordered from a holder that is not there yet
        path = stage.folder / "late.sock"
        late = Holder("late.id", host_id(), (f"ipc://{path}",))
        transport = open_transport(stage.config, None)
        transport.listen(f"ipc://{path}")
        claimed = threads.submit(
            site.claim, Wanted(A, 100, (late,)), should_stop=stop.is_set
        )
        wait_for(lambda: A in site.keeper._claims)
        stop.set()
        manager.reactor.post(
            lambda: manager._send(peer, frames.pack("release", []), ())
        )
        claim = claimed.result(DEADLINE_S)
        transport.close()
    assert not claim.parts
    site.keeper.give_up(claim)
    wait_for(lambda: A not in site.keeper._claims)
    assert site.keeper._exchange._fetching.is_idle


def test_values_of_waiting_pieces_come_ahead(
    manager: Manager, site: Site, other: Site
) -> None:
    manager.put(other, A, b"data")
    wanted = [site.want(A, other), site.want(A, other), site.want(B, other)]
    wanted.append(site.want(C, other, nbytes=5 * MEGABYTE))
    site.reactor.post(lambda: site.keeper.fetch_ahead(wanted))
    wait_for(lambda: not site.keeper._ahead and site.held == 1)
    assert site.get(site.want(A)) == {A: [b"data"]}


# --- disk ------------------------------------------------------------------------


def test_what_does_not_fit_into_memory_goes_to_disk_and_is_used_from_there(
    stage: Stage, manager: Manager, other: Site
) -> None:
    site = stage.site("small")
    names = [bytes([n]) * 16 for n in range(10)]
    values = {id: [b"data", id * (4 * MEGABYTE // 16)] for id in names}
    for id, parts in values.items():
        site.keeper.keep(b"<manager", id, parts, never)
        assert site.keeper._holdings.in_memory <= 10 * MEGABYTE
    assert site.keeper._holdings.on_disk >= 30 * MEGABYTE
    # each of them, to a piece here, to a piece elsewhere, and to a manager
    for id, parts in values.items():
        assert site.get(site.want(id)) == {id: parts}
    for id in names[:3]:
        want = other.want(id, site, nbytes=4 * MEGABYTE)
        assert other.get(want) == {id: values[id]}
    assert manager.fetch(site, names[0]) == values[names[0]]
    files = list((stage.folder / "spill").rglob("??" * 16))
    assert len(files) == len(names) - 2
    site.reactor.post(
        lambda: site.keeper._do(site.keeper._holdings.release(b"<manager", names))
    )
    wait_for(lambda: not list((stage.folder / "spill").rglob("??" * 16)))


def test_when_the_disk_is_full_values_stay_in_memory(
    stage: Stage,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(self: Spill, id: bytes, parts: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spill, "write", full)
    names = [bytes([n]) * 16 for n in range(5)]
    for id in names:
        site.keeper.keep(b"<manager", id, [id * (4 * MEGABYTE // 16)], never)
    for id in names:
        assert site.get(site.want(id)) == {id: [id * (4 * MEGABYTE // 16)]}
    warnings = [r.message for r in caplog.records if "kept_bytes" in r.message]
    assert len(warnings) == 1
    assert "stay in memory beyond [memory] kept_bytes" in warnings[0]


def test_a_file_that_is_gone_is_a_value_that_is_lost(
    stage: Stage, manager: Manager, site: Site
) -> None:
    for id in (A, B, C):
        site.keeper.keep(b"<manager", id, [id * (6 * MEGABYTE // 16)], never)
    for path in (stage.folder / "spill").rglob("??" * 16):
        path.unlink()
    assert manager.fetch(site, A) is None
    claim = site.claim(site.want(B, site))
    assert claim.failed == {B: ("nobody is known to hold it", [])}


# --- shared memory ---------------------------------------------------------------


def test_neighbours_read_a_value_in_one_memory(stage: Stage, site: Site) -> None:
    nbytes = 4 * MEGABYTE
    site.keeper.keep(b"<manager", A, [b"data", bytes(nbytes)], never)
    # one for all sites, as they are in one process
    arena = site.transport.lane.arena  # type: ignore[union-attr]
    gc.collect()
    before = arena.counts.used_bytes
    others = [stage.site(name) for name in ("two", "three", "four")]
    claims = [other.claim(other.want(A, site, nbytes=nbytes)) for other in others]
    for claim in claims:
        assert bytes(claim.parts[A][1][:10]) == bytes(10)
    assert nbytes <= arena.counts.used_bytes - before < 2 * nbytes
    for other, claim in zip(others, claims, strict=True):
        other.keeper.give_up(claim)


def test_a_value_that_is_given_lies_in_memory_of_its_holder(
    manager: Manager, site: Site
) -> None:
    arena = manager.transport.lane.arena  # type: ignore[union-attr]
    # what is said before the connection stands goes another way
    assert manager.fetch(site, B) is None
    manager.put(site, A, b"data", bytes(2 * MEGABYTE))
    gc.collect()
    before = arena.counts.used_bytes
    manager.say(site, kinds.RELEASE, [A])
    wait_for(lambda: site.held == 0)
    gc.collect()
    # what was freed is the holder's copy, and no other one was there
    assert before - arena.counts.used_bytes == 2 * MEGABYTE


def test_values_leave_room_in_shared_memory_for_messages(
    stage: Stage, manager: Manager
) -> None:
    stage.memory = MemorySettings(kept_bytes=100 * MEGABYTE, arena_bytes=32 * MEGABYTE)
    site, other = stage.site("one"), stage.site("two")
    for id in (A, B, C):
        site.keeper.keep(b"<manager", id, [bytes(10 * MEGABYTE)], never)
        other.get(other.want(id, site, nbytes=10 * MEGABYTE))
    assert len(site.keeper._shared) == 1
    site.reactor.post(
        lambda: site.keeper._do(site.keeper._holdings.release(b"<manager", [A, B, C]))
    )
    wait_for(lambda: not site.keeper._shared)


# --- the end ---------------------------------------------------------------------


def test_a_leaving_worker_waits_until_its_values_are_released(
    manager: Manager, site: Site
) -> None:
    manager.put(site, A, b"data")
    site.reactor.post(site.keeper.drain)
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(site.keeper.hand_over, DEADLINE_S)
        assert manager.fetch(site, A) == [b"data"]
        assert not ended.done()
        manager.say(site, kinds.RELEASE, [A])
        ended.result(DEADLINE_S)


def test_a_leaving_worker_does_not_wait_for_ever(
    manager: Manager, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    manager.put(site, A, b"data")
    site.keeper.hand_over(0.05)
    assert "1 kept values (4 bytes) end with this worker" in caplog.text
    assert "nobody took them within [worker] hand_over_s, 0.05 s" in caplog.text


def test_a_leaving_worker_takes_nothing_more(manager: Manager, site: Site) -> None:
    site.reactor.post(site.keeper.drain)
    manager.say(site, kinds.PUT, 7, A, b"data", [4])
    manager.say(site, kinds.COPY, 8, B, 4, [])
    for number in (7, 8):
        assert manager.answer(kinds.DRAINING)[0] == [kinds.DRAINING]
        assert manager.answer(kinds.UNKEPT)[0] == [kinds.UNKEPT, number, LEAVING]
    assert len(site.keeper._holdings) == 0


def test_a_leaving_worker_tells_those_who_come_to_refer_to_its_values(
    manager: Manager, site: Site
) -> None:
    manager.put(site, A, b"data")
    site.reactor.post(site.keeper.drain)
    manager.say(site, kinds.REFER, [A])
    assert manager.answer(kinds.DRAINING)[0] == [kinds.DRAINING]
    manager.say(site, kinds.REFERENCES, [])
    wait_for(lambda: site.keeper._holdings.is_empty)
    assert kinds.DRAINING not in [fields[0] for fields, _ in manager.told]


def test_a_leaving_worker_does_not_wait_for_managers_that_have_no_hope(
    manager: Manager, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    manager.put(site, A, b"data")
    site.reactor.post(site.keeper.drain)
    manager.say(site, kinds.UNSAVED, 1)
    wait_for(lambda: not site.keeper.is_awaited)
    manager.say(site, kinds.UNSAVED, 0)
    wait_for(lambda: site.keeper.is_awaited)
    manager.say(site, kinds.UNSAVED, 1)
    site.keeper.hand_over(DEADLINE_S)
    assert "with this worker: nobody is here who could take them" in caplog.text


def test_a_leaving_worker_does_not_wait_for_managers_that_are_gone(
    manager: Manager, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    manager.put(site, A, b"data")
    (peer,) = site.keeper.managers()
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(site.keeper.hand_over, DEADLINE_S)
        site.reactor.post(lambda: site.keeper.lost(peer))
        ended.result(DEADLINE_S)
    # nor is anybody told of what nobody misses
    assert "end with this worker" not in caplog.text
    assert site.keeper.kept_bytes == 4


# --- memory that is taken over ---------------------------------------------------


def encoded(value: Any) -> tuple[bytes, list[Any]]:
    return codec.encode(value)


def test_an_array_that_nobody_else_has_is_taken_over() -> None:
    payload, buffers = encoded([np.zeros(10_000)])
    assert owned(payload, buffers)[1] is buffers[0]
    payload, buffers = encoded([np.zeros((300, 300))[::2]])
    assert owned(payload, buffers)[1] is buffers[0]


@pytest.mark.parametrize(
    "part",
    [
        lambda array: array,
        lambda array: array[10:],
        lambda array: array.reshape(100, -1),
    ],
)
def test_an_array_that_somebody_has_is_copied(part: Callable[[Any], Any]) -> None:
    array = np.zeros(10_000)
    payload, buffers = encoded([part(array)])
    kept = owned(payload, buffers)
    array[:] = 1
    assert not np.frombuffer(kept[1]).any()


def test_arrays_in_shared_memory_are_taken_over_unless_somebody_has_them() -> None:
    payload, buffers = encoded([empty((100, 100))])
    assert owned(payload, buffers)[1] is buffers[0]
    array = empty((100, 100))
    for part in (array, array[10:], array.T):
        payload, buffers = encoded([part])
        array[:] = 0
        del part
        kept = owned(payload, buffers)
        array[:] = 1
        assert not np.frombuffer(kept[1]).any()


def test_an_array_in_shared_memory_is_kept_and_sent_without_a_copy(
    stage: Stage, site: Site, other: Site
) -> None:
    arena = site.transport.lane.arena  # type: ignore[union-attr]
    gc.collect()
    before = arena.counts.used_bytes
    array = empty(MEGABYTE // 8)
    array[:] = 7
    payload, buffers = encoded([array])
    del array
    site.keeper.keep(b"<manager", A, owned(payload, buffers), never)
    del buffers
    claim = other.claim(other.want(A, site, nbytes=MEGABYTE))
    (arrived,) = codec.decode(claim.parts[A][0], claim.parts[A][1:])
    assert (arrived == 7).all()
    assert MEGABYTE <= arena.counts.used_bytes - before < 2 * MEGABYTE
    del arrived
    other.keeper.give_up(claim)


def test_memory_that_nobody_can_write_to_is_not_copied() -> None:
    received = memoryview(bytes(80_000))
    for array in (np.frombuffer(received), np.frombuffer(bytes(received))):
        payload, buffers = encoded([array, array[5:]])
        assert owned(payload, buffers)[1] is buffers[0]


def test_memory_of_other_kinds_is_copied() -> None:
    memory = bytearray(80_000)
    payload, buffers = encoded([np.frombuffer(memory)])
    kept = owned(payload, buffers)
    memory[:] = b"x" * len(memory)
    assert not np.frombuffer(kept[1]).any()


def test_the_share_of_a_worker_is_part_of_the_memory() -> None:
    assert 1 << 20 < own_share() < 1 << 44
    assert own_share(max_memory=1000) == 500


def test_what_a_message_wants_is_read() -> None:
    holder = Holder("one.id", "here", ("ipc:///x",), "key")
    rows = [[A, 10, [holder_fields(holder)]], [B, 0, []]]
    assert wanted_in(rows) == [Wanted(A, 10, (holder,)), Wanted(B, 0, ())]
    with pytest.raises(Exception, match="size"):
        wanted_in([[A, -1, []]])
