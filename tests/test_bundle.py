"""Bundles in workers: whatever happens to one piece, the others do not feel it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_programs import ARRAY_BYTES, DEADLINE_S, TARGET, counts, runs

from opencluster import WorkPiece
from opencluster.config import load
from opencluster.core.crew import Crew
from opencluster.core.dispatch import Dispatch, Effect, Piece
from opencluster.engines.base import Options, Outcome
from opencluster.engines.cluster import ClusterEngine, connect
from opencluster.engines.tickets import BUNDLE_BYTES
from opencluster.errors import (
    Interrupted,
    PieceCancelled,
    PieceFailed,
    PoisonPiece,
)
from opencluster.serving.bundle import ENOUGH_BYTES
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes

SIZE = 8
"""Pieces of a bundle, however long they take."""
MAX_KILLS = 2
MAX_PIECES = 5
FAST = {
    "cluster.heartbeat_interval_s": 0.2,
    "worker.interrupt_grace_s": 0.3,
    "worker.kill_grace_s": 0.5,
    "workshop.poll_interval_s": 0.1,
    "workshop.restart_delay_s": 0.05,
    "workshop.restart_delay_max_s": 0.1,
    "manager.max_kills": MAX_KILLS,
    "manager.worker_wait_s": 20,
}


class Client:
    """A manager that sends its pieces in bundles, and what it was answered.

    ``answers`` has, of each answer to a bundle, its number, how many of its pieces were
    over, and whether the next one ran on; ``sizes`` how many pieces each bundle had,
    or piece by itself, when it was handed in.
    """

    def __init__(self, engine: ClusterEngine, log: Path) -> None:
        self.engine = engine
        self.log = log
        self.answers: list[tuple[int, int, bool]] = []
        self.sizes: list[int] = []
        self._outcomes: dict[int, Outcome] = {}
        self._places: dict[int, int] = {}

    def done(self, number: int, outcome: Outcome) -> None:
        assert number not in self._outcomes
        self._outcomes[number] = outcome

    def submit(self, count: int, type: str = "Bundle", **odd: Any) -> list[int]:
        """Have pieces performed; ``pN`` is what the one with the number N says."""
        works = [
            WorkPiece(n=n, log=str(self.log), **odd.get(f"p{n}", {}))
            for n in range(count)
        ]
        options = Options(retries=5)
        numbers = self.engine.submit(type, [(w, options) for w in works], self.done)
        self._places.update(zip(numbers, range(count), strict=True))
        return numbers

    def wait(self, *numbers: int) -> list[Outcome]:
        wanted = set(numbers)
        assert self.engine.wait(lambda: wanted <= self._outcomes.keys(), DEADLINE_S), (
            f"no outcome of {wanted - self._outcomes.keys()}"
        )
        return [self._outcomes[number] for number in numbers]

    def check(self, *numbers: int) -> None:
        """Wait for what was performed as it should."""
        values = [outcome.value() for outcome in self.wait(*numbers)]
        assert [value["n"] for value in values] == [self._places[n] for n in numbers]

    def until_begun(self, n: int) -> None:
        assert self.engine.wait(lambda: n in counts(self.log), DEADLINE_S)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[LocalCluster]:
    with LocalCluster({f"{TARGET}:BundleWorker": 2}, FAST) as here:
        yield here


@pytest.fixture
def one_worker() -> Iterator[LocalCluster]:
    settings = FAST | {"worker.max_pieces": MAX_PIECES}
    with LocalCluster({f"{TARGET}:BundleWorker": 1}, settings) as here:
        yield here


def client_of(
    here: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    engine = connect(load(), here.place)
    client = Client(engine, tmp_path / "log")
    bundle_done = Dispatch.bundle_done

    def noted(self: Dispatch, *args: Any) -> list[Effect]:
        client.answers.append((args[2], args[3], args[5]))
        return bundle_done(self, *args)

    monkeypatch.setattr(Dispatch, "bundle_done", noted)
    submit = Dispatch.submit

    def handed_in(self: Dispatch, now: float, pieces: Iterable[Piece]) -> list[Effect]:
        pieces = list(pieces)
        client.sizes += [piece.count for piece in pieces]
        return submit(self, now, pieces)

    monkeypatch.setattr(Dispatch, "submit", handed_in)
    # of a type that nothing was sent to yet, nobody is known
    engine.workers("Bundle", DEADLINE_S)
    client.check(*client.submit(1))
    client.log.unlink()
    client.sizes.clear()
    monkeypatch.setattr(Crew, "bundle_size", property(lambda self: SIZE))
    yield client
    engine.close()


@pytest.fixture
def client(
    two_workers: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    yield from client_of(two_workers, tmp_path, monkeypatch)


def test_pieces_of_bundles_are_performed_once_each(client: Client) -> None:
    client.check(*client.submit(5 * SIZE + 3))
    assert counts(client.log) == dict.fromkeys(range(5 * SIZE + 3), 1)
    assert len({first for first, _, _ in client.answers}) == 6


def blocks(count: int, nbytes: int) -> dict[str, Any]:
    """Return arrays for pieces, of which each has another sum."""
    return {f"p{n}": {"block": np.full(nbytes, n, np.uint8)} for n in range(count)}


def totals(client: Client, numbers: list[int]) -> list[int | None]:
    return [outcome.value()["total"] for outcome in client.wait(*numbers)]


@pytest.mark.parametrize("nbytes", [5_000, 100_000])
def test_arrays_travel_in_bundles(client: Client, nbytes: int) -> None:
    count = 3 * SIZE
    odd = blocks(count, nbytes)
    for n in range(0, count, 5):
        del odd[f"p{n}"]
    numbers = client.submit(count, **odd)
    expected = [n * nbytes if n % 5 else None for n in range(count)]
    assert totals(client, numbers) == expected
    assert client.sizes == [SIZE] * 3
    assert counts(client.log) == dict.fromkeys(range(count), 1)


def test_arrays_travel_in_bundles_through_sockets_too(
    two_workers: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLUSTER_NETWORK_EXPRESS_LANE", "false")
    for client in client_of(two_workers, tmp_path, monkeypatch):
        numbers = client.submit(2 * SIZE, **blocks(2 * SIZE, 100_000))
        assert totals(client, numbers) == [n * 100_000 for n in range(2 * SIZE)]
        assert client.sizes == [SIZE] * 2


def test_a_bundle_has_no_more_arrays_than_are_copied_in_no_time(client: Client) -> None:
    count, nbytes = SIZE, BUNDLE_BYTES // 4
    odd = blocks(count, nbytes)
    odd["p5"] = {"block": np.full(2 * BUNDLE_BYTES, 1, np.uint8)}
    numbers = client.submit(count, **odd)
    expected = [n * nbytes for n in range(count)]
    expected[5] = 2 * BUNDLE_BYTES
    assert totals(client, numbers) == expected
    # the large one goes alone, and what follows it begins a bundle
    assert client.sizes == [3, 2, 1, 2]


def test_arrays_of_a_bundle_stay_as_long_as_somebody_has_them(client: Client) -> None:
    for _ in range(4):
        odd = blocks(SIZE, 100_000)
        for n in range(0, SIZE, 2):
            odd[f"p{n}"]["do"] = "keep_block"
        outcomes = client.wait(*client.submit(SIZE, **odd))
        assert all(outcome.value()["is_well"] for outcome in outcomes[::2])


@pytest.mark.parametrize("does", ["die_once", "drain", "until_told", "wait_for"])
def test_arrays_go_to_whoever_does_what_was_left_of_a_bundle(
    client: Client, does: str
) -> None:
    nbytes = 100_000
    odd = blocks(SIZE, nbytes)
    odd["p3"] |= {"do": does, "path": "/dev/null"}
    numbers = client.submit(SIZE, **odd)
    if does == "until_told":
        client.until_begun(3)
        client.engine.interrupt([numbers[3]])
        client.wait(numbers.pop(3))
    expected = {client._places[number] * nbytes for number in numbers}
    assert set(totals(client, numbers)) == expected


def test_a_piece_that_fails_hurts_only_itself(client: Client) -> None:
    does = ("fail", "exit", "nothing", "unsendable")
    odd = {f"p{n}": {"do": do} for n, do in enumerate(does, start=2)}
    numbers = client.submit(SIZE, **odd)
    client.check(*numbers[:2], *numbers[6:])
    errors = [outcome.error for outcome in client.wait(*numbers[2:6])]
    assert all(isinstance(error, PieceFailed) for error in errors)
    texts = ("not 2", "the code called exit: 3", "WorkPiece, not NoneType", "object")
    for error, text in zip(errors, texts, strict=True):
        assert text in str(error) and error.worker.startswith("Bundle-")
    assert counts(client.log) == dict.fromkeys(range(SIZE), 1)


def test_large_results_are_not_kept_back(client: Client) -> None:
    count = 3 * SIZE
    odd = {f"p{n}": {"do": "array"} for n in range(count) if n % SIZE != 3}
    numbers = client.submit(count, **odd)
    for n, outcome in enumerate(client.wait(*numbers)):
        value = outcome.value()
        array = value["array"] if n % SIZE != 3 else None
        assert value["n"] == n if array is None else (array == n).all()
    assert counts(client.log) == dict.fromkeys(range(count), 1)
    assert max(done for _, done, _ in client.answers) <= ENOUGH_BYTES // ARRAY_BYTES + 2


def test_memory_that_is_used_again_changes_no_result_that_waits(
    client: Client,
) -> None:
    count = 2 * SIZE
    work = {f"p{n}": {"do": "same_array"} for n in range(count)}
    numbers = client.submit(count, **work)
    for n, outcome in enumerate(client.wait(*numbers)):
        assert (outcome.value()["array"] == n).all()


def test_a_slow_piece_is_left_alone_and_the_others_are_done_elsewhere(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "go"
    numbers = client.submit(SIZE, p3={"do": "wait_for", "path": str(path)})
    # it waits for the others
    client.check(*numbers[:3], *numbers[4:])
    path.touch()
    client.check(numbers[3])
    pid_of = dict(runs(client.log))
    assert all(pid_of[n] != pid_of[3] for n in range(4, SIZE))
    assert counts(client.log) == dict.fromkeys(range(SIZE), 1)


def test_all_of_a_bundle_may_be_slow(client: Client) -> None:
    odd = {f"p{n}": {"do": "wait_for", "path": "/dev/null"} for n in range(SIZE)}
    client.check(*client.submit(SIZE, **odd))
    assert counts(client.log) == dict.fromkeys(range(SIZE), 1)


def test_pieces_of_a_bundle_may_report_progress(client: Client) -> None:
    odd = {f"p{n}": {"do": "report"} for n in range(0, 2 * SIZE, 2)}
    client.check(*client.submit(2 * SIZE, **odd))


def test_the_piece_of_a_bundle_that_runs_is_interrupted_alone(client: Client) -> None:
    numbers = client.submit(SIZE, p3={"do": "until_told"})
    client.until_begun(3)
    client.engine.interrupt([numbers[3]])
    (outcome,) = client.wait(numbers[3])
    assert isinstance(outcome.error, Interrupted)
    assert outcome.error.args[0].startswith("the piece was interrupted on Bundle-")
    client.check(*numbers[:3], *numbers[4:])
    assert counts(client.log) == dict.fromkeys(range(SIZE), 1)


def test_what_a_worker_runs_is_interrupted_in_a_bundle_too(
    two_workers: LocalCluster, client: Client
) -> None:
    numbers = client.submit(SIZE, p3={"do": "until_told"})
    client.until_begun(3)
    pid = dict(runs(client.log))[3]
    found = two_workers.ask_factory("find", {"kind": "worker", "type": "Bundle"})
    (worker,) = (entry["id"] for entry in found if entry["pid"] == pid)
    client.engine.interrupt_worker(worker)
    (outcome,) = client.wait(numbers[3])
    assert isinstance(outcome.error, Interrupted)
    client.check(*numbers[:3], *numbers[4:])


def test_a_piece_that_ignores_its_interrupt_is_ended_with_its_worker(
    client: Client,
) -> None:
    numbers = client.submit(SIZE, p3={"do": "hold_gil", "s": 2 * DEADLINE_S})
    client.until_begun(3)
    client.engine.interrupt([numbers[3]])
    (outcome,) = client.wait(numbers[3])
    assert isinstance(outcome.error, Interrupted)
    client.check(*numbers[:3], *numbers[4:])
    assert counts(client.log)[3] == 1


def test_a_piece_is_not_ended_for_another_that_was_cancelled(client: Client) -> None:
    config = client.engine.config.worker
    patience_s = config.interrupt_grace_s + config.kill_grace_s + 1.0
    numbers = client.submit(SIZE, p3={"do": "hold_gil", "s": patience_s + 1.0})
    client.until_begun(3)
    client.engine.cancel([numbers[6]])
    client.check(*numbers[:6], numbers[7])
    assert counts(client.log) == dict.fromkeys({*range(SIZE)} - {6}, 1)


def test_a_cancelled_piece_does_not_run_and_the_others_do(client: Client) -> None:
    numbers = client.submit(SIZE, p3={"do": "until_told"}, p6={"do": "die"})
    client.until_begun(3)
    client.engine.cancel([numbers[3], numbers[6]])
    for outcome in client.wait(numbers[3], numbers[6]):
        assert isinstance(outcome.error, PieceCancelled)
    client.check(*numbers[:3], *numbers[4:6], numbers[7])
    assert 6 not in counts(client.log)


def test_a_bundle_is_cancelled_as_a_whole(client: Client) -> None:
    numbers = client.submit(SIZE, p3={"do": "until_told"})
    client.until_begun(3)
    client.engine.cancel(numbers)
    client.wait(*numbers)
    assert client.engine.wait(lambda: client.engine._desk.dispatch.is_idle, DEADLINE_S)
    assert max(counts(client.log)) == 3
    client.check(*client.submit(2 * SIZE))


def test_a_worker_that_is_to_end_performs_nothing_twice(client: Client) -> None:
    numbers = client.submit(6 * SIZE, p3={"do": "drain"}, p20={"do": "drain"})
    client.check(*numbers)
    assert counts(client.log) == dict.fromkeys(range(6 * SIZE), 1)


def test_every_piece_of_a_worker_that_was_killed_has_its_result(client: Client) -> None:
    numbers = client.submit(6 * SIZE, p3={"do": "die_once"})
    client.check(*numbers)
    begun = counts(client.log)
    assert begun[3] == 2
    # of what is not of its bundle nothing ran twice
    assert all(begun[n] == 1 for n in range(4, 6 * SIZE))


def test_a_poisonous_piece_is_quarantined_and_its_neighbours_are_well(
    client: Client,
) -> None:
    numbers = client.submit(2 * SIZE, p3={"do": "die"})
    (outcome,) = client.wait(numbers[3])
    assert isinstance(outcome.error, PoisonPiece)
    assert len(outcome.error.deaths) == MAX_KILLS
    assert outcome.error.worker.startswith("Bundle-")
    client.check(*numbers[:3], *numbers[4:])
    assert counts(client.log)[3] == MAX_KILLS


def test_a_worker_performs_as_many_pieces_as_it_may_and_no_more(
    one_worker: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for client in client_of(one_worker, tmp_path, monkeypatch):
        count = 2 * MAX_PIECES - 1
        client.check(*client.submit(count))
        assert counts(client.log) == dict.fromkeys(range(count), 1)
        # the first did one before, by which it was known that it is there
        by_process = Counter(pid for _, pid in runs(client.log))
        assert list(by_process.values()) == [MAX_PIECES - 1, MAX_PIECES]
