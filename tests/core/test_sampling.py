"""Samples add up computers as an operator would."""

from __future__ import annotations

import copy

import pytest

from opencluster.core.sampling import CLUSTER, FIELDS, samples_of
from opencluster.observe.status import status_of


def cluster() -> dict[str, list[dict[str, object]]]:
    """Return two computers, of 4 and 12 processors, with three workers."""
    base = {"type": "", "host": "h", "pid": 1, "endpoints": [], "attributes": {}}
    shops = [
        base | {"kind": "workshop", "id": n, "name": f"node{n}", "workshop": ""}
        for n in "12"
    ]
    workers = [
        base | {"kind": "worker", "id": f"w{n}", "name": f"W-{n}", "workshop": shop}
        for n, shop in enumerate("112")
    ]
    gpu = {"uuid": "g", "utilization_percent": 50}
    gpu |= {"memory_total_bytes": 80, "memory_used_bytes": 20}
    figures = {
        "1": {"cpu_percent": 100.0, "cpu_count": 4, "memory_used_bytes": 10},
        "2": {"cpu_percent": 20.0, "cpu_count": 12, "memory_used_bytes": 5},
        "w0": {"state": "busy", "piece": "a:1", "pieces_done": 10},
        "w2": {"state": "lost", "pieces_done": 4, "pieces_failed": 3},
    }
    figures["2"]["gpus"] = [gpu]
    return status_of({"entries": [*shops, *workers], "figures": figures})


def test_processors_count_by_their_number() -> None:
    samples = samples_of(cluster())
    assert set(samples) == {CLUSTER, "node1", "node2"}
    assert samples["node1"]["cpu"] == 1.0
    assert samples[CLUSTER]["cpu"] == pytest.approx((4 * 1.0 + 12 * 0.2) / 16)
    assert samples[CLUSTER]["memory"] == 15
    assert (samples["node2"]["gpu"], samples["node2"]["gpu_memory"]) == (0.5, 0.25)
    assert samples[CLUSTER]["gpu"] == 0.5
    assert all(set(FIELDS) <= set(sample) for sample in samples.values())


def test_workers_count_for_their_computer() -> None:
    samples = samples_of(cluster())
    counts = {
        name: (sample["workers"], sample["busy"], sample["lost"])
        for name, sample in samples.items()
    }
    assert counts == {CLUSTER: (3, 1, 1), "node1": (2, 1, 0), "node2": (1, 0, 1)}


def test_rates_are_between_two_looks() -> None:
    before, after = cluster(), cluster()
    assert samples_of(after)[CLUSTER]["pieces"] == 0.0
    after["workers"][0]["pieces_done"] = 30
    after["workers"][2]["pieces_failed"] = 5
    samples = samples_of(after, before, elapsed_s=2.0)
    assert samples["node1"]["pieces"] == 10.0
    assert samples[CLUSTER]["pieces"] == 10.0
    assert samples[CLUSTER]["failures"] == 1.0


def test_a_worker_that_was_replaced_takes_no_pieces_back() -> None:
    before, after = cluster(), cluster()
    after["workers"][0]["pieces_done"] = 0
    assert samples_of(after, before, 1.0)[CLUSTER]["pieces"] == 0.0
    new = copy.deepcopy(after["workers"][0]) | {"id": "w9", "pieces_done": 7}
    after["workers"][0] = new
    assert samples_of(after, before, 1.0)[CLUSTER]["pieces"] == 7.0


def test_a_cluster_without_anybody_has_a_sample() -> None:
    assert set(samples_of(status_of({}))[CLUSTER].values()) == {0}
