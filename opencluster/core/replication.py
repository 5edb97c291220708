"""What a factory does: it leads and changes the registry, or follows and copies it.

Joins `core.election` to `core.registry`. Rules that this module keeps:

1. Only a leader changes the registry, and only while its election lets it; everyone
   else says who leads.
2. The registry of a follower that is in step is, at each moment, what that of its
   leader was at some revision of the same epoch.
3. A follower answers what is only read, and says how old its answer may be.
4. A new leader gives everyone a whole lease: it has not heard them until now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opencluster.core.election import (
    Effect as ElectionEffect,
)
from opencluster.core.election import (
    Election,
    Follow,
    Lead,
    Role,
    SaveEpochs,
    SendMessage,
    StepDown,
)
from opencluster.core.entries import Delta, Entry
from opencluster.core.epochs import MAX_CLAIM, MAX_JUMP, Epoch
from opencluster.core.factory_messages import (
    Beat,
    Change,
    Heard,
    JobNote,
    Message,
    Snapshot,
    Subscribe,
    highest_number,
)
from opencluster.core.registry import Registry
from opencluster.errors import NotLeader, RegistryError

MAX_FOLLOWERS = 64
"""Factories that follow and of which a leader knows, those of its list not counted."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell everyone who follows the registry of a change that this leader made."""

    epoch: Epoch
    delta: Delta


Effect = SendMessage | SaveEpochs | Lead | Follow | StepDown | Publish


@dataclass(frozen=True, slots=True)
class FollowerState:
    """What a leader knows of another factory.

    Attributes
    ----------
    heard_at : float
        When it last said that it heard a beat, in seconds.
    revision : int
        Of its registry then.
    about : mapping
        What it says about itself.
    """

    heard_at: float
    revision: int
    about: Mapping[str, Any]


class ReplicatedRegistry:
    """One factory's registry, as leader or as follower.

    Parameters
    ----------
    election : Election
        Its part in the election.
    registry : Registry
        What it knows; empty at first.
    about : mapping, optional
        What it says about itself to its leader, for people.
    """

    def __init__(
        self,
        election: Election,
        registry: Registry,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.election = election
        self.registry = registry
        self.about = dict(about or {})
        self.followers: dict[str, FollowerState] = {}
        self._subscribed: dict[str, Mapping[str, Any]] = {}
        self._is_in_step = False
        self._asked_at = 0.0
        self._synced_at: float | None = None

    # --- events --------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Begin to look for a leader."""
        return self._settle(now, self.election.start(now))

    def tick(self, now: float) -> list[Effect]:
        """Do what the passing of time brings about."""
        effects = self._settle(now, self.election.tick(now))
        is_out_of_step = self.election.role is Role.FOLLOWING and not self._is_in_step
        # a large snapshot takes its time; one that never comes was lost
        if is_out_of_step and now - self._asked_at > self.election.timeout_s:
            effects += self._subscribe(now)
        return effects

    def receive(self, now: float, sender: str, message: Message) -> list[Effect]:
        """Take in a message of another factory.

        Raises
        ------
        RegistryError
            When it speaks of a number that no elections can have reached.
        """
        number = highest_number(message)
        if number > self.election.seen + MAX_JUMP:
            raise RegistryError(f"no elections can have reached the number {number}")
        match message:
            case Subscribe(led=led, about=about):
                effects = self.observe(now)
                return effects + self._take_subscriber(now, sender, led, about)
            case Snapshot(led=led, content=content):
                return [*self.observe(now), *self._take_copy(now, sender, led, content)]
            case Change(led=led, delta=delta):
                return [*self.observe(now), *self._take_change(now, sender, led, delta)]
            case JobNote(led=led, job=job):
                effects = self.observe(now)
                if self._is_from_leader(sender, led):
                    self.registry.report_job(now, job)
                return effects
            case _:
                effects = self._settle(now, self.election.receive(now, sender, message))
                return effects + self._note(now, sender, message)

    def claimed(self, now: float, epoch: Epoch) -> list[Effect]:
        """Take in an epoch that a client knows to have led, unless it is absurd."""
        if epoch.number > self.election.seen + MAX_CLAIM:
            return []
        return self._settle(now, self.election.claimed(now, epoch))

    def peer_lost(self, now: float, name: str) -> list[Effect]:
        """Take note that the connection to a factory broke."""
        self._subscribed.pop(name, None)
        return self._settle(now, self.election.peer_lost(now, name))

    def peer_connected(self, now: float, name: str) -> list[Effect]:
        """Take note that the connection to a factory stands."""
        return self._settle(now, self.election.peer_connected(now, name))

    def saved(self, now: float, epoch: Epoch) -> list[Effect]:
        """Use an epoch that is on disk now."""
        return self._settle(now, self.election.saved(now, epoch))

    def not_saved(self, now: float) -> list[Effect]:
        """Leave it to the others to lead: this one cannot save its epoch."""
        return self._settle(now, self.election.not_saved(now))

    def resign(self, now: float) -> list[Effect]:
        """Leave in good order."""
        return self._settle(now, self.election.resign(now))

    def observe(self, now: float) -> list[Effect]:
        """Find out whether this factory still leads; to be done before it writes."""
        return self._settle(now, self.election.observe(now))

    # --- writes --------------------------------------------------------------

    def register(
        self, now: float, entries: Iterable[Entry], client: str = ""
    ) -> list[Effect]:
        """Add entries, or renew those that are here already, unchanged."""
        self.check_leading(now)
        return [
            effect
            for entry in entries
            for effect in self._changed(self.registry.register(now, entry, client))
        ]

    def renew(
        self,
        now: float,
        ids: Sequence[str],
        figures: bytes = b"",
        owner: str | None = None,
    ) -> list[str]:
        """Renew leases, and return those that should register again."""
        self.check_leading(now)
        return self.registry.renew(now, ids, figures, owner)

    def remove(
        self,
        now: float,
        identity: str,
        cause: Mapping[str, Any] | None,
        at: float,
        owner: str | None = None,
    ) -> list[Effect]:
        """Take an entry out."""
        self.check_leading(now)
        return self._changed(self.registry.remove(identity, cause, at, owner))

    def report_job(self, now: float, job: Mapping[str, Any]) -> list[Effect]:
        """Take in the statistics of a job."""
        self.check_leading(now)
        # what is ordered for a job is not for its manager to say
        said = {name: value for name, value in job.items() if name != "orders"}
        self.registry.report_job(now, said)
        return self._note_job(said)

    def order_job(
        self, now: float, identity: Any, order: Any, value: Any, by: str, at: float
    ) -> list[Effect]:
        """Note what somebody orders for a job, until its manager reports it again.

        Raises
        ------
        RegistryError
            When there is no such job or order, or nobody could carry it out.
        """
        self.check_leading(now)
        return self._note_job(self.registry.order_job(identity, order, value, by, at))

    def expire(self, now: float, at: float) -> list[Effect]:
        """Take out every entry whose lease is over; a follower leaves that alone."""
        effects = self.observe(now)
        if not self.election.may_write(now):
            return effects
        return effects + self._changed(self.registry.expire(now, at))

    # --- questions -----------------------------------------------------------

    def age_s(self, now: float) -> float | None:
        """Return how old what is known here is, or ``None`` when that is nothing.

        What a leader knows is of this moment. A follower counts since it heard a beat
        of its leader while it had everything; how long that beat was on its way is not
        known and not counted.
        """
        if self.election.may_write(now):
            return 0.0
        return None if self._synced_at is None else max(0.0, now - self._synced_at)

    def check_leading(self, now: float) -> None:
        """Refuse what only a leader may do.

        Raises
        ------
        NotLeader
            When another one leads, or none.
        """
        if not self.election.may_write(now):
            raise self._not_leader()

    def check_readable(self, now: float) -> None:
        """Refuse a question to a factory that knows nothing yet.

        Raises
        ------
        NotLeader
            When there is nothing here.
        """
        if self.age_s(now) is None:
            raise self._not_leader()

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        self.election.check_invariants()
        self.registry.check_invariants()
        assert not self._is_in_step or self.election.role is Role.FOLLOWING
        assert not self._subscribed or self.election.role is Role.LEADING
        assert self._subscribed.keys() <= self.followers.keys()
        assert len(self._joined) <= MAX_FOLLOWERS
        assert not self.election.copy.is_newer_than(self.election.led)

    @property
    def is_in_step(self) -> bool:
        """Whether this follower has a copy of its leader's registry."""
        return self._is_in_step

    # --- inside --------------------------------------------------------------

    def _not_leader(self) -> NotLeader:
        leader = self.election.said_to_lead
        leader = "" if leader == self.election.me else leader
        where = f"the leader is {leader}" if leader else "no leader is known"
        return NotLeader(f"this factory does not lead; {where}", leader)

    def _settle(self, now: float, effects: Sequence[ElectionEffect]) -> list[Effect]:
        """Let the registry follow what the election decided."""
        settled: list[Effect] = []
        for effect in effects:
            settled.append(effect)
            match effect:
                case Lead(epoch=epoch):
                    self._reset()
                    self.registry.extend(now)
                    self.election.copy = epoch
                case Follow():
                    self._reset()
                    settled += self._subscribe(now)
                case StepDown():
                    self._reset()
                case _:
                    pass
        if self.election.may_write(now):
            # should it lead no more, what it knows is as old as that
            self._synced_at = now
        self.election.revision = self.registry.revision
        return settled

    def _reset(self) -> None:
        self._subscribed.clear()
        self.followers.clear()
        self._is_in_step = False

    def _changed(self, deltas: Sequence[Delta]) -> list[Effect]:
        epoch = self.election.led
        self.election.revision = self.registry.revision
        effects: list[Effect] = []
        for delta in deltas:
            effects.append(Publish(epoch, delta))
            change = Change(epoch, delta)
            effects += [SendMessage(name, change) for name in self._subscribed]
        return effects

    # --- as leader -----------------------------------------------------------

    def _note_job(self, job: Mapping[str, Any]) -> list[Effect]:
        note = JobNote(self.election.led, job)
        return [SendMessage(name, note) for name in self._subscribed]

    def _take_subscriber(
        self, now: float, sender: str, led: Epoch, about: Mapping[str, Any]
    ) -> list[Effect]:
        is_leading = self.election.role is Role.LEADING
        if not is_leading or led != self.election.led:
            return []
        self._subscribed[sender] = about
        self._note_follower(sender, FollowerState(now, 0, about))
        return [SendMessage(sender, Snapshot(led, self.registry.snapshot()))]

    def _note_follower(self, sender: str, state: FollowerState) -> None:
        """Remember a follower; one that is not in the list may push out another."""
        self.followers.pop(sender, None)
        self.followers[sender] = state
        joined = self._joined
        if len(joined) > MAX_FOLLOWERS:
            del self.followers[joined[0]]
            self._subscribed.pop(joined[0], None)

    @property
    def _joined(self) -> list[str]:
        """Followers that are not in the list, the one heard longest ago first."""
        return [name for name in self.followers if name not in self.election.names]

    def _note(self, now: float, sender: str, message: Message) -> list[Effect]:
        is_leading = self.election.role is Role.LEADING
        match message:
            case Heard(led=led, revision=revision) if is_leading:
                if led == self.election.led:
                    about = self._subscribed.get(sender, {})
                    self._note_follower(sender, FollowerState(now, revision, about))
            case Beat(led=led, revision=revision):
                if self._is_from_leader(sender, led) and self._is_in_step:
                    return self._compare(now, revision)
            case _:
                pass
        return []

    # --- as follower ---------------------------------------------------------

    def _subscribe(self, now: float) -> list[Effect]:
        self._asked_at = now
        leader, led = self.election.leader, self.election.led
        return [SendMessage(leader, Subscribe(led, self.about))]

    def _is_from_leader(self, sender: str, led: Epoch) -> bool:
        is_following = self.election.role is Role.FOLLOWING
        return is_following and (sender, led) == (
            self.election.leader,
            self.election.led,
        )

    def _take_copy(
        self, now: float, sender: str, led: Epoch, content: Mapping[str, Any]
    ) -> list[Effect]:
        if not self._is_from_leader(sender, led):
            return []
        revision = content.get("revision")
        is_late = isinstance(revision, int) and revision < self.registry.revision
        if self._is_in_step and is_late:
            return []
        self.registry.restore(now, content)
        self._is_in_step = True
        self._synced_at = now
        self.election.copy = led
        self.election.revision = self.registry.revision
        return []

    def _take_change(
        self, now: float, sender: str, led: Epoch, delta: Delta
    ) -> list[Effect]:
        if not self._is_from_leader(sender, led) or not self._is_in_step:
            return []
        self._is_in_step = self.registry.apply(now, delta)
        self.election.revision = self.registry.revision
        return [] if self._is_in_step else self._subscribe(now)

    def _compare(self, now: float, revision: int) -> list[Effect]:
        """Fall out of step when the leader has gone on without us, or we without it."""
        if revision == self.registry.revision:
            self._synced_at = now
            return []
        self._is_in_step = False
        return self._subscribe(now)
