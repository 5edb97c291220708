"""The station of a worker: what becomes of a bundle while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opencluster.config import Config
from opencluster.core.inbox import MakeWay, Waiting
from opencluster.serving.arrivals import Work
from opencluster.serving.bundle import (
    ALONE_AFTER_S,
    ENOUGH_BYTES,
    ENOUGH_S,
    Bundle,
    Then,
)
from opencluster.serving.outbox import Answer
from opencluster.serving.station import Station

MANAGER = b"manager"
FIRST = 10


# --- what is kept of a bundle ----------------------------------------------------


def begun(members: int) -> Bundle:
    return Bundle(Waiting(b"manager", 1, members=members), 10.0)


def test_a_bundle_is_sent_when_all_of_it_is_over() -> None:
    bundle = begun(2)
    assert not bundle.add("done", b"one", [], 10.0)
    assert bundle.add("done", b"two", [], 10.0)
    assert (bundle.outcomes, bundle.buffers) == ([b"one", b"two"], [])


def test_a_bundle_is_sent_when_it_took_long() -> None:
    bundle = begun(9)
    assert not bundle.add("done", b"", [], 10.0 + 0.9 * ENOUGH_S)
    assert bundle.add("done", b"", [], 10.0 + 1.1 * ENOUGH_S)


@pytest.mark.parametrize("in_buffers", [False, True])
def test_a_bundle_is_sent_when_its_results_are_large(in_buffers: bool) -> None:
    half = bytes(ENOUGH_BYTES // 2)
    bundle = begun(9)
    parts = (b"", [half]) if in_buffers else (half, [])
    assert not bundle.add("done", *parts, 10.0)
    assert not bundle.add("done", *parts, 10.0)
    assert bundle.add("done", b"a little more", [], 10.0)


def test_what_is_no_plain_result_says_so() -> None:
    bundle = begun(4)
    bundle.add("failed", b"why", [], 10.0)
    bundle.add("done", b"array", [b"one", b"two"], 10.0)
    bundle.add("done", b"plain", [], 10.5)
    outcomes = [["failed", b"why", 0], ["done", b"array", 2], b"plain"]
    assert bundle.outcomes == outcomes
    assert bundle.buffers == [b"one", b"two"]


def test_a_bundle_knows_when_the_last_of_what_is_over_was() -> None:
    bundle = begun(4)
    assert bundle.ended_at == 10.0
    bundle.add("done", b"", [], 10.5)
    assert bundle.ended_at == 10.5


# --- the station -----------------------------------------------------------------


class Desk:
    """A station whose sockets nobody serves, and the one that runs its pieces."""

    def __init__(self) -> None:
        self.alone: list[Work] = []
        self.ways: list[MakeWay] = []
        self.station = Station(
            Config(),
            "worker",
            None,
            lambda reactor: None,  # type: ignore[arg-type, return-value]
            lambda flag: None,
            lambda exception: None,
            self.alone.append,
            self.ways.append,
        )

    @property
    def inbox(self) -> Any:
        return self.station._inbox

    @property
    def answers(self) -> list[tuple[int, Answer]]:
        return self.station._outbox._answers.get(MANAGER, [])

    def begin(self, members: int = 4, now: float = 0.0) -> tuple[Work, Bundle]:
        """Have a bundle come in and be begun."""
        data = ([b"piece %d" % n for n in range(members)], ())
        self.inbox.receive([Waiting(MANAGER, FIRST, data=data, members=members)])
        work = self.station.take()
        assert work is not None
        return work, self.station.bundles.begin(work.waiting, now)

    def note(self, bundle: Bundle, now: float = 0.001, is_last: bool = False) -> Then:
        return self.station.bundles.note(bundle, "done", b"result", [], now, is_last)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("OPENCLUSTER_DIR", str(tmp_path))
    desk = Desk()
    yield desk
    desk.station.transport.close()


def test_a_bundle_is_answered_when_it_is_over(desk: Desk) -> None:
    _, bundle = desk.begin(members=2)
    assert desk.note(bundle, 0.001) is Then.NEXT
    assert desk.note(bundle, 0.002) is Then.OVER
    answer = Answer("bundle", [b"result"] * 2, [], 0.002)
    assert desk.answers == [(FIRST, answer)]
    assert desk.inbox.running == []


def test_a_bundle_is_answered_before_when_it_is_to_end(desk: Desk) -> None:
    _, bundle = desk.begin()
    assert desk.note(bundle, 0.001, is_last=True) is Then.OVER
    assert desk.answers == [(FIRST, Answer("bundle", [b"result"], [], 0.001))]


def test_the_piece_that_runs_is_left_alone_when_a_bundle_is_cut(desk: Desk) -> None:
    _, bundle = desk.begin()
    desk.note(bundle, 0.001)
    desk.station.bundles.cut()
    (alone,) = desk.alone
    assert alone.waiting.key == (MANAGER, FIRST + 1)
    # how long the piece takes that still runs is not counted among what is over
    assert desk.answers == [(FIRST, Answer("cut", [b"result"], [], 0.001))]
    assert desk.note(bundle, 9.0) is Then.ALONE
    own = Answer("done", b"its own", [], 9.0)
    desk.station.answer(alone, own)
    assert desk.answers[1:] == [(FIRST + 1, own)]
    assert desk.inbox.running == []


def test_a_bundle_that_is_cut_before_anything_is_over_took_no_time(desk: Desk) -> None:
    desk.begin(now=5.0)
    desk.station.bundles.cut()
    assert desk.answers == [(FIRST, Answer("cut", [], [], 0.0))]


def test_a_bundle_is_cut_once(desk: Desk) -> None:
    _, bundle = desk.begin()
    desk.station.bundles.cut()
    desk.station.bundles.cut()
    assert len(desk.answers) == len(desk.alone) == 1
    assert desk.note(bundle) is Then.ALONE


def test_what_is_over_cannot_be_cut(desk: Desk) -> None:
    desk.station.bundles.cut()
    _, bundle = desk.begin(members=1 + 1)
    desk.note(bundle)
    desk.note(bundle)
    desk.station.bundles.cut()
    assert len(desk.answers) == 1
    assert not desk.alone


def test_of_a_bundle_that_nobody_waits_for_nothing_is_left(desk: Desk) -> None:
    work, bundle = desk.begin()
    desk.inbox.manager_lost(1.0, MANAGER)
    desk.station.bundles.cut()
    assert desk.note(bundle) is Then.ALONE
    # nobody told the runner of another piece
    assert not desk.alone
    desk.station.answer(work, Answer("done", b"", [], 1.0))
    assert (desk.answers, desk.inbox.running) == ([], [])


def test_only_a_bundle_that_takes_long_is_cut(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("opencluster.serving.bundle_watch.time", clock)
    reactor = desk.station.reactor
    monkeypatch.setattr(reactor, "after", lambda delay_s, _: waits.append(delay_s))
    _, bundle = desk.begin()
    desk.station.bundles._look()
    assert waits == [ALONE_AFTER_S]
    # it is over, and another one has begun, by the time that it is looked at
    desk.note(bundle, is_last=True)
    now[0] = ALONE_AFTER_S
    desk.begin(now=0.5 * ALONE_AFTER_S)
    desk.station.bundles._look()
    assert waits == pytest.approx([ALONE_AFTER_S, 0.5 * ALONE_AFTER_S])
    assert not desk.alone
    now[0] = 2 * ALONE_AFTER_S
    desk.station.bundles._look()
    assert len(desk.alone) == 1


def test_every_bundle_is_watched(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[Any] = []
    monkeypatch.setattr(desk.station.reactor, "post", posted.append)
    watch = desk.station.bundles._look
    monkeypatch.setattr(desk.station.reactor, "after", lambda delay_s, callback: None)
    _, bundle = desk.begin()
    assert posted.count(watch) == 1
    desk.note(bundle, is_last=True)
    # whoever watched finds none, and goes
    desk.station.bundles._look()
    posted.clear()
    desk.begin()
    assert posted.count(watch) == 1


# --- real-time pieces ------------------------------------------------------------

URGENT = [[5, [0, 0.0], 0.0, b"urgent", 0]]
LEFT_TO_END = [[FIRST, [0, None], 0.0, b"piece", 0]]


def test_what_runs_is_asked_to_make_way_when_a_real_time_piece_comes(
    desk: Desk,
) -> None:
    desk.begin()
    desk.station._take_in(b"other", URGENT, (), {})
    assert desk.ways == [MakeWay((MANAGER, FIRST))]
    # the piece that goes on alone is asked for itself
    desk.station.bundles.cut()
    assert desk.ways == [MakeWay((MANAGER, FIRST))] * 2


def test_a_piece_that_is_left_to_end_is_not_asked(desk: Desk) -> None:
    desk.station._take_in(MANAGER, LEFT_TO_END, (), {})
    assert desk.station.take() is not None
    desk.station._take_in(b"other", URGENT, (), {})
    assert not desk.ways
    urgent = desk.station.take()
    assert urgent is not None
    assert urgent.payload == b"urgent"


def test_a_real_time_piece_that_may_wait_is_looked_after_in_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waits = [0.0], []
    clock = SimpleNamespace(monotonic=lambda: now[0])
    for name in ("arrivals", "station"):
        monkeypatch.setattr(f"opencluster.serving.{name}.time", clock)
    reactor = desk.station.reactor
    monkeypatch.setattr(reactor, "after", lambda delay_s, _: waits.append(delay_s))
    work, _ = desk.begin(members=1)
    desk.station.answer(work, Answer("done", b"", [], 1.0))
    desk.inbox.receive([Waiting(MANAGER, 77, data=(b"", ()))])
    desk.station.take()
    desk.station._take_in(b"other", [[5, [0, 2.0], 0.0, b"", 0]], (), {})
    assert (desk.ways, waits) == ([], [2.0])
    now[0] = 2.0
    desk.station._tick()
    assert desk.ways == [MakeWay((MANAGER, 77))]
