"""Who is here, and until when: entries, leases, revisions, snapshot and delta.

Rules that this module keeps:

1. Each change of membership raises the revision by exactly one and makes one delta;
   applying the deltas of a registry in order to its snapshot gives the registry.
2. An entry lives while its lease lasts. A renewal of an entry that is not here is no
   error: its identity is returned, and means "please register again".
3. Figures (state, pieces done, load) change with every heartbeat and are no
   revisions; a replica learns them with its next snapshot.
4. Nothing here grows without bound: the number of entries and of finished jobs is
   limited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opencluster.errors import RegistryError

KINDS = ("workshop", "worker", "service", "failure")
"""What can be registered; a ``failure`` says that a type does not start somewhere."""

MAX_TEXT = 4096
"""Longest text in an entry, in characters: a path or an endpoint, with room."""
SCHEMES = ("tcp://", "ipc://")
"""What an endpoint begins with."""


@dataclass(frozen=True)
class Entry:
    """One registration.

    Attributes
    ----------
    id : str
        Unique for the life of a process; a restarted process has another.
    kind : str
        One of `KINDS`.
    type : str
        Worker type or service name; empty for a workshop.
    name : str
        For people: ``WordCount-3``.
    host, host_id : str
        The computer's name, and what tells whether two processes share it.
    pid : int
        Process on that computer.
    endpoints : tuple of str
        Where it listens, the preferred one first.
    workshop : str
        Identity of the workshop that started it, or empty.
    attributes : mapping
        What does not change while it lives.
    """

    id: str
    kind: str
    type: str = ""
    name: str = ""
    host: str = ""
    host_id: str = ""
    pid: int = 0
    endpoints: tuple[str, ...] = ()
    workshop: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def to_fields(self) -> dict[str, Any]:
        """Return the entry as plain types for a message."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return fields | {
            "endpoints": list(self.endpoints),
            "attributes": dict(self.attributes),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Entry:
        """Build an entry from a message, refusing what is no entry.

        Raises
        ------
        RegistryError
            When a field is missing, of the wrong type, too long or no Unicode, or
            an endpoint is none.
        """
        if not isinstance(fields, Mapping):
            raise RegistryError(f"an entry is a mapping, not {type(fields).__name__}")
        known = {k: v for k, v in fields.items() if k in cls.__dataclass_fields__}
        for name in ("id", "kind", "type", "name", "host", "host_id", "workshop"):
            if not _is_short_text(known.get(name, "")):
                raise RegistryError(f"entry field {name!r} is no short text")
        if not known.get("id") or known.get("kind") not in KINDS:
            raise RegistryError(f"an entry needs an id and a kind out of {KINDS}")
        if not isinstance(known.get("pid", 0), int):
            raise RegistryError("entry field 'pid' is no number")
        endpoints = known.get("endpoints", ())
        if not isinstance(endpoints, (list, tuple)) or not all(
            _is_short_text(e) and e.startswith(SCHEMES) for e in endpoints
        ):
            raise RegistryError(
                f"entry field 'endpoints' is no list of endpoints ({SCHEMES})"
            )
        if not isinstance(known.get("attributes", {}), Mapping):
            raise RegistryError("entry field 'attributes' is no mapping")
        return cls(**known | {"endpoints": tuple(endpoints)})


def _is_short_text(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Delta:
    """One change of membership.

    Attributes
    ----------
    revision : int
        The revision that it makes.
    id : str
        Whose entry.
    entry : Entry or None
        The new entry, or ``None`` when it is gone.
    cause : mapping or None
        Why it is gone: ``{"reason": ...}`` plus the fields of a `DeathEvidence`.
    """

    revision: int
    id: str
    entry: Entry | None = None
    cause: Mapping[str, Any] | None = None

    def to_fields(self) -> dict[str, Any]:
        """Return the delta as plain types for a message."""
        return {
            "revision": self.revision,
            "id": self.id,
            "entry": self.entry.to_fields() if self.entry else None,
            "cause": dict(self.cause) if self.cause else None,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Delta:
        """Build a delta from a message, refusing what is no delta.

        Raises
        ------
        RegistryError
            When a field is missing or of the wrong type.
        """
        if not isinstance(fields, Mapping):
            raise RegistryError(f"a delta is a mapping, not {type(fields).__name__}")
        revision, identity = fields.get("revision"), fields.get("id")
        entry, cause = fields.get("entry"), fields.get("cause")
        if not isinstance(revision, int) or not isinstance(identity, str):
            raise RegistryError("a delta needs a revision and an id")
        if not isinstance(cause, Mapping | None):
            raise RegistryError("delta field 'cause' is no mapping")
        made = None if entry is None else Entry.from_fields(entry)
        if made is not None and made.id != identity:
            raise RegistryError(f"a delta of {identity!r} has the entry of {made.id!r}")
        return cls(revision, identity, made, cause)


@dataclass
class _Record:
    entry: Entry
    expires_at: float
    figures: dict[str, Any] = field(default_factory=dict)


class Registry:
    """The membership of a cluster, kept by the factory.

    Parameters
    ----------
    lease_s : float
        How long an entry lives after each renewal, in seconds.
    max_entries : int
        More registrations than this are refused.
    jobs_kept : int
        How many jobs are remembered, at least one; the oldest finished one is dropped
        first.
    """

    def __init__(
        self, lease_s: float = 10.0, max_entries: int = 100_000, jobs_kept: int = 200
    ) -> None:
        self.lease_s = lease_s
        self.max_entries = max_entries
        self.jobs_kept = max(1, jobs_kept)
        self.revision = 0
        self._records: dict[str, _Record] = {}
        self._jobs: dict[str, dict[str, Any]] = {}

    # --- events --------------------------------------------------------------

    def register(self, now: float, entry: Entry) -> list[Delta]:
        """Add an entry, or renew it when it is here already, unchanged."""
        record = self._records.get(entry.id)
        if record is not None and record.entry == entry:
            record.expires_at = now + self.lease_s
            return []
        if record is None and len(self._records) >= self.max_entries:
            raise RegistryError(
                f"the registry is full ({self.max_entries} entries); "
                "raise [factory] max_entries or find out who registers so much"
            )
        figures = record.figures if record else {}
        self._records[entry.id] = _Record(entry, now + self.lease_s, figures)
        return [self._changed(entry.id, entry)]

    def renew(
        self, now: float, ids: Iterable[str], figures: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Renew leases and take in the figures that came along.

        Parameters
        ----------
        now : float
            The time, in seconds.
        ids : iterable of str
            Whose leases.
        figures : mapping of str to mapping, optional
            Newest figures by identity.

        Returns
        -------
        list of str
            Those that are not here and should register again.
        """
        unknown = []
        for identity in ids:
            record = self._records.get(identity)
            if record is None:
                unknown.append(identity)
                continue
            record.expires_at = now + self.lease_s
            newest = figures.get(identity) if isinstance(figures, Mapping) else None
            if isinstance(newest, Mapping):
                record.figures = dict(newest)
        return unknown

    def remove(
        self, identity: str, cause: Mapping[str, Any] | None = None
    ) -> list[Delta]:
        """Take an entry out; one that is not here is no error."""
        if self._records.pop(identity, None) is None:
            return []
        return [self._changed(identity, None, cause)]

    def expire(self, now: float) -> list[Delta]:
        """Take out every entry whose lease is over, and note which jobs are lost."""
        over = [i for i, r in self._records.items() if r.expires_at <= now]
        cause = {"reason": f"no sign of life for {self.lease_s:g} s", "expired": True}
        for job in self._jobs.values():
            is_silent = job["reported_at"] + self.lease_s <= now
            if job.get("state") == "running" and is_silent:
                job["state"] = "lost"
        return [delta for identity in over for delta in self.remove(identity, cause)]

    def report_job(self, now: float, job: Mapping[str, Any]) -> None:
        """Take in the statistics of a job, by its ``id``.

        A job that runs and is not reported again within a lease counts as lost: its
        manager is gone.
        """
        identity = job.get("id") if isinstance(job, Mapping) else None
        if not isinstance(identity, str) or not identity:
            raise RegistryError("a job report needs the job's id")
        others = [i for i in self._jobs if i != identity]
        if len(others) >= self.jobs_kept:
            finished = (i for i in others if self._jobs[i].get("state") != "running")
            del self._jobs[next(finished, others[0])]
        self._jobs[identity] = dict(job) | {"reported_at": now}

    # --- questions -----------------------------------------------------------

    def find(self, kind: str = "", type: str = "", name: str = "") -> list[Entry]:
        """Return the entries of a kind, type and name; empty means any."""
        return [
            record.entry
            for record in self._records.values()
            if (not kind or record.entry.kind == kind)
            and (not type or record.entry.type == type)
            and (not name or record.entry.name == name)
        ]

    def get(self, identity: str) -> Entry | None:
        """Return one entry, or ``None``."""
        record = self._records.get(identity)
        return record.entry if record else None

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain types: revision, entries, figures and jobs."""
        return {
            "revision": self.revision,
            "entries": [r.entry.to_fields() for r in self._records.values()],
            "figures": {i: dict(r.figures) for i, r in self._records.items()},
            "jobs": [dict(job) for job in self._jobs.values()],
        }

    def next_expiry(self) -> float | None:
        """Return when the first lease ends, or ``None`` when nobody is here."""
        return min((r.expires_at for r in self._records.values()), default=None)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        assert self.revision >= 0
        assert len(self._records) <= self.max_entries
        assert len(self._jobs) <= self.jobs_kept
        for identity, record in self._records.items():
            assert record.entry.id == identity
            assert record.entry.kind in KINDS

    def _changed(
        self, identity: str, entry: Entry | None, cause: Mapping[str, Any] | None = None
    ) -> Delta:
        self.revision += 1
        return Delta(self.revision, identity, entry, cause)


class Replica:
    """A copy of a registry's membership, kept true by snapshot and deltas.

    A manager holds one; so will a following factory. `apply` refuses a delta that
    does not follow what is here, and the owner then asks for a snapshot.
    """

    def __init__(self) -> None:
        self.revision = -1
        self.entries: dict[str, Entry] = {}

    def load(self, snapshot: Mapping[str, Any]) -> list[Delta]:
        """Take a snapshot, and return what changed against what was here.

        Raises
        ------
        RegistryError
            When it is no snapshot; the replica is as it was.
        """
        rows, revision = snapshot.get("entries"), snapshot.get("revision")
        if not isinstance(rows, list | tuple) or not isinstance(revision, int):
            raise RegistryError("a snapshot needs entries and a revision")
        fresh = {entry.id: entry for entry in map(Entry.from_fields, rows)}
        self.revision = revision
        gone = [Delta(self.revision, i) for i in self.entries if i not in fresh]
        news = [
            Delta(self.revision, entry.id, entry)
            for entry in fresh.values()
            if self.entries.get(entry.id) != entry
        ]
        self.entries = fresh
        return gone + news

    def apply(self, delta: Delta) -> bool:
        """Apply one delta; ``False`` means that some before it are missing."""
        if delta.revision <= self.revision:
            return True
        if delta.revision != self.revision + 1:
            return False
        self.revision = delta.revision
        if delta.entry is None:
            self.entries.pop(delta.id, None)
        else:
            self.entries[delta.id] = delta.entry
        return True


def with_attributes(entry: Entry, **attributes: Any) -> Entry:
    """Return a copy of an entry with some attributes changed."""
    return replace(entry, attributes=dict(entry.attributes) | attributes)
