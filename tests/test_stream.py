"""Pieces that flow from one stage to the next: bounded, in order, stopped in time."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Iterator

import pytest

from opencluster import Manager, Worker, WorkPiece
from opencluster.mapping import WINDOW
from opencluster.stream import Stream

DEADLINE_S = 30.0


class Add(Worker):
    def perform(self, work: WorkPiece) -> WorkPiece:
        return WorkPiece(n=work["n"] + 1)


class Source:
    """Numbers without end, that know how many were read, and whether it is over."""

    def __init__(self) -> None:
        self.read = 0
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[WorkPiece]:
        try:
            for n in itertools.count():
                self.read = n + 1
                yield WorkPiece(n=n)
        finally:
            self.closed.set()


def wait_until(condition: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("waited in vain")


def test_all_comes_in_order() -> None:
    stream = Stream((WorkPiece(n=n) for n in range(1000)), 3)
    assert [piece["n"] for piece in stream] == list(range(1000))


def test_the_source_is_not_read_beyond_the_bound() -> None:
    source = Source()
    stream = Stream(source, 5)
    wait_until(lambda: source.read >= 5)
    for _ in range(10):
        next(stream)
    wait_until(lambda: source.read >= 15)
    threading.Event().wait(0.05)
    assert source.read == 15
    stream.close()


def test_an_error_of_the_source_comes_after_what_was_before_it() -> None:
    def source() -> Iterator[WorkPiece]:
        yield WorkPiece(n=1)
        raise OSError("the telescope is gone")

    stream = Stream(source(), 10)
    assert next(stream)["n"] == 1
    with pytest.raises(OSError, match="the telescope is gone"):
        next(stream)
    assert next(stream, None) is None


@pytest.mark.parametrize("way", ["close", "forget"])
def test_the_source_is_closed_when_nobody_takes_any_more(way: str) -> None:
    source = Source()
    stream = Stream(source, 5)
    next(stream)
    if way == "close":
        stream.close()
    del stream
    gc.collect()
    assert source.closed.wait(DEADLINE_S)


def test_stages_run_one_behind_the_other() -> None:
    manager = Manager("local")
    source = Source()
    results = manager.map("Add", manager.to_next(manager.map("Add", source)))
    taken = [piece["n"] for piece in itertools.islice(results, 100)]
    assert taken == list(range(2, 102))
    results.close()  # type: ignore[attr-defined]
    assert source.closed.wait(DEADLINE_S)


@pytest.mark.processes
@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_result_does_not_wait_for_the_next_piece(is_ordered: bool) -> None:
    taken = threading.Event()

    def feed() -> Iterator[WorkPiece]:
        yield WorkPiece(n=1)
        # the second piece only comes when the first result has been seen
        assert taken.wait(DEADLINE_S)
        yield WorkPiece(n=2)

    manager = Manager("process")
    results = manager.map("Add", manager.to_next(feed()), ordered=is_ordered)
    assert next(results)["n"] == 2
    taken.set()
    assert next(results)["n"] == 3
    assert next(results, None) is None


@pytest.mark.processes
def test_a_slow_stage_slows_down_the_source() -> None:
    manager = Manager("process")
    source = Source()
    first = manager.to_next(
        manager.map("Add", manager.to_next(source, bound=4)), bound=4
    )
    for _ in range(3):
        next(first)
    threading.Event().wait(0.3)
    read = source.read
    threading.Event().wait(0.3)
    assert source.read == read < 3 + 4 + 4 + WINDOW + 100
    del first
    assert source.closed.wait(DEADLINE_S)
