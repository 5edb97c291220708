"""What is made of samples: ratios, tables, verdicts, and back from JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import plan, targets
from bench.outcome import Outcome, Sample
from bench.peers import catalogue
from bench.peers.catalogue import OURS, PEERS
from bench.tasks import (
    Rooms,
    WrongAnswer,
    block_in_place,
    check,
    check_total,
    expected,
    fresh_block,
    total,
    touch,
)
from bench.versus import BEGIN, END, Comparison
from bench.workloads import WORKLOADS, choose, find

MPI = catalogue.find("mpi-static")
ZMQ = catalogue.find("zmq")
PIPE = catalogue.find("limit-pipe")


def outcome_of(*rows: tuple[str, str, int, int, str, float]) -> Outcome:
    """Return an outcome of (peer, workload, workers, round, opponent, value)."""
    outcome = Outcome()
    outcome.samples = [Sample(*row) for row in rows]
    return outcome


# --- tasks -----------------------------------------------------------------------


def test_each_block_has_a_sum_of_its_own() -> None:
    blocks = [fresh_block(number, 1000) for number in (1, 2, 257)]
    assert [touch(block) for block in blocks] == [2, 4, 2]
    assert [expected(number, 1000) for number in (1, 2, 257)] == [2, 4, 2]


@pytest.mark.parametrize(
    "sums",
    [
        [(0, 0), (1, 3)],
        [(0, 0)],
        [(0, 0), (1, 2), (1, 2)],
        [(0, 0), (1, 2), (2, 4)],
    ],
    ids=["wrong", "missing", "twice", "too many"],
)
def test_sums_that_are_wrong_are_refused(sums: list[tuple[int, int]]) -> None:
    check([(1, 2), (0, 0)], 2, 1000)
    with pytest.raises(WrongAnswer):
        check(sums, 2, 1000)


def test_memory_that_is_used_again_holds_each_block_for_as_long_as_it_has_to() -> None:
    rooms = Rooms(2)
    first, second = rooms.block(1, 1000), rooms.block(2, 1000)
    assert (touch(first), touch(second)) == (2, 4)
    third = rooms.block(3, 1000)
    assert np.shares_memory(third, first) and not np.shares_memory(third, second)
    assert (touch(third), touch(second)) == (6, 4)
    assert touch(rooms.block(4, 5000)) == expected(4, 5000)


def test_a_block_is_the_same_wherever_it_lies() -> None:
    for number in (3, 300):
        assert (block_in_place(number, 200_000) == fresh_block(number, 200_000)).all()


def test_a_sum_of_arrays_that_is_wrong_is_refused() -> None:
    arrays = [np.full(10, float(number)) for number in range(4)]
    joined = total(arrays, np.empty(10))
    check_total(joined, 4, 80)
    joined[7] += 1
    for array, size in ((joined, 80), (np.full(10, 6.0), 88)):
        with pytest.raises(WrongAnswer, match="the sum of 4 arrays"):
            check_total(array, 4, size)


# --- plans -----------------------------------------------------------------------


def test_who_begins_changes_from_round_to_round_and_from_peer_to_peer() -> None:
    places = plan.every([MPI, ZMQ], choose(["roundtrip"]), [1], [])
    bouts = plan.bouts(places, 2)
    assert [(b.round, b.opponent, b.is_ours_first) for b in bouts] == [
        (1, MPI, True),
        (1, ZMQ, False),
        (2, MPI, False),
        (2, ZMQ, True),
    ]


def test_peers_are_asked_only_for_what_they_can_do() -> None:
    chosen = choose(["pieces", "submits", "crowd"])
    places = plan.every([ZMQ, PIPE], chosen, [1, 2], [16])
    pieces, submits, crowd = chosen
    assert places == {
        (1, False): [(ZMQ, (pieces,)), (PIPE, (pieces,)), (None, (submits,))],
        # a pipe has two ends
        (2, False): [(ZMQ, (pieces,)), (None, (submits,))],
        (16, True): [(None, (crowd,))],
    }


def test_other_ways_to_use_opencluster_are_measured_where_they_differ() -> None:
    gathering = catalogue.find("opencluster-gather").load()
    assert gathering.can("joined") and not gathering.can("spread")
    # who has all the methods, and is to use some of them
    assert not catalogue.find("opencluster-curve").load().can("blocks_in_place")
    assert catalogue.find(OURS).load().can("blocks_in_place")


def test_every_peer_of_the_catalogue_can_be_loaded_and_does_some_workload() -> None:
    for listing in PEERS:
        assert any(listing.load().can(w.asks) for w in WORKLOADS), listing.name


def test_families_and_names_choose_peers_in_the_order_of_the_catalogue() -> None:
    assert [x.name for x in catalogue.choose(["zmq", "ray"])] == [
        "ray-tasks",
        "ray-actors",
        "zmq",
    ]
    assert catalogue.choose(["all"]) == list(PEERS)
    with pytest.raises(catalogue.UnknownPeer, match="'dusk' is no peer"):
        catalogue.choose(["dusk"])


# --- ratios and tables -----------------------------------------------------------


def test_above_one_means_that_opencluster_was_better_in_the_same_bout() -> None:
    outcome = outcome_of(
        (OURS, "roundtrip", 1, 1, "zmq", 50.0),
        ("zmq", "roundtrip", 1, 1, "zmq", 100.0),
        (OURS, "pieces", 1, 1, "zmq", 50.0),
        ("zmq", "pieces", 1, 1, "zmq", 100.0),
        # against another peer, and with nothing to compare with
        (OURS, "pieces", 1, 1, "mpi-static", 1e9),
        ("zmq", "pieces", 1, 2, "zmq", 1.0),
    )
    assert outcome.ratios("zmq", "roundtrip", 1) == [2.0]
    assert outcome.ratios("zmq", "pieces", 1) == [0.5]


def test_rows_begin_with_the_best() -> None:
    outcome = outcome_of(
        *(
            (peer, workload, 1, 1, "zmq", value)
            for workload in ("roundtrip", "pieces")
            for peer, value in ((OURS, 2.0), ("zmq", 1.0))
        )
    )
    ranked = [(row.workload.name, row.peer) for row in outcome.rows()]
    assert ranked == [
        ("roundtrip", "zmq"),
        ("roundtrip", OURS),
        ("pieces", OURS),
        ("pieces", "zmq"),
    ]


def test_a_reader_is_told_where_mpi_is_no_fair_race() -> None:
    def notes(workers: int) -> str:
        outcome = outcome_of(("mpi-static", "pieces", workers, 1, "mpi-static", 1.0))
        return " ".join(outcome.notes(cores=2))

    assert "more ranks than" not in notes(1)
    assert "with 2 workers have more ranks than the 2 cores" in notes(2)


def test_json_has_everything_that_is_needed_to_go_on(tmp_path: Path) -> None:
    outcome = outcome_of((OURS, "pieces", 2, 1, "zmq", 7.0))
    outcome.leave_out("dask", "the start with 2 workers", "it is asleep")
    path = tmp_path / "out.json"
    Comparison("a command", "2024-05-31", {"cores": 2}, outcome).write_json(path)
    fields = json.loads(path.read_text())
    again = Outcome.from_fields(fields)
    assert (again.samples, again.left_out) == (outcome.samples, outcome.left_out)
    assert fields["rows"][0]["median"] == 7.0


def test_a_page_gets_the_comparison_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n")
    outcome = outcome_of(
        *(
            (peer, "figure8", 1, 1, "zmq", value, 1, at)
            for peer, value, at in ((OURS, 2.0, 10), (OURS, 5.0, 30), ("zmq", 1.0, 10))
        )
    )
    Comparison("a command", "2024-05-31", {"cores": 2}, outcome).write_markdown(page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "stale" not in text
    # the largest number of blocks that both have
    assert "| zmq, 10 blocks | 1.00 [1.00-1.00] | s | 0.50 x [0.50-0.50] |" in text
    assert "30 blocks" not in text


# --- targets ---------------------------------------------------------------------


def test_against_variants_the_one_counts_that_does_best() -> None:
    target = targets.Target("blocks-100k", 1, 1.0, peers=targets.MPI)
    outcome = outcome_of(
        (OURS, "blocks-100k", 1, 1, "mpi-farm", 30.0),
        ("mpi-farm", "blocks-100k", 1, 1, "mpi-farm", 10.0),
        (OURS, "blocks-100k", 1, 1, "mpi-static", 18.0),
        ("mpi-static", "blocks-100k", 1, 1, "mpi-static", 20.0),
    )
    verdict = targets.judge(target, outcome)
    assert (verdict.peer, verdict.ours, verdict.theirs) == ("mpi-static", 18.0, 20.0)
    assert verdict.ratio == 0.9
    assert verdict.is_met is False


@pytest.mark.parametrize(("ours", "is_met"), [(47.0, True), (49.0, False)])
def test_at_most_so_many_times_as_long(ours: float, is_met: bool) -> None:
    target = targets.Target("roundtrip", 1, 1.2, True, ("zmq",))
    outcome = outcome_of(
        (OURS, "roundtrip", 1, 1, "zmq", ours),
        ("zmq", "roundtrip", 1, 1, "zmq", 40.0),
    )
    verdict = targets.judge(target, outcome)
    assert verdict.ratio == pytest.approx(ours / 40)
    assert verdict.is_met is is_met


def test_against_itself_rounds_are_compared_with_their_own() -> None:
    target = targets.Target("pieces", 16, 0.7, against_workers=2)
    outcome = outcome_of(
        (OURS, "pieces", 2, 1, "dask-tuned", 100.0),
        (OURS, "pieces", 16, 1, "dask-tuned", 80.0),
        (OURS, "pieces", 2, 2, "dask-tuned", 10.0),
        (OURS, "pieces", 16, 2, "dask-tuned", 8.0),
    )
    verdict = targets.judge(target, outcome)
    assert verdict.ratio == pytest.approx(0.8)
    assert verdict.is_met is True


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    for target in targets.TARGETS:
        verdict = targets.judge(target, Outcome())
        assert verdict.is_met is None
        assert verdict.cells[-1] == "not measured"


def test_all_targets_are_of_workloads_that_there_are_and_get_their_bouts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue.Listing, "lacking", lambda self: "")
    places = targets.places(targets.TARGETS, targets.BESIDE)
    for name, workers, peers in targets.BESIDE:
        here = places[workers, find(name).is_packed]
        assert {p.name for p, both in here if p and find(name) in both} >= set(peers)
        assert any(find(name) in both for _, both in here)
    for target in targets.TARGETS:
        workload = find(target.workload)
        here = places[target.workers, workload.is_packed]
        opponents = {peer.name for peer, both in here if peer and workload in both}
        assert opponents >= set(target.peers)
        assert any(workload in both for _, both in here)
