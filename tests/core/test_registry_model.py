"""Any events in any order: the registry against a model, and copies against it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from registry_tools import first_expiry

from opencluster.core.entries import Delta, Entry, with_attributes
from opencluster.core.epochs import Epoch
from opencluster.core.registry import Registry
from opencluster.core.replica import Fit, Replica
from opencluster.errors import RegistryError

LEASE_S = 10.0
MOST = 4
EPOCH = Epoch(1, 0, 7)

identities = st.sampled_from([f"w{number}" for number in range(6)])
entries = st.builds(
    lambda identity, kind, is_draining: with_attributes(
        Entry(identity, kind, type="T" if kind == "worker" else ""),
        is_draining=is_draining,
    ),
    identities,
    st.sampled_from(["worker", "workshop"]),
    st.booleans(),
)


@dataclass
class Follower:
    """A replica, and the deltas that are on their way to it."""

    replica: Replica = field(default_factory=Replica)
    mail: list[Delta] = field(default_factory=list)
    told: dict[str, Entry] = field(default_factory=dict)

    def tell(self, deltas: Iterable[Delta]) -> None:
        """Do what a manager does that holds what it was told of."""
        for delta in deltas:
            if delta.entry is None:
                del self.told[delta.id]
            else:
                self.told[delta.id] = delta.entry


class RegistryModel(RuleBasedStateMachine):
    """Entries live as long as their leases, and whoever follows knows them all."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.registry = Registry(LEASE_S, max_entries=MOST, jobs_kept=2)
        self.model: dict[str, tuple[Entry, float]] = {}
        self.figures: dict[str, bytes] = {}
        self.true = Follower()
        self.true.replica.load(EPOCH, self.registry.snapshot())
        self.lossy = Follower()
        self.copy = Registry(LEASE_S, max_entries=MOST, jobs_kept=2)

    def publish(self, deltas: list[Delta]) -> None:
        """Send deltas to the followers, as messages."""
        first = self.registry.revision - len(deltas) + 1
        assert [d.revision for d in deltas] == list(range(first, first + len(deltas)))
        for delta in deltas:
            copy = Delta.from_fields(delta.to_fields())
            assert copy == delta
            assert self.true.replica.apply(EPOCH, copy) is Fit.NEW
            assert self.copy.apply(self.now, copy)
            self.lossy.mail.append(copy)

    # --- what happens to the registry -----------------------------------------------

    @rule(entry=entries)
    def register(self, entry: Entry) -> None:
        old = self.model.get(entry.id)
        if old is None and len(self.model) == MOST:
            with pytest.raises(RegistryError):
                self.registry.register(self.now, entry)
            return
        deltas = self.registry.register(self.now, entry)
        is_news = old is None or old[0] != entry
        assert [(d.id, d.entry) for d in deltas] == [(entry.id, entry)] * is_news
        self.model[entry.id] = (entry, self.now + LEASE_S)
        self.publish(deltas)

    @rule(ids=st.lists(identities, max_size=4), pieces_done=st.integers(0, 9))
    def renew(self, ids: list[str], pieces_done: int) -> None:
        figures = f"{pieces_done} done".encode()
        unknown = self.registry.renew(self.now, ids, figures)
        assert unknown == [identity for identity in ids if identity not in self.model]
        for identity in set(ids) & set(self.model):
            self.model[identity] = (self.model[identity][0], self.now + LEASE_S)
        if ids and ids[0] in self.model:
            self.figures[ids[0]] = figures

    @rule(identity=identities)
    def remove(self, identity: str) -> None:
        deltas = self.registry.remove(identity, {"reason": "asked to"})
        is_here = self.model.pop(identity, None) is not None
        self.figures.pop(identity, None)
        assert [(d.id, d.entry) for d in deltas] == [(identity, None)] * is_here
        self.publish(deltas)

    @rule(seconds=st.sampled_from([0.5, 4.0, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        deltas = self.registry.expire(self.now)
        over = {i for i, (_, ends_at) in self.model.items() if ends_at <= self.now}
        assert {delta.id for delta in deltas} == over
        assert len(deltas) == len(over)
        for identity in over:
            del self.model[identity]
            self.figures.pop(identity, None)
        self.publish(deltas)

    @rule(job=st.integers(0, 5), state=st.sampled_from(["running", "done"]))
    def report_job(self, job: int, state: str) -> None:
        self.registry.report_job(self.now, {"id": str(job), "state": state})
        kept = {j["id"]: j["state"] for j in self.registry.snapshot()["jobs"]}
        assert kept[str(job)] == state

    # --- what happens to a follower whose messages get lost -------------------------

    @rule(number=st.integers(0, 3))
    def lose_mail(self, number: int) -> None:
        if number < len(self.lossy.mail):
            del self.lossy.mail[number]

    @rule(number=st.integers(0, 3))
    def repeat_mail(self, number: int) -> None:
        if number < len(self.lossy.mail):
            self.lossy.mail.append(self.lossy.mail[number])

    @rule()
    def read_mail(self) -> None:
        replica = self.lossy.replica
        mail, self.lossy.mail = self.lossy.mail, []
        for delta in mail:
            revision, before = replica.revision, dict(replica.entries)
            fit = replica.apply(EPOCH, delta)
            # it is refused exactly when it leaves a gap
            assert (fit is Fit.GAP) == (
                replica.epoch != EPOCH or delta.revision > revision + 1
            )
            if fit is Fit.NEW:
                assert delta.revision == revision + 1
                self.lossy.tell([delta] if delta.entry or delta.id in before else [])
                assert replica.revision == delta.revision
            else:
                assert (replica.revision, replica.entries) == (revision, before)

    @rule()
    def ask_for_a_snapshot(self) -> None:
        self.lossy.tell(self.lossy.replica.load(EPOCH, self.registry.snapshot()))
        assert self.lossy.replica.entries == self.expected()
        assert self.lossy.replica.revision == self.registry.revision

    # --- what happens to another factory --------------------------------------------

    @rule()
    def copy_anew(self) -> None:
        self.copy.restore(self.now, self.registry.snapshot())
        assert self.copy.snapshot()["figures"] == self.figures

    @rule(seconds=st.sampled_from([0.0, 4.0]))
    def let_the_copy_lead(self, seconds: float) -> None:
        self.now += seconds
        self.registry, self.copy = self.copy, Registry(LEASE_S, MOST, jobs_kept=2)
        self.registry.extend(self.now)
        self.copy.restore(self.now, self.registry.snapshot())
        self.figures = self.registry.snapshot()["figures"]
        self.model = {
            identity: (entry, self.now + LEASE_S)
            for identity, (entry, _) in self.model.items()
        }

    # --- what always holds ----------------------------------------------------------

    def expected(self) -> dict[str, Entry]:
        return {identity: entry for identity, (entry, _) in self.model.items()}

    @invariant()
    def registry_is_as_the_model(self) -> None:
        self.registry.check_invariants()
        found = {entry.id: entry for entry in self.registry.find()}
        assert found == self.expected()
        assert self.registry.snapshot()["figures"] == self.figures
        first = min((ends_at for _, ends_at in self.model.values()), default=None)
        assert first_expiry(self.registry) == first
        for identity in ("w0", "w5"):
            assert self.registry.get(identity) == self.expected().get(identity)

    @invariant()
    def replica_with_all_deltas_is_the_registry(self) -> None:
        assert self.true.replica.entries == self.expected()
        assert self.true.replica.revision == self.registry.revision

    @invariant()
    def copy_is_the_registry(self) -> None:
        self.copy.check_invariants()
        mine, others = self.registry.snapshot(), self.copy.snapshot()
        for part in ("revision", "entries", "deaths"):
            assert mine[part] == others[part]

    @invariant()
    def replica_that_is_up_to_date_is_the_registry(self) -> None:
        replica = self.lossy.replica
        assert replica.revision <= self.registry.revision
        if replica.revision == self.registry.revision:
            assert replica.entries == self.expected()
        assert self.lossy.told == replica.entries


RegistryModel.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestRegistryModel = RegistryModel.TestCase
