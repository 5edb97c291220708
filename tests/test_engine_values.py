"""What an engine does with values that workers hold, against real keepers."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from test_keeping import DEADLINE_S, MEGABYTE, Site, Stage, wait_for

from opencluster import DataRef, WorkPiece
from opencluster.config.settings import NetworkSettings
from opencluster.core.entries import Entry
from opencluster.engines.base import Options, Where
from opencluster.engines.directory import Contact, Directory
from opencluster.engines.giving import Put
from opencluster.engines.leases import Leases
from opencluster.engines.values import (
    Gather,
    Recipe,
    Values,
    kept_in,
    missing_in,
    room_of,
)
from opencluster.errors import (
    DataLost,
    NoSuitableWorker,
    RemoteProtocolError,
    WorkError,
)
from opencluster.net.joined import open_transport
from opencluster.net.reactor import Reactor
from opencluster.net.transport import PeerConnected, PeerLost, Received, TransportEvent
from opencluster.node.host import host_id
from opencluster.references import Holder
from opencluster.wire import codec, frames, kinds


class Engine:
    """An engine without pieces: values, a directory and a reactor."""

    def __init__(self, stage: Stage) -> None:
        self.transport = open_transport(stage.config, None)
        self.reactor = Reactor(self.transport, self._event, is_vital=False)
        self.directory = Directory(self.transport)
        self.number = 0
        self.resumed: list[int] = []
        self.asked_again: list[int] = []
        self.ended: dict[int, WorkError] = {}
        self.remaking: list[bytes] = []
        self.values = Values(
            self.reactor,
            self.directory,
            self.next_number,
            self.resumed.append,
            self.asked_again.append,
            self.ended.__setitem__,
            lambda id, recipe: self.remaking.append(id),
        )
        self.reactor.when_idle(self.values.flush)
        self.reactor.start()

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def _event(self, event: TransportEvent) -> None:
        match event:
            case Received():
                contact = self.directory.by_peer[event.peer]
                fields = frames.unpack(event.header)
                if fields[0] == kinds.DRAINING:
                    self.values.draining(contact)
                    return
                self.values.received(contact, fields, event.buffers)
            case PeerConnected(peer):
                contact = self.directory.by_peer[peer]
                contact.is_joined = True
                self.values.joined(contact)
            case PeerLost(peer):
                contact = self.directory.by_peer[peer]
                contact.is_joined = False
                self.values.lost(contact, "the connection to it broke", True)

    def meet(self, site: Site, host: str = "", type: str = "Tool") -> Contact:
        """Connect to a site, which is said to be on a computer."""
        name = site.holder.worker
        here, ways = (host or host_id(), tuple(site.endpoints))
        if host:
            ways = tuple(way for way in ways if way.startswith("tcp://"))
        entry = Entry(name, "worker", type, host_id=here, endpoints=ways)
        met: list[Contact] = []
        self.reactor.post(lambda: met.append(self.directory.connect(entry)))
        wait_for(lambda: met and met[0].is_joined)
        return met[0]

    def put(self, value: Any, **where: Any) -> DataRef:
        put = self.start_put(value, **where)
        wait_for(lambda: put.is_over)
        if put.error is not None:
            raise put.error
        assert put.ref is not None
        return put.ref

    def start_put(self, value: Any, **where: Any) -> Put:
        refs: list[DataRef] = []
        payload, buffers = codec.encode(value, "value", refs)
        id = self.values.id_of(self.next_number())
        put = Put(id, [payload, *buffers], tuple(refs), Where(**where))
        self.values.put(put)
        return put

    def get(self, *refs: DataRef) -> list[Any]:
        gather = Gather(refs)
        self.values.gather(gather)
        wait_for(lambda: gather.is_over)
        if gather.error is not None:
            raise gather.error
        parts = [gather.parts[ref.id] for ref in refs]
        return [codec.decode(p[0], p[1:], self.values.adopt) for p in parts]

    def turn(self) -> None:
        self.reactor.post(lambda: None)

    def close(self) -> None:
        self.reactor.stop()
        self.reactor.join()


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("v"))
    yield made
    made.close()


@pytest.fixture
def engine(stage: Stage) -> Iterator[Engine]:
    made = Engine(stage)
    yield made
    made.close()


def sites(stage: Stage, engine: Engine, *names: str) -> list[Site]:
    made = [stage.site(name) for name in names]
    for site in made:
        engine.meet(site)
    return made


def settled(engine: Engine, condition: Callable[[], Any]) -> None:
    """Wait for something that follows from references that are gone."""
    gc.collect()
    engine.turn()
    wait_for(condition)


# --- scatter and gather ----------------------------------------------------------


def test_a_value_is_put_and_fetched_back(stage: Stage, engine: Engine) -> None:
    (site,) = sites(stage, engine, "one")
    array = np.arange(100_000.0)
    ref = engine.put({"array": array, "text": "x"})
    assert ref.holder == Holder("one.id", host_id(), tuple(site.endpoints))
    assert ref.nbytes > array.nbytes
    (value,) = engine.get(ref)
    assert (value["array"] == array).all()
    del value
    del ref
    settled(engine, lambda: site.held == 0)


def test_values_go_where_least_is(stage: Stage, engine: Engine) -> None:
    made = sites(stage, engine, "one", "two", "three")
    puts = [engine.start_put(bytes(n * 1000)) for n in (9, 1, 1, 1, 1)]
    wait_for(lambda: all(put.is_over for put in puts))
    assert sorted(site.held for site in made) == [1, 2, 2]


def test_values_go_where_they_are_meant_to(stage: Stage, engine: Engine) -> None:
    one, two, three = (stage.site(name) for name in ("one", "two", "three"))
    for site, type in ((one, "Tool"), (two, "Tool"), (three, "Image")):
        engine.meet(site, type=type)
    engine.meet(stage.site("four"), type="service:toolbox")
    kept = [engine.put(b"x", type="Image"), engine.put(b"x", workers=("two.id",))]
    assert [ref.holder.worker for ref in kept] == ["three.id", "two.id"]
    with pytest.raises(NoSuitableWorker, match="no worker is here"):
        engine.put(b"x", type="toolbox")


def test_a_value_that_its_worker_cannot_have_goes_to_another(
    stage: Stage, engine: Engine
) -> None:
    one, two = sites(stage, engine, "one", "two")
    contact = engine.directory.contacts["one.id"]
    puts: list[Put] = []

    def put_and_lose() -> None:
        puts.append(engine.start_put(bytes(MEGABYTE), workers=("one.id", "two.id")))
        # in the turn that sends it: no answer can come before
        engine.reactor.post(lambda: engine.values.lost(contact, "gone", True))

    engine.reactor.post(put_and_lose)
    wait_for(lambda: puts and puts[0].is_over)
    assert puts[0].ref is not None
    assert puts[0].ref.holder.worker == "two.id"
    assert engine.get(puts[0].ref) == [bytes(MEGABYTE)]


def test_a_large_value_goes_to_another_computer_in_parts(
    stage: Stage, engine: Engine
) -> None:
    stage.network = NetworkSettings(express_lane=False)
    site = stage.site("far")
    site.endpoints.append(site.transport.listen("tcp://127.0.0.1:0"))
    engine.meet(site, host="elsewhere")
    value = np.random.default_rng(1).bytes(9 * MEGABYTE)
    ref = engine.put(value)
    assert not engine.values._orders._larder
    assert engine.get(ref) == [value]
    assert site.keeper._exchange.received_bytes > len(value)


def test_many_values_at_a_time(stage: Stage, engine: Engine) -> None:
    sites(stage, engine, "one", "two")
    puts = [engine.start_put(WorkPiece(number=n)) for n in range(500)]
    wait_for(lambda: all(put.is_over for put in puts))
    refs = [put.ref for put in puts if put.ref is not None]
    assert [value["number"] for value in engine.get(*refs)] == list(range(500))


def test_values_that_contain_others_hold_them(stage: Stage, engine: Engine) -> None:
    one, _ = sites(stage, engine, "one", "two")
    inner = engine.put("inner", workers=("one.id",))
    outer = engine.put(WorkPiece(inner=inner), workers=("two.id",))
    del inner
    settled(engine, lambda: one.held == 1)
    (value,) = engine.get(outer)
    del outer
    settled(engine, lambda: True)
    assert engine.get(value["inner"]) == ["inner"]
    del value
    settled(engine, lambda: one.held == 0)


def test_a_released_value_is_gone(stage: Stage, engine: Engine) -> None:
    (site,) = sites(stage, engine, "one")
    ref = engine.put("value")
    engine.values.release([ref])
    wait_for(lambda: site.held == 0)
    with pytest.raises(DataLost, match="it was released") as caught:
        engine.get(ref)
    assert caught.value.reasons == {ref.id[-4:].hex(): "it was released"}


def test_values_of_a_lost_worker_are_lost(stage: Stage, engine: Engine) -> None:
    (site,) = sites(stage, engine, "one")
    ref = engine.put("value")
    engine.reactor.post(
        lambda: engine.values.lost(
            engine.directory.contacts["one.id"], "killed by signal SIGKILL", True
        )
    )
    with pytest.raises(DataLost, match="killed by signal SIGKILL"):
        engine.get(ref)
    with pytest.raises(DataLost, match="recompute=True"):
        engine.get(DataRef(b"?" * 16, 0, Holder("nobody")))


def test_a_worker_that_lost_a_value_says_so(stage: Stage, engine: Engine) -> None:
    (site,) = sites(stage, engine, "one")
    ref = engine.put("value")
    (manager,) = site.keeper.managers()
    site.reactor.post(
        lambda: site.keeper._do(site.keeper._holdings.release(manager, [ref.id]))
    )
    with pytest.raises(DataLost, match="it does not have it any more"):
        engine.get(ref)


def test_fetching_can_be_given_up(stage: Stage, engine: Engine) -> None:
    sites(stage, engine, "one")
    ref = engine.put("value")
    gather = Gather((ref,))
    engine.values.gather(gather)
    engine.values.forget(gather)
    engine.values.forget(gather)
    wait_for(lambda: not engine.values._gathers)
    assert engine.get(ref) == ["value"]


# --- broadcast and moving --------------------------------------------------------


def test_a_value_is_spread_to_one_worker_of_each_computer(
    stage: Stage, engine: Engine
) -> None:
    stage.network = NetworkSettings(express_lane=False)
    here = sites(stage, engine, "one", "two")
    computers: dict[str, list[Site]] = {}
    for host in ("b", "c", "d", "e"):
        for number in (1, 2):
            site = stage.site(f"{host}{number}")
            site.endpoints.append(site.transport.listen("tcp://127.0.0.1:0"))
            computers.setdefault(host, []).append(site)
            engine.meet(site, host=host)
    ref = engine.put(bytes(MEGABYTE), everywhere=True)
    assert sum(site.held for site in here) == 1
    for pair in computers.values():
        assert sum(site.held for site in pair) == 1
    # each of them helped: nobody sent it to all the others
    everybody = [*here, *(site for pair in computers.values() for site in pair)]
    sent = [site.keeper._exchange.sent_bytes // MEGABYTE for site in everybody]
    assert sum(sent) == len(computers)
    assert max(sent) < len(computers)
    del ref
    settled(engine, lambda: not any(site.held for site in everybody))


def test_values_of_a_worker_that_leaves_are_saved(stage: Stage, engine: Engine) -> None:
    one, two = sites(stage, engine, "one", "two")
    refs = [engine.put(f"value {n}", workers=("one.id",)) for n in range(5)]
    contact = engine.directory.contacts["one.id"]
    engine.reactor.post(lambda: engine.values.draining(contact))
    wait_for(lambda: one.held == 0)
    assert two.held == 5
    engine.reactor.post(lambda: engine.values.lost(contact, "it left", True))
    assert engine.get(*refs) == [f"value {n}" for n in range(5)]


def leave(engine: Engine, *leaving: Site) -> None:
    """Let workers leave, and the engine hear of it."""
    for site in leaving:
        contact = engine.directory.contacts[site.holder.worker]
        site.reactor.post(site.keeper.drain)
        engine.reactor.post(lambda contact=contact: engine.values.draining(contact))


def ticks(engine: Engine) -> None:
    engine.reactor.post(lambda: engine.reactor.every(0.05, engine.values.tick))


def test_values_that_cannot_be_moved_are_told_of(
    stage: Stage, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    one, two = sites(stage, engine, "one", "two")
    ref = engine.put("value", workers=("one.id",))
    (manager,) = one.keeper.managers()
    one.reactor.post(
        lambda: one.keeper._do(one.keeper._holdings.release(manager, [ref.id]))
    )
    wait_for(lambda: one.held == 0)
    leave(engine, one)
    wait_for(lambda: "does not move to two.id" in caplog.text)


def test_workers_that_leave_together_save_their_values_with_those_who_stay(
    stage: Stage, engine: Engine
) -> None:
    one, two, three = sites(stage, engine, "one", "two", "three")
    refs = [engine.put(n, workers=("one.id", "two.id")) for n in range(20)]
    assert one.held == two.held == 10
    leave(engine, one, two)
    wait_for(lambda: one.held == two.held == 0)
    assert three.held == 20
    assert engine.get(*refs) == list(range(20))
    # nor does anybody get new ones who leaves
    assert engine.put("new").holder.worker == "three.id"


def test_a_large_value_goes_to_another_computer_when_nobody_is_near(
    stage: Stage, engine: Engine
) -> None:
    stage.network = NetworkSettings(express_lane=False)
    one, two = stage.site("one"), stage.site("two")
    for site, host in ((one, "here"), (two, "there")):
        site.endpoints.append(site.transport.listen("tcp://127.0.0.1:0"))
        engine.meet(site, host)
    array = np.arange(10 * MEGABYTE // 8, dtype=float)
    ref = engine.put({"array": array}, workers=("one.id",))
    leave(engine, one)
    wait_for(lambda: one.held == 0)
    assert two.held == 1
    (value,) = engine.get(ref)
    assert (value["array"] == array).all()


def test_who_leaves_without_saying_so_is_passed_over(
    stage: Stage, engine: Engine
) -> None:
    one, two, three = sites(stage, engine, "one", "two", "three")
    refs = [engine.put(n, workers=("one.id",)) for n in range(4)]
    two.reactor.post(two.keeper.drain)
    leave(engine, one)
    wait_for(lambda: one.held == 0)
    assert (two.held, three.held) == (0, 4)
    assert engine.get(*refs) == list(range(4))


def test_a_worker_is_told_when_nobody_takes_its_values_and_when_so(
    stage: Stage, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = sites(stage, engine, "one")
    ref = engine.put("value")
    ticks(engine)
    leave(engine, one)
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(one.keeper.hand_over, DEADLINE_S)
        ended.result(DEADLINE_S)
    wait_for(lambda: "could take 1 kept value (" in caplog.text)
    assert "nobody is here who could take them" in caplog.text
    (two,) = sites(stage, engine, "two")
    wait_for(lambda: one.held == 0)
    assert two.held == 1
    assert engine.get(ref) == ["value"]


def test_values_that_end_with_a_worker_that_left_are_told_of(
    stage: Stage, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = sites(stage, engine, "one")
    ref = engine.put("value")
    leave(engine, one)
    contact = engine.directory.contacts["one.id"]
    engine.reactor.post(lambda: engine.values.lost(contact, "it left", True))
    with pytest.raises(DataLost, match="it left"):
        engine.get(ref)
    wait_for(lambda: "that only it held" in caplog.text)


@pytest.mark.parametrize(("said", "room"), [(9, 9), (0, 0), (-1, 0), ("9", 0)])
def test_what_a_worker_says_of_its_memory(said: object, room: int) -> None:
    entry = Entry("w", "worker", "Tool", attributes={"max_kept_bytes": said})
    assert room_of(Contact(entry, "", b"")) == room


# --- pieces ----------------------------------------------------------------------


def in_reactor(engine: Engine, call: Callable[[], Any]) -> Any:
    done: list[Any] = []
    engine.reactor.post(lambda: done.append(call()))
    wait_for(lambda: done)
    return done[0]


def test_what_a_worker_is_told_of_the_values_of_a_piece(
    stage: Stage, engine: Engine
) -> None:
    one, two = sites(stage, engine, "one", "two")
    inner = engine.put("inner", workers=("one.id",))
    outer = engine.put([inner], workers=("two.id",))
    rows = in_reactor(engine, lambda: engine.values.sources("one.id", [outer]))
    assert [(row[0], row[2][0][0]) for row in rows] == [
        (outer.id, "two.id"),
        (inner.id, "one.id"),
    ]


def keep(engine: Engine, site: Site, number: int, value: Any, **more: Any) -> DataRef:
    """Let a site keep a result as the worker of a piece, and tell the engine."""
    id = engine.values.id_of(number)
    payload, buffers = codec.encode(value)
    (manager,) = set(site.managers)
    site.keeper.keep(manager, id, [payload, *buffers], lambda: False)
    told = codec.encode([id, len(payload), []])[0]
    contact = engine.directory.contacts[site.holder.worker]
    return in_reactor(
        engine, lambda: engine.values.kept(contact, id, told, more.get("recipe"))
    )


def test_a_kept_result_is_a_reference(stage: Stage, engine: Engine) -> None:
    (site,) = sites(stage, engine, "one")
    engine.put("so that they have met")
    ref = keep(engine, site, engine.next_number(), "result")
    assert engine.get(ref) == ["result"]
    assert ref.piece is None
    del ref
    settled(engine, lambda: site.held == 0)


def test_a_lost_result_is_made_again_for_who_needs_it(
    stage: Stage, engine: Engine
) -> None:
    one, two = sites(stage, engine, "one", "two")
    engine.put("so that they have met", workers=("one.id",))
    engine.put("so that they have met", workers=("two.id",))
    number = engine.next_number()
    recipe = Recipe("Tool", b"", (), Options(), ())
    ref = keep(engine, one, number, "result", recipe=recipe)
    assert ref.piece == number
    engine.reactor.post(
        lambda: engine.values.lost(engine.directory.contacts["one.id"], "gone", True)
    )
    with ThreadPoolExecutor(1) as threads:
        got = threads.submit(engine.get, ref)
        wait_for(lambda: engine.remaking == [ref.id])
        payload = codec.encode("result")[0]
        (manager,) = set(two.managers)
        two.keeper.keep(manager, ref.id, [payload], lambda: False)
        told = codec.encode([ref.id, len(payload), []])[0]
        contact = engine.directory.contacts["two.id"]
        engine.reactor.post(lambda: engine.values.made(contact, ref.id, told))
        assert got.result(DEADLINE_S) == ["result"]


def test_a_result_that_cannot_be_made_again_is_lost(
    stage: Stage, engine: Engine
) -> None:
    (one,) = sites(stage, engine, "one")
    engine.put("so that they have met")
    recipe = Recipe("Tool", b"", (), Options(), ())
    ref = keep(engine, one, engine.next_number(), "result", recipe=recipe)
    engine.reactor.post(
        lambda: engine.values.lost(engine.directory.contacts["one.id"], "gone", True)
    )
    engine.reactor.post(lambda: engine.values.needed(77, [ref]))
    wait_for(lambda: engine.remaking == [ref.id])
    engine.reactor.post(lambda: engine.values.not_made(ref.id, WorkError("it raised")))
    wait_for(lambda: 77 in engine.ended)
    with pytest.raises(DataLost, match="making it again failed: it raised"):
        raise engine.ended[77]


def test_a_piece_whose_worker_did_not_get_a_value_goes_on_or_ends(
    stage: Stage, engine: Engine
) -> None:
    sites(stage, engine, "one")
    ref = engine.put("value")
    engine.reactor.post(lambda: engine.values.needed(77, [ref]))
    wait_for(lambda: engine.resumed == [77])
    unreached = (ref.id, "it was not reached", list[str]())
    engine.reactor.post(lambda: engine.values.not_found(77, [ref], unreached))
    wait_for(lambda: engine.asked_again == [77])
    lost = (ref.id, "it is gone", ["one.id"])
    engine.reactor.post(lambda: engine.values.not_found(77, [ref], lost))
    wait_for(lambda: 77 in engine.ended)
    assert "it is gone" in str(engine.ended[77])


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        [7],
        [[b"a" * 16, "why"]],
        [[b"short", "why", []]],
        [[b"a" * 16, "", 3]],
    ],
    ids=repr,
)
def test_what_makes_no_sense_of_missing_values_is_refused(value: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        missing_in(codec.encode(value)[0])


@pytest.mark.parametrize(
    "value",
    [None, [b"a" * 16, 3], [b"short", 3, []], [b"a" * 16, -3, []], [b"a" * 16, 3, [7]]],
    ids=repr,
)
def test_what_makes_no_sense_of_a_kept_result_is_refused(value: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        kept_in(codec.encode(value)[0])


# --- leases ----------------------------------------------------------------------


def test_references_to_a_value_share_a_lease() -> None:
    leases = Leases()
    bare = DataRef(b"a" * 16, 1, Holder("w"))
    one, is_new = leases.under(bare)
    assert is_new
    two, is_new = leases.under(bare)
    assert not is_new
    assert leases.is_live(bare.id)
    del one
    gc.collect()
    assert leases.take_ended() == []
    del two
    gc.collect()
    assert not leases.is_live(bare.id)
    assert leases.take_ended() == [bare.id]
    assert leases.take_ended() == []


def test_a_lease_that_begins_again_has_not_ended() -> None:
    leases = Leases()
    bare = DataRef(b"a" * 16, 1, Holder("w"))
    leases.under(bare)
    gc.collect()
    again, is_new = leases.under(bare)
    assert is_new
    assert leases.take_ended() == []
    del again
    leases.under(bare)
    gc.collect()
    assert leases.take_ended() == [bare.id]
