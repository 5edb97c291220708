"""Pieces for which workers will come, and how much there is to do."""

from __future__ import annotations

from typing import Any

from opencluster.core.dispatch import (
    Dispatch,
    EndPiece,
    Piece,
    Verdict,
    WarnNoWorker,
)
from opencluster.errors import DeathEvidence


def pieces(*ids: int, type: str = "T", **fields: Any) -> list[Piece]:
    return [Piece(number, type, **fields) for number in ids]


def ended(effects: list[Any]) -> list[int]:
    return [effect.piece.id for effect in effects if isinstance(effect, EndPiece)]


def test_pieces_wait_for_workers_that_will_come() -> None:
    d = Dispatch(worker_wait_s=30.0)
    d.expect(0.0, ["T"])
    d.submit(0.0, [*pieces(1), *pieces(2, type="U")])
    assert d.tick(1.5) == [WarnNoWorker("T", 1), WarnNoWorker("U", 1)]
    assert ended(d.tick(30.0)) == [2]
    assert d.tick(100_000.0) == []
    d.check_invariants()


def test_when_none_will_come_they_wait_as_long_as_any_from_then_on() -> None:
    d = Dispatch(worker_wait_s=30.0)
    d.expect(0.0, ["T", "U"])
    d.submit(0.0, pieces(1))
    d.expect(500.0, ["U"])
    assert ended(d.tick(529.0)) == []
    d.expect(529.0, [])
    assert ended(d.tick(529.9)) == []
    assert ended(d.tick(530.0)) == [1]


def test_a_type_that_fails_somewhere_is_waited_for_as_long_as_it_is_launched() -> None:
    d = Dispatch(worker_wait_s=30.0)
    d.expect(0.0, ["T"])
    d.submit(0.0, pieces(1))
    d.type_failing(1.0, "T", "here", "no such file")
    assert ended(d.tick(5.0)) == []
    d.expect(6.0, [])
    (end,) = [e for e in d.tick(6.1) if isinstance(e, EndPiece)]
    assert (end.verdict, end.detail) == (Verdict.NO_WORKER, "no such file")


def test_how_much_there_is_to_do() -> None:
    d = Dispatch()
    assert d.work(0.0, ["T", "U"]) == {"T": (0, None), "U": (0, None)}
    d.submit(0.0, [*pieces(*range(1, 8)), *pieces(8, type="V")])
    assert d.work(9.0, ["T"]) == {"T": (7, None)}
    d.worker_joined(10.0, "a", "T")
    # before the first one is done, it takes as long as it has run
    assert d.work(14.0, ["T"]) == {"T": (7, 4.0)}
    d.finished(15.0, "a", 1, Verdict.DONE, 5.0)
    d.assign(15.0)
    assert d.work(19.0, ["T"]) == {"T": (6, 5.0)}
    # those that follow may take longer
    assert d.work(99.0, ["T"]) == {"T": (6, 84.0)}
    d.worker_joined(98.0, "b", "T")
    assert d.work(99.0, ["T"]) == {"T": (6, 5.0)}
    d.worker_lost(99.0, "b", DeathEvidence("gone"))
    d.worker_lost(99.0, "a", DeathEvidence("gone"))
    assert d.work(99.0, ["T"]) == {"T": (6, 5.0)}
    d.cancel(99.0, range(1, 8))
    assert d.work(99.0, ["T"]) == {"T": (0, 5.0)}


def test_bundles_count_as_their_pieces() -> None:
    d = Dispatch()
    d.submit(0.0, pieces(1, count=40))
    assert d.work(0.0, ["T"]) == {"T": (40, None)}
