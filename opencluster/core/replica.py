"""A copy of a registry's membership, as a manager keeps it.

Rules that this module keeps:

1. A copy is always what the registry of one leader was at one revision: it changes
   only by a snapshot, or by the one change that follows what is here.
2. The copy of an epoch is never replaced by that of an older one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from opencluster.core.entries import Delta, Entry, read_snapshot
from opencluster.core.epochs import NO_EPOCH, Epoch


class Fit(Enum):
    """How a change fits to what is here."""

    NEW = "new"
    KNOWN = "known"
    GAP = "gap"


class Replica:
    """The members of a cluster, with the epoch and the revision that this is of."""

    def __init__(self) -> None:
        self.epoch = NO_EPOCH
        self.revision = -1
        self.entries: dict[str, Entry] = {}

    def load(self, epoch: Epoch, snapshot: Mapping[str, Any]) -> list[Delta]:
        """Take a snapshot, and return what changed against what was here.

        One of an older epoch is ignored.

        Raises
        ------
        RegistryError
            When it is no snapshot; the replica is as it was.
        """
        revision, entries = read_snapshot(snapshot)
        is_old = self.epoch.is_newer_than(epoch)
        if is_old and not self.epoch.is_absurd_after(epoch):
            return []
        fresh = {entry.id: entry for entry in entries}
        gone = [Delta(revision, i) for i in self.entries if i not in fresh]
        news = [
            Delta(revision, entry.id, entry)
            for entry in fresh.values()
            if self.entries.get(entry.id) != entry
        ]
        self.epoch, self.revision, self.entries = epoch, revision, fresh
        return gone + news

    def apply(self, epoch: Epoch, delta: Delta) -> Fit:
        """Apply one change; `Fit.GAP` means that a snapshot is needed."""
        if epoch != self.epoch or delta.revision > self.revision + 1:
            return Fit.GAP
        if delta.revision <= self.revision:
            return Fit.KNOWN
        self.revision = delta.revision
        if delta.entry is None:
            self.entries.pop(delta.id, None)
        else:
            self.entries[delta.id] = delta.entry
        return Fit.NEW
