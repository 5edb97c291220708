"""Workers that answer bundles wrongly: every piece has one outcome all the same."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fault_tools import DEADLINE_S, Liar, cluster, fault, registered, wait_until

from opencluster import WorkPiece
from opencluster.config import load
from opencluster.core.crew import Crew
from opencluster.engines.base import Options, Outcome
from opencluster.engines.cluster import ClusterEngine, connect
from opencluster.errors import (
    Interrupted,
    PieceCancelled,
    PieceFailed,
    PieceTimeout,
    RemoteProtocolError,
    WorkError,
)
from opencluster.testing import LocalCluster
from opencluster.wire import codec

pytestmark = pytest.mark.processes

SIZE = 4


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    with cluster() as here:
        yield here


class Customer:
    """A manager that had a bundle sent to a worker that lies."""

    def __init__(self, engine: ClusterEngine, liar: Liar) -> None:
        self.engine = engine
        self.liar = liar
        self.outcomes: dict[int, Outcome] = {}
        options = Options(retries=3)
        engine.workers("Liar", DEADLINE_S)
        works = [(fault("ok", n=n), options) for n in range(SIZE)]
        self.numbers = engine.submit("Liar", works, self._done)
        self.first = liar.take()
        assert self.first == self.numbers[0]
        assert len(liar.rows) == 1 and len(liar.rows[0][3]) == SIZE

    def _done(self, number: int, outcome: Outcome) -> None:
        assert number not in self.outcomes
        self.outcomes[number] = outcome

    def value(self, place: int) -> object:
        """Wait for what came of a piece, by its place in the bundle."""
        number = self.numbers[place]
        wait_until(lambda: number in self.outcomes, f"an outcome of {place}")
        return self.outcomes[number].value()

    def do_the_rest(self) -> None:
        """Answer what is sent now as one should, until all is done."""
        while len(self.outcomes) < SIZE:
            self.liar.take()
            for row in self.liar.rows:
                self.liar.answer(row[0], "done", result(-1), 0, 0.1)
            sent = {row[0] for row in self.liar.rows}
            wait_until(lambda sent=sent: sent <= self.outcomes.keys(), "outcomes")


@pytest.fixture
def customer(here: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Customer]:
    monkeypatch.setattr(Crew, "bundle_size", property(lambda self: SIZE))
    endpoint = f"ipc://{here.place.sockets}/{uuid.uuid4().hex}.sock"
    engine = connect(load(), here.place)
    with Liar(endpoint) as liar, registered(here, endpoint):
        yield Customer(engine, liar)
        engine.close()


def result(n: int) -> bytes:
    return codec.encode(WorkPiece(n=n))[0]


def results(*numbers: int) -> list[bytes]:
    return [result(n) for n in numbers]


def test_what_was_left_of_a_bundle_is_sent_again(customer: Customer) -> None:
    customer.liar.answer(customer.first, "bundle", results(0), 0, 0.1)
    assert customer.value(0) == {"n": 0}
    customer.do_the_rest()
    assert [customer.value(place) for place in (1, 2, 3)] == [{"n": -1}] * 3


def test_more_outcomes_than_pieces(customer: Customer) -> None:
    customer.liar.answer(customer.first, "bundle", results(*range(9)), 0, 0.1)
    assert [customer.value(n) for n in range(SIZE)] == [{"n": n} for n in range(SIZE)]
    assert customer.engine._desk.dispatch.is_idle


def test_one_outcome_that_is_none_of_a_bundle(customer: Customer) -> None:
    customer.liar.answer(customer.first, "done", result(7), 0, 0.1)
    for place in range(SIZE):
        with pytest.raises(PieceFailed):
            customer.value(place)


def test_a_cut_that_claims_too_much(customer: Customer) -> None:
    liar = customer.liar
    liar.answer(customer.first, "cut", results(*range(9)), 0, 0.1)
    liar.answer(customer.numbers[-1], "done", result(33), 0, 0.1)
    assert [customer.value(n) for n in range(3)] == [{"n": n} for n in range(3)]
    assert customer.value(3) == {"n": 33}


def test_answers_for_bundles_that_it_does_not_have(customer: Customer) -> None:
    liar = customer.liar
    for number in (customer.numbers[1], customer.first + 99):
        for status in ("bundle", "cut"):
            liar.answer(number, status, results(8, 9), 0, 0.1)
    liar.answer(customer.first, "bundle", results(*range(SIZE)), 0, 0.1)
    # twice
    liar.answer(customer.first, "bundle", results(*range(SIZE)), 0, 0.1)
    assert [customer.value(n) for n in range(SIZE)] == [{"n": n} for n in range(SIZE)]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("failed", PieceFailed),
        ("surprising", PieceFailed),
        ("missing", PieceFailed),
        ("kept", PieceFailed),
        ("drained", PieceFailed),
        ("bundle", PieceFailed),
        ("timeout", PieceTimeout),
        ("interrupted", Interrupted),
        ("cancelled", PieceCancelled),
    ],
)
def test_whatever_one_piece_is_said_to_be_the_others_are_done(
    customer: Customer, status: str, error: type[WorkError]
) -> None:
    rows = [result(0), [status, b"", 0], result(2), result(3)]
    customer.liar.answer(customer.first, "bundle", rows, 0, 0.1)
    with pytest.raises(error):
        customer.value(1)
    assert [customer.value(place) for place in (0, 2, 3)] == [
        {"n": place} for place in (0, 2, 3)
    ]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01"])
@pytest.mark.parametrize("place", [0, SIZE - 1])
def test_a_result_that_cannot_be_read_is_of_one_piece_alone(
    customer: Customer, payload: bytes, place: int
) -> None:
    rows = results(*range(SIZE))
    rows[place] = payload
    customer.liar.answer(customer.first, "bundle", rows, 0, 0.1)
    for n in range(SIZE):
        if n == place:
            with pytest.raises(RemoteProtocolError):
                customer.value(n)
        else:
            assert customer.value(n) == {"n": n}


def test_a_piece_that_was_given_up_for_the_end_of_its_worker_runs_again(
    customer: Customer,
) -> None:
    rows = [result(0), ["drained", b"", 0]]
    customer.liar.answer(customer.first, "bundle", rows, 0, 0.1)
    assert customer.value(0) == {"n": 0}
    customer.do_the_rest()
    assert customer.value(1) == {"n": -1}


def test_a_piece_that_nobody_waits_for_takes_its_buffers_with_it(
    customer: Customer,
) -> None:
    parts = [codec.encode(WorkPiece(data=np.full(10_000, n))) for n in range(SIZE)]
    customer.engine.cancel([customer.numbers[1]])
    with pytest.raises(PieceCancelled):
        customer.value(1)
    rows = [["done", payload, len(own)] for payload, own in parts]
    buffers = [bytes(memoryview(buffer)) for _, own in parts for buffer in own]
    assert len(buffers) == SIZE
    customer.liar.answer(customer.first, "bundle", rows, SIZE, 0.1, buffers=buffers)
    for place in (0, 2, 3):
        value: Any = customer.value(place)
        assert (value["data"] == place).all()
