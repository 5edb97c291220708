"""How many pieces a map has under way, with an engine that the test plays."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import pytest

from opencluster import WorkPiece, mapping
from opencluster.engines.base import Done, Engine, Job, Options, Outcome
from opencluster.mapping import AHEAD_BYTES, BATCH, FEELERS, Completed, Flow
from opencluster.stream import Stream
from opencluster.wire import codec

WINDOW = 300
DEADLINE_S = 60.0
MEGABYTE = 1_000_000


class FakeEngine:
    """Keeps what is submitted until the test says that it is done."""

    is_immediate = False

    def __init__(self, workers: int = 2) -> None:
        self.pending: dict[int, Done] = {}
        self.most_pending = 0
        self.count = 0
        self.cancelled: list[int] = []
        self.workers = workers
        self.on_submit: Callable[[], None] = lambda: None

    def submit(
        self,
        type: str,
        pieces: Iterable[Any],
        done: Done,
        job: Job | None,
        is_awaited: bool = False,
    ) -> list[int]:
        numbers = []
        for _ in pieces:
            self.count += 1
            self.pending[self.count] = done
            numbers.append(self.count)
        self.most_pending = max(self.most_pending, len(self.pending))
        self.on_submit()
        return numbers

    def finish(self, nbytes: int, number: int = 0) -> None:
        """End a piece, by default the oldest, with a result of some size."""
        number = number or min(self.pending)
        payload, buffers = codec.encode(WorkPiece(data=bytes(nbytes)))
        self.pending.pop(number)(number, Outcome(payload, buffers))

    def wait(self, is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        return is_over()

    def nudge(self) -> None:
        """Nobody waits."""

    def types(self) -> dict[str, int]:
        return {"T": self.workers}

    def cancel(self, numbers: list[int]) -> None:
        self.cancelled += numbers


def flow(
    engine: FakeEngine,
    count: int = 1000,
    buffer_bytes: int = 16 * MEGABYTE,
    pieces: Iterable[WorkPiece] | None = None,
    keeps_pieces: bool = True,
) -> Flow:
    pieces = pieces or (WorkPiece(n=n) for n in range(count))
    return Flow(
        cast(Engine, engine),
        "T",
        pieces,
        Options(),
        Job("j", "J"),
        WINDOW,
        buffer_bytes,
        "never",
        False,
        keeps_pieces,
    )


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no batch be smaller because this computer is busy."""
    monkeypatch.setattr(mapping, "BATCH_S", DEADLINE_S)


@pytest.fixture(params=[True, False], ids=["ordered", "as done"])
def ordered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def take(results: Iterator[Completed], engine: FakeEngine, nbytes: int) -> None:
    """Take one result, the oldest piece having been done."""
    if engine.pending:
        engine.finish(nbytes)
    next(results)


def test_small_results_fill_the_window(ordered: bool) -> None:
    engine = FakeEngine()
    results = flow(engine).run(ordered)
    engine.on_submit = lambda: engine.finish(10)
    next(results)
    engine.on_submit = lambda: None
    for _ in range(20):
        take(results, engine, 10)
    assert len(engine.pending) > WINDOW - 2 * BATCH


def test_large_results_are_expected_before_they_come(ordered: bool) -> None:
    engine = FakeEngine()
    results = flow(engine).run(ordered)
    engine.on_submit = lambda: engine.finish(MEGABYTE)
    next(results)
    engine.on_submit = lambda: None
    for _ in range(100):
        take(results, engine, MEGABYTE)
    assert engine.most_pending <= 16
    assert engine.count > 100


def test_before_the_first_result_few_are_under_way(ordered: bool) -> None:
    engine = FakeEngine()
    results = flow(engine).run(ordered)
    engine.on_submit = lambda: (
        engine.finish(10) if len(engine.pending) >= FEELERS else None
    )
    next(results)
    assert engine.most_pending == FEELERS


def test_before_the_first_result_there_is_work_for_every_worker(ordered: bool) -> None:
    engine = FakeEngine(workers=50)
    results = flow(engine).run(ordered)

    def submitted() -> None:
        if engine.workers == 50 and len(engine.pending) == 100:
            # more of them come while nothing is done yet
            engine.workers = 100
        elif len(engine.pending) == 200:
            engine.finish(10)

    engine.on_submit = submitted
    next(results)
    assert engine.most_pending == 200


def test_results_that_grow_are_noticed(ordered: bool) -> None:
    engine = FakeEngine()
    results = flow(engine).run(ordered)
    engine.on_submit = lambda: engine.finish(10)
    next(results)
    engine.on_submit = lambda: None
    for _ in range(20):
        take(results, engine, 10)
    many = len(engine.pending)
    for _ in range(many + 50):
        take(results, engine, MEGABYTE)
    assert len(engine.pending) <= 16 < many


def test_of_large_pieces_few_are_under_way_from_the_start(ordered: bool) -> None:
    engine = FakeEngine(workers=1)
    data = bytes(AHEAD_BYTES // 4)
    pieces = (WorkPiece(data=data) for _ in range(100))
    results = flow(engine, buffer_bytes=1 << 40, pieces=pieces).run(ordered)
    engine.on_submit = lambda: engine.finish(10)
    next(results)
    assert 2 <= engine.most_pending <= 4


@pytest.mark.parametrize("keeps_pieces", [True, False])
def test_pieces_are_kept_only_where_they_are_yielded(
    ordered: bool, keeps_pieces: bool
) -> None:
    engine = FakeEngine()
    submitted: list[weakref.ref[WorkPiece]] = []

    def source() -> Iterator[WorkPiece]:
        for n in range(2 * FEELERS):
            piece = WorkPiece(n=n)
            submitted.append(weakref.ref(piece))
            yield piece

    results = flow(engine, pieces=source(), keeps_pieces=keeps_pieces).run(ordered)
    engine.on_submit = lambda: engine.finish(10)
    first = next(results)
    assert first.piece == (WorkPiece(n=0) if keeps_pieces else None)
    del first
    # but for the one that is in the hands of the source
    kept = sum(ref() is not None for ref in submitted[1:-1])
    assert kept == (len(submitted) - 2 if keeps_pieces else 0)


def test_leaving_the_loop_cancels_what_is_under_way(ordered: bool) -> None:
    engine = FakeEngine()
    results = flow(engine).run(ordered)
    engine.on_submit = lambda: engine.finish(10)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert sorted(engine.cancelled) == sorted(engine.pending)
    assert engine.cancelled


def test_pieces_that_come_by_themselves_do_not_keep_a_full_map_busy(
    ordered: bool,
) -> None:
    engine = FakeEngine()
    read = threading.Event()

    def source() -> Iterator[WorkPiece]:
        yield from (WorkPiece(n=n) for n in range(1000))
        read.set()

    stream = Stream(source(), 1001)
    assert read.wait(DEADLINE_S)
    results = flow(engine, pieces=stream).run(ordered)

    def wait(is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        # one that is over before it begins would come again and again
        assert not is_over()
        engine.finish(10)
        assert is_over()
        return True

    engine.wait = wait  # type: ignore[method-assign]
    for _ in range(2 * WINDOW):
        next(results)
    results.close()  # type: ignore[attr-defined]


def test_how_many_pieces_are_yet_to_be_handed_in_is_known_where_they_are_counted() -> (
    None
):
    engine = FakeEngine()
    run = flow(engine, pieces=[WorkPiece(n=n) for n in range(1000)])
    results = run.run(True)
    engine.on_submit = lambda: engine.finish(10)
    next(results)
    ((type, coming),) = run._job.coming.values()
    assert (type, coming) == ("T", 1000 - engine.count)
    cast(Any, results).close()
    assert run._job.coming == {}
    engine = FakeEngine()
    engine.on_submit = lambda: engine.finish(10)
    unknown = flow(engine)
    next(unknown.run(True))
    assert unknown._job.coming == {}
