"""How everyone who is no factory finds the one that leads, and keeps to it.

Rules that this module keeps:

1. While no leader is known, every factory is greeted again and again, each by one
   greeting at a time.
2. Who says that it leads is believed, unless its epoch is older than one that is known
   to have led; the greeting tells that one, so that a leader who is told of a newer
   epoch than its own can go beyond it.
3. A leader is kept as long as it answers. When an answer is overdue, the others are
   greeted too, and one that leads with a newer epoch takes its place.
4. A factory that follows says who leads; that one is greeted even when it stands in no
   list here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from opencluster.core.epochs import NO_EPOCH, Epoch

MAX_TOLD = 16
"""Factories that were only told of by others and are remembered."""


@dataclass(frozen=True, slots=True)
class Greet:
    """Ask this factory who leads, telling it the epoch that is known here."""

    name: str
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Adopt:
    """Ask this factory from now on: it leads."""

    name: str
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Abandon:
    """Ask nobody for now."""

    name: str
    reason: str


Effect = Greet | Adopt | Abandon


class Seeker:
    """One process's knowledge of who leads.

    Parameters
    ----------
    patience_s : float
        For how long an answer may be overdue before others are asked.
    """

    def __init__(self, patience_s: float = 1.0) -> None:
        self.patience_s = patience_s
        self.leader = ""
        self.epoch = NO_EPOCH
        self._listed: list[str] = []
        self._told: dict[str, None] = {}
        self._greeted: set[str] = set()

    # --- events --------------------------------------------------------------

    def listed(self, names: Iterable[str]) -> None:
        """Take in the list of factories, which may change while this process runs."""
        self._listed = list(names)

    def tick(self, now: float, awaited_since: float | None = None) -> list[Effect]:
        """Greet whoever has to be greeted now.

        Parameters
        ----------
        now : float
            The time, in seconds.
        awaited_since : float, optional
            Since when an answer of the leader is due.
        """
        is_overdue = (
            awaited_since is not None and now - awaited_since >= self.patience_s
        )
        if self.leader and not is_overdue:
            return []
        return self._greet_all()

    def answered(
        self, name: str, is_leading: bool, epoch: Epoch, leader: str = ""
    ) -> list[Effect]:
        """Take in what a factory says to a greeting.

        Parameters
        ----------
        name : str
            Which one.
        is_leading : bool
            Whether it leads.
        epoch : Epoch
            The newest one that it knows to have led; its own, if it leads.
        leader : str, optional
            Who leads, if it follows.
        """
        self._greeted.discard(name)
        if is_leading and epoch != NO_EPOCH:
            return self._consider(name, epoch)
        effects: list[Effect] = []
        if name == self.leader:
            effects += self._abandon("it leads no more")
        if epoch.is_newer_than(self.epoch):
            self.epoch = epoch
            if self.leader:
                effects += self._abandon("another one led after it")
        if leader and leader not in (name, self.leader):
            effects += self._hear_of(leader)
        return effects

    def unanswered(self, name: str) -> list[Effect]:
        """Take note that a greeting was not answered in time."""
        self._greeted.discard(name)
        return []

    def declined(self, name: str, leader: str = "") -> list[Effect]:
        """Take note that a factory does not do what only a leader may."""
        effects: list[Effect] = []
        if name == self.leader:
            effects += self._abandon("it leads no more")
        if leader and leader != name:
            effects += self._hear_of(leader)
        return effects or self._greet_all()

    def lost(self, name: str) -> list[Effect]:
        """Take note that a connection broke."""
        self._greeted.discard(name)
        if name != self.leader:
            return []
        return [*self._abandon("the connection broke"), *self._greet_all()]

    # --- questions -----------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """All factories that are known, those of the list first."""
        return list(dict.fromkeys([*self._listed, *self._told]))

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        assert len(self._told) <= MAX_TOLD
        assert not self.leader or self.epoch != NO_EPOCH

    # --- inside --------------------------------------------------------------

    def _consider(self, name: str, epoch: Epoch) -> list[Effect]:
        is_old = self.epoch.is_newer_than(epoch)
        if is_old and not self.epoch.is_absurd_after(epoch):
            # by the epoch in our greeting it knows by now that it has to go beyond
            return self._abandon("its epoch is old") if name == self.leader else []
        if self.leader and epoch == self.epoch:
            return []
        self.leader, self.epoch = name, epoch
        return [Adopt(name, epoch)]

    def _abandon(self, reason: str) -> list[Effect]:
        name, self.leader = self.leader, ""
        return [Abandon(name, reason)]

    def _hear_of(self, leader: str) -> list[Effect]:
        if leader not in self._listed:
            self._told.pop(leader, None)
            self._told[leader] = None
            if len(self._told) > MAX_TOLD:
                del self._told[next(iter(self._told))]
        return self._greet([leader])

    def _greet_all(self) -> list[Effect]:
        return self._greet(self.names)

    def _greet(self, names: Iterable[str]) -> list[Effect]:
        wanted = [name for name in names if name not in self._greeted]
        self._greeted.update(wanted)
        return [Greet(name, self.epoch) for name in wanted]
