"""What a manager keeps of the registry: one epoch at a time, and no gaps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from opencluster.core.entries import Delta, Entry, with_attributes
from opencluster.core.epochs import NO_EPOCH, Epoch
from opencluster.core.registry import Registry
from opencluster.core.replica import Fit, Replica
from opencluster.errors import RegistryError

FIRST = Epoch(1, 0, 7)
SECOND = Epoch(2, 1, 8)
WORKER = Entry("w1", "worker", type="T", name="T-1")
SERVICE = Entry("e1", "service", type="ephemeris", name="ephemeris-1")
SHOP = Entry("s1", "workshop", name="node7")


def filled(*entries: Entry) -> Registry:
    registry = Registry()
    for entry in entries:
        registry.register(0.0, entry)
    return registry


def replica_of(registry: Registry, epoch: Epoch = FIRST) -> Replica:
    replica = Replica()
    replica.load(epoch, registry.snapshot())
    return replica


def test_replica_without_a_snapshot_refuses_changes() -> None:
    replica = Replica()
    assert replica.apply(FIRST, Delta(1, "w1", WORKER)) is Fit.GAP
    assert (replica.epoch, replica.entries) == (NO_EPOCH, {})


def test_replica_follows_by_changes() -> None:
    registry = Registry()
    replica = Replica()
    assert replica.load(FIRST, registry.snapshot()) == []
    assert replica.apply(FIRST, *registry.register(0.0, WORKER)) is Fit.NEW
    assert replica.apply(FIRST, *registry.register(0.0, SHOP)) is Fit.NEW
    assert replica.apply(FIRST, *registry.remove("w1")) is Fit.NEW
    assert replica.entries == {"s1": SHOP}
    assert replica.revision == registry.revision == 3


@pytest.mark.parametrize("revision", [0, 1, 2])
def test_change_that_is_here_already_is_known(revision: int) -> None:
    registry = filled(WORKER)
    registry.remove("w1")
    replica = replica_of(registry)
    assert replica.apply(FIRST, Delta(revision, "w1", WORKER)) is Fit.KNOWN
    assert (replica.revision, replica.entries) == (2, {})


@pytest.mark.parametrize(
    ("epoch", "revision"), [(FIRST, 3), (SECOND, 2), (Epoch(1, 0, 8), 2), (NO_EPOCH, 2)]
)
def test_gap_and_the_change_of_another_epoch_are_refused(
    epoch: Epoch, revision: int
) -> None:
    replica = replica_of(filled(WORKER))
    assert replica.apply(epoch, Delta(revision, "s1", SHOP)) is Fit.GAP
    assert (replica.epoch, replica.revision) == (FIRST, 1)
    assert replica.entries == {"w1": WORKER}


def test_removal_of_what_a_replica_lacks_is_a_revision_like_any() -> None:
    replica = replica_of(filled(WORKER))
    assert replica.apply(FIRST, Delta(2, "s1")) is Fit.NEW
    assert (replica.revision, replica.entries) == (2, {"w1": WORKER})


def test_snapshot_says_what_changed() -> None:
    replica = replica_of(filled(WORKER, SERVICE, SHOP))
    changed = with_attributes(WORKER, is_draining=True)
    newer = filled(SHOP, changed, replace(SERVICE, id="e2"), SHOP, SHOP)
    assert replica.load(FIRST, newer.snapshot()) == [
        Delta(3, "e1"),
        Delta(3, "w1", changed),
        Delta(3, "e2", replace(SERVICE, id="e2")),
    ]
    assert replica.entries == {entry.id: entry for entry in newer.find()}


def test_snapshot_of_a_newer_epoch_is_taken_whatever_its_revision() -> None:
    replica = replica_of(filled(WORKER, SHOP))
    deltas = replica.load(SECOND, Registry().snapshot())
    assert {delta.id: delta.entry for delta in deltas} == {"w1": None, "s1": None}
    assert (replica.epoch, replica.revision, replica.entries) == (SECOND, 0, {})


def test_snapshot_of_an_older_epoch_is_ignored() -> None:
    replica = replica_of(filled(WORKER), SECOND)
    assert replica.load(FIRST, filled(SHOP, SERVICE).snapshot()) == []
    assert (replica.epoch, replica.revision) == (SECOND, 1)
    assert replica.entries == {"w1": WORKER}


@pytest.mark.parametrize(
    "change",
    [
        {"entries": None},
        {"entries": {"w1": WORKER.to_fields()}},
        {"entries": [WORKER.to_fields(), {"id": "x"}]},
        {"revision": None},
        {"revision": "9"},
    ],
)
def test_malformed_snapshot_is_refused_and_changes_nothing(
    change: dict[str, Any],
) -> None:
    replica = replica_of(filled(WORKER))
    with pytest.raises(RegistryError):
        replica.load(SECOND, filled(SHOP, SERVICE).snapshot() | change)
    assert (replica.epoch, replica.revision) == (FIRST, 1)
    assert replica.entries == {"w1": WORKER}
