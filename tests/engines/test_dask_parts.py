"""Parts of the engine on Dask that need no Dask cluster."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from distributed.protocol import pickle as dask_pickle

from opencluster import Worker, WorkPiece
from opencluster.config import Config, load
from opencluster.core.inbox import CUT_SHORT, INTERRUPT
from opencluster.engines.base import Options
from opencluster.engines.dask import runs as dask_runs
from opencluster.engines.dask import worker as dask_worker
from opencluster.engines.dask.classes import NotThere, Recipes, load_worker
from opencluster.engines.dask.client import scheduler_of
from opencluster.engines.dask.hurry import Hurry
from opencluster.engines.dask.messages import (
    UNKNOWN_CLASS,
    Answer,
    Order,
    Parts,
    Row,
)
from opencluster.engines.dask.scheduler import plugin
from opencluster.engines.dask.tasks import (
    BUNDLE_PIECES,
    Flight,
    Pace,
    Task,
    dask_priority,
    submit,
)
from opencluster.engines.dask.values import DaskValues
from opencluster.engines.tickets import Ticket, piece_of
from opencluster.errors import RemoteProtocolError
from opencluster.serving.outcomes import PieceInterrupt
from opencluster.targets import load_class
from opencluster.wire import codec

# --- the scheduler ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("by_program", "named"),
    [
        ({}, ("tcp://site:1", "/site.json")),
        ({"ADDRESS": "tcp://mine:1"}, ("tcp://mine:1", "")),
        ({"SCHEDULER_FILE": "/mine.json"}, ("tcp://site:1", "/mine.json")),
    ],
)
def test_a_program_s_scheduler_goes_before_that_of_the_site(
    tmp_path: Path, by_program: dict[str, str], named: tuple[str, str]
) -> None:
    site = tmp_path / "config.ini"
    site.write_text("[dask]\naddress = tcp://site:1\nscheduler_file = /site.json\n")
    environ = {f"OPENCLUSTER_DASK_{key}": text for key, text in by_program.items()}
    chosen = scheduler_of(load([site], environ))
    assert (chosen.address, chosen.scheduler_file) == named


# --- messages --------------------------------------------------------------------


def test_memory_of_arrays_is_not_copied_on_its_way() -> None:
    array = np.arange(1000)
    parts = Parts(b"head", [memoryview(array).cast("B")])
    frames: list[pickle.PickleBuffer] = []
    data = pickle.dumps(parts, protocol=5, buffer_callback=frames.append)
    assert len(data) < 200
    assert np.shares_memory(np.frombuffer(frames[0], array.dtype), array)
    came = pickle.loads(data, buffers=frames)
    assert came.payload == b"head"
    assert np.shares_memory(np.frombuffer(came.buffers[0], array.dtype), array)
    assert came.nbytes == came.__sizeof__() == 8004
    # where there are no frames
    plain = pickle.loads(pickle.dumps(parts, protocol=4))
    assert bytes(plain.buffers[0]) == array.tobytes()


def test_an_answer_has_the_buffers_of_each_piece() -> None:
    rows = [
        Row("done", b"a", [b"1", b"22"], 0.5),
        Row("failed", b"b", []),
        Row("done", b"c", [b"333"]),
    ]
    worker, came = Answer.of("Tool@here.0", rows).rows()
    assert (worker, came) == ("Tool@here.0", rows)


ORDER = Order(
    session="s",
    type="T",
    seat=-1,
    task=b"id",
    is_kept=False,
    is_watched=True,
    is_urgent=False,
    numbers=[1, 2],
    timeout_s=0.5,
    interrupt_grace_s=1.0,
    kill_grace_s=2.0,
    max_bytes=100,
    digest=b"d",
    recipe=b"",
    rows=[[b"p", [b"q"]], None],
    values=[],
)


def test_an_order_arrives_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = ORDER.pack()
    assert Order.unpack(packed) == ORDER
    monkeypatch.setattr("opencluster.engines.dask.messages.FORMAT", 2)
    with pytest.raises(RemoteProtocolError, match="another version"):
        Order.unpack(packed)


# --- tasks -----------------------------------------------------------------------


def flights(count: int, nbytes: int = 10, **options: object) -> list[Flight]:
    chosen = Options(**options)  # type: ignore[arg-type]
    made = []
    for number in range(count):
        ticket = Ticket(b"x" * min(nbytes, 100), [], nbytes, chosen, print, None)
        made.append(Flight(piece_of(number, "T", chosen), ticket, 0.0))
    return made


def sizes(pace: Pace, pieces: list[Flight], under_way: int, seats: int) -> list[int]:
    return [len(bundle) for bundle in pace.bundles("T", pieces, under_way, seats)]


def test_pieces_go_alone_until_it_is_known_how_long_they_take() -> None:
    pace = Pace()
    assert sizes(pace, flights(3), 1000, 2) == [1, 1, 1]
    pace.note("T", 0.001)
    assert sizes(pace, flights(25), 1000, 2) == [10, 10, 5]
    pace.note("Other", 60.0)
    assert sizes(pace, flights(25), 1000, 2) == [10, 10, 5]


@pytest.mark.parametrize(
    ("mean_s", "under_way", "seats", "most"),
    [
        (1e-9, 10_000, 2, BUNDLE_PIECES),
        (1e-9, 40, 2, 10),
        (1e-9, 40, 100, 1),
        (1.0, 10_000, 2, 1),
    ],
)
def test_a_bundle_is_short_and_leaves_something_for_others(
    mean_s: float, under_way: int, seats: int, most: int
) -> None:
    pace = Pace()
    pace.note("T", mean_s)
    assert max(sizes(pace, flights(200), under_way, seats)) == most


@pytest.mark.parametrize(
    "pieces",
    [
        flights(4, nbytes=1 << 20),
        flights(4, timeout_s=1.0),
        flights(4, keep=True),
        flights(4, retries=0),
    ],
)
def test_what_needs_to_be_seen_to_goes_alone(pieces: list[Flight]) -> None:
    pace = Pace()
    pace.note("T", 1e-9)
    assert sizes(pace, pieces, 1000, 1) == [1, 1, 1, 1]
    pieces = flights(2)
    pieces[0].tries = 1
    assert sizes(pace, pieces, 1000, 1) == [1, 1]


def test_real_time_pieces_go_before_all_others() -> None:
    urgencies = [
        Options(priority=-(2**63) + 1),
        Options(priority=-1),
        Options(),
        Options(priority=2**63 - 1),
        Options(deadline_s=0.1, priority=-(2**63) + 1),
        Options(deadline_s=0.1),
    ]
    order = [dask_priority(piece_of(1, "T", options)) for options in urgencies]
    assert order == sorted(set(order))
    assert max(map(abs, order)) < 2**63


# --- the scheduler ---------------------------------------------------------------


def test_however_many_pieces_hurry_dask_workers_are_asked_once_for_all() -> None:
    asked: list[list[str]] = []
    waiting = flights(40, deadline_s=0.0)
    for number, flight in enumerate(waiting):
        flight.task = Task(bytes([number]), "T", [flight])
    keys = [flight.task.key for flight in waiting if flight.task is not None]

    class Client:
        async def run(
            self, function: object, type: str, keys: list[str], **to: object
        ) -> dict[str, list[str]]:
            asked.append(keys)
            return {"tcp://a": keys[:10], "tcp://b": keys[10:20]}

    client, census = Client(), SimpleNamespace(addresses=lambda type: ["tcp://a"])
    hurry = Hurry(client, cast(Any, census), lambda flight: flight not in over)
    over = waiting[39:]

    async def see_to_all() -> None:
        await asyncio.gather(*(hurry.see_to([flight]) for flight in waiting))

    asyncio.run(see_to_all())
    assert asked == [keys[:39], keys[20:39]]


def test_the_scheduler_needs_no_opencluster(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def get(self, graph: object, keys: list[str], **options: object) -> list[str]:
            sent.append(pickle.dumps((graph, options)))
            return keys

    sent: list[bytes] = []
    task = Task(b"id", "T", flights(1))
    submit(Client(), [(task, ORDER.pack(), [])], 5, "tcp://a:1", True)
    assert task.future == task.key
    sent.append(dask_pickle.dumps(plugin()))
    for name in [n for n in sys.modules if n.partition(".")[0] == "opencluster"]:
        monkeypatch.setitem(sys.modules, name, None)
    (graph, options), care = map(dask_pickle.loads, sent)
    assert list(graph) == [task.key]
    assert options["resources"] == {"T": 1}
    assert options["workers"] == ["tcp://a:1"]

    tasks = {
        "ours": SimpleNamespace(suspicious=0),
        "other": SimpleNamespace(suspicious=0),
    }
    scheduler = SimpleNamespace(tasks=tasks, allowed_failures=3)
    marks = {"opencluster": {"ours": True}}
    care.update_graph(scheduler, client="c", annotations=marks, keys={"ours", "other"})
    assert tasks["ours"].suspicious == 3
    assert tasks["other"].suspicious == 0


# --- classes ---------------------------------------------------------------------

SOURCE = """
from opencluster import Service, Worker, WorkPiece, remote

def answer():
    return 42

class TravellerWorker(Worker):
    def perform(self, work):
        return WorkPiece(answer=answer())

class GuideService(Service):
    pass
"""


def test_a_class_is_had_from_its_file_or_by_value(tmp_path: Path) -> None:
    path = tmp_path / "travelling.py"
    path.write_text(SOURCE)
    load_class(f"{path}:TravellerWorker")
    recipe, why = Recipes(Config()).worker("Traveller")
    assert why == ""
    for change in (lambda: None, path.unlink):
        change()
        found, services = load_worker(recipe)
        assert issubclass(found, Worker)
        assert found().perform(WorkPiece()) == {"answer": 42}
        assert list(services) == ["guide"]


def test_why_a_class_cannot_be_had_is_told(tmp_path: Path) -> None:
    recipe, why = Recipes(Config()).worker("Nobody")
    assert recipe == b"" and "no Worker class of type 'Nobody'" in why
    path = tmp_path / "stuck.py"
    path.write_text(SOURCE.replace("Traveller", "Stuck") + "LOCK = None\n")
    cls = load_class(f"{path}:StuckWorker")
    # what it refers to cannot be sent
    cls.lock = threading.Lock()  # type: ignore[attr-defined]
    recipe, _ = Recipes(Config()).worker("Stuck")
    path.write_text("another file")
    with pytest.raises(NotThere) as caught:
        load_worker(recipe)
    assert "is another file" in str(caught.value)
    assert "by value it cannot be sent" in str(caught.value)


# --- what a Dask worker has ------------------------------------------------------


class GuestWorker(Worker):
    """Notes what becomes of it."""

    seen: ClassVar[list[str]] = []

    def startup(self) -> None:
        self.seen.append("startup")

    def perform(self, work: WorkPiece) -> WorkPiece:
        self.seen.append("perform")
        return WorkPiece(work)

    def shutdown(self) -> None:
        self.seen.append("shutdown")


def test_an_instance_is_made_once_and_ends_with_the_dask_worker() -> None:
    def later(function: Callable[..., object], **options: object) -> None:
        host.plugins["opencluster"] = options["plugin"]

    host = SimpleNamespace(
        address="tcp://here:1",
        plugins={},
        loop=SimpleNamespace(add_callback=later),
        plugin_add=None,
    )
    shop = dask_worker._Shop(host, "guest")
    dask_worker._shops[host.address, "guest"] = shop
    recipe, _ = Recipes(Config()).worker("Guest")
    payload, _ = codec.encode(WorkPiece(a=1))
    order = replace(ORDER, type="Guest", numbers=[1, 2], rows=[[payload, []]] * 2)
    unknown = shop.perform(order, [], [])
    assert isinstance(unknown, Answer)
    assert unknown.rows()[1][0].status == UNKNOWN_CLASS
    order = replace(order, recipe=recipe)
    for _ in range(2):
        answer = shop.perform(order, [], [])
        assert isinstance(answer, Answer)
        name, rows = answer.rows()
        assert name == "Guest@here:1.0"
        assert [codec.decode(row.payload) for row in rows] == [{"a": 1}] * 2
    assert GuestWorker.seen == ["startup", *["perform"] * 4]
    host.plugins["opencluster"].teardown(host)
    assert GuestWorker.seen[5:] == ["shutdown"]
    assert (host.address, "guest") not in dask_worker._shops


# --- runs ------------------------------------------------------------------------


def run(number: int, told: list[object], timeout_s: float = 0.0) -> dask_runs.Run:
    key = ("session", number)
    return dask_runs.Run(
        key, "T@here.0", timeout_s, 0.02, 0.02, True, False, told.append
    )


def test_progress_is_told_and_ends_what_should_stop() -> None:
    told: list[object] = []
    one = run(1, told)
    dask_runs.begin(one)

    def perform(piece: WorkPiece) -> None:
        one.progress(1, 4)
        one.progress(2, 4)
        assert dask_runs.stop("session", [1, 2], INTERRUPT) == [1]
        assert one.is_interrupted()
        one.progress(3, 4)

    with pytest.raises(PieceInterrupt):
        one.perform(perform, WorkPiece())
    dask_runs.end(one)
    assert told == [{"progress": [1, 1.0, 4.0]}]
    assert dask_runs.stop("other", [1], INTERRUPT) == []


def test_what_is_stopped_before_it_begins_does_not_begin() -> None:
    assert dask_runs.stop("session", [7], INTERRUPT) == []
    one = run(7, [])
    dask_runs.begin(one)
    with pytest.raises(PieceInterrupt):
        one.perform(pytest.fail, WorkPiece())
    dask_runs.end(one)


def test_a_piece_has_an_exception_raised_and_is_given_up() -> None:
    told: list[object] = []
    one = run(3, told, timeout_s=0.01)
    dask_runs.begin(one)
    raised = []

    def resist(piece: WorkPiece) -> str:
        while not told:
            try:
                while not told:
                    time.sleep(0.001)
            except PieceInterrupt as stop:
                raised.append(stop)
        return "late"

    assert one.perform(resist, WorkPiece()) == "late"
    dask_runs.end(one)
    assert len(raised) == 1
    assert told == [{"over": [3, "timeout"]}]


def test_all_of_a_worker_or_a_session_can_be_stopped() -> None:
    first, second = run(4, []), run(5, [])
    dask_runs.begin(first)
    dask_runs.stop_worker("session", "T@elsewhere.0")
    assert not first.is_interrupted()
    dask_runs.stop_worker("session", "T@here.0")
    assert first.is_interrupted()
    dask_runs.begin(second)
    dask_runs.stop_session("session", "cancelled")
    assert (first.reason, second.reason) == (INTERRUPT, "cancelled")
    dask_runs.end(first)
    dask_runs.end(second)


def test_who_is_interrupted_while_it_fetches_has_lost_nothing() -> None:
    class Interrupted:
        def gather(self, futures: list[Any]) -> list[Parts]:
            raise PieceInterrupt(INTERRUPT)

    values = DaskValues(Interrupted())
    future = SimpleNamespace(key="value-1", status="finished")
    ref = values.hold(values.new_id(), future, 8, "Square@host.0", [])
    for wait in (values.resolve, lambda ref: values.fetch([ref])):
        with pytest.raises(PieceInterrupt):
            wait(ref)


def test_a_batch_piece_makes_way_once_for_a_task_that_waits() -> None:
    def make_way(state: str) -> list[str]:
        task = SimpleNamespace(state=state)
        known = SimpleNamespace(tasks={"key": task})
        host = SimpleNamespace(state=known, address="tcp://here")
        return dask_runs.make_way("T", ["key", "elsewhere"], host)

    first, second = run(8, []), run(9, [])
    dask_runs.begin(first)
    dask_runs.begin(second)
    assert make_way("executing") == ["key"]
    assert (first.way_for, second.way_for) == ("", "")
    assert make_way("constrained") == []
    assert make_way("ready") == []
    assert (first.way_for, second.way_for) == ("key", "")
    with pytest.raises(PieceInterrupt, match=CUT_SHORT):
        first.perform(lambda piece: first.progress(1, 2), WorkPiece())
    assert first.has_seen_way and not first.reason
    assert not second.is_interrupted()
    dask_runs.end(first)
    dask_runs.end(second)
