"""Who is here, and until when: entries, leases, revisions, snapshot and delta.

Rules that this module keeps:

1. Each change of membership raises the revision by exactly one and makes one delta;
   applying the deltas of a registry in order to its snapshot gives the registry.
2. An entry lives while its lease lasts. A renewal of an entry that is not here is no
   error: its identity is returned, and means "please register again".
3. Figures (state, pieces done, load) change with every heartbeat and are no
   revisions; a replica learns them with its next snapshot.
4. Nothing here grows without bound: the number of entries (of all, and of each
   client), of finished jobs, and the size of each is limited.
5. An entry belongs to the certificate that registered it: nobody else changes it,
   renews it or takes it out. A process that speaks for itself cannot have the name
   of another's.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opencluster.core.bounds import Bounds
from opencluster.core.elastic_report import expected, is_report
from opencluster.core.entries import KINDS, Delta, Entry, read_snapshot
from opencluster.core.job_orders import orders_of, with_order
from opencluster.errors import RegistryError

HEARTBEATS_PER_S = 250
"""Heartbeats that a factory takes each second; with more members each sends fewer."""
HEARTBEATS_PER_LEASE = 3
"""Of which all but the last may get lost."""
BURSTS = 64
"""In which the heartbeats of all members come, between two of one of them."""
DEATHS_KEPT = 50
"""Members of which it is remembered how they were lost."""
_BOUNDS = Bounds()


@dataclass
class _Record:
    entry: Entry
    expires_at: float
    figures: bytes = b""
    client: str = ""


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
    max_entries_per_client : int
        More registrations than this by one client are refused.
    bounds : Bounds
        How large figures, a report of a job and the cause of a loss may be.
    """

    def __init__(
        self,
        lease_s: float = 10.0,
        max_entries: int = 100_000,
        jobs_kept: int = 200,
        max_entries_per_client: int = 10_000,
        bounds: Bounds = _BOUNDS,
    ) -> None:
        self.lease_s = lease_s
        self.max_entries = max_entries
        self.jobs_kept = max(1, jobs_kept)
        self.max_entries_per_client = max_entries_per_client
        self.bounds = bounds
        self._clients: Counter[str] = Counter()
        self.revision = 0
        self._records: dict[str, _Record] = {}
        self._by_type: dict[str, dict[str, _Record]] = {}
        self._reporting: set[str] = set()
        self._jobs: dict[str, dict[str, Any]] = {}
        self._expected: list[str] = []
        self._deaths: deque[dict[str, Any]] = deque(maxlen=DEATHS_KEPT)

    # --- events --------------------------------------------------------------

    def register(self, now: float, entry: Entry, client: str = "") -> list[Delta]:
        """Add an entry, or renew it when it is here already, unchanged.

        An entry counts for the client that registered it first; ``""``, for one that
        another factory took in, has no limit of its own.

        Raises
        ------
        RegistryError
            When it, or its name, is another owner's, or there are too many.
        """
        record = self._records.get(entry.id)
        if record is not None and record.entry == entry:
            record.expires_at = now + self.lease_s
            return []
        self._check_owner(entry)
        if record is None:
            self._take_client(client)
            record = _Record(entry, now, client=client)
        record = replace(record, entry=entry, expires_at=now + self.lease_s)
        self._put(record)
        self.revision += 1
        return [Delta(self.revision, entry.id, entry)]

    def renew(
        self,
        now: float,
        ids: Sequence[str],
        figures: bytes = b"",
        owner: str | None = None,
    ) -> list[str]:
        """Renew leases and take in the figures that came along.

        Parameters
        ----------
        now : float
            The time, in seconds.
        ids : sequence of str
            Whose leases; that of who reports comes first.
        figures : bytes, optional
            The newest figures of all of them. They are kept as they came.
        owner : str, optional
            Who asks: what another registered is not here for them.

        Returns
        -------
        list of str
            Those that are not here and should register again.

        Raises
        ------
        RegistryError
            When the figures are none, or too large.
        """
        if not isinstance(ids, list | tuple):
            raise RegistryError("the ids of a renewal are no list")
        if not isinstance(figures, bytes):
            raise RegistryError("figures are no bytes")
        if len(figures) > self.bounds.max_bytes:
            self._check_figures(ids, len(figures))
        unknown = []
        for identity in ids:
            record = self._records.get(identity)
            if record is None or owner not in (None, record.entry.owner):
                unknown.append(identity)
                continue
            record.expires_at = now + self.lease_s
        reporter = self._records.get(ids[0]) if ids and ids[0] not in unknown else None
        if reporter is not None and figures:
            reporter.figures = figures
        return unknown

    def remove(
        self,
        identity: str,
        cause: Mapping[str, Any] | None = None,
        at: float = 0.0,
        owner: str | None = None,
    ) -> list[Delta]:
        """Take an entry out; one that is not here is no error.

        Parameters
        ----------
        identity : str
            Whose.
        cause : mapping, optional
            Why, when it did not leave by itself.
        at : float
            The time of day, in seconds since 1970, that is noted with the cause.
        owner : str, optional
            Who asks for it.

        Raises
        ------
        RegistryError
            When the one who asks is not the one who registered it.
        """
        self.bounds.check("the cause of a loss", cause)
        record = self._records.get(identity)
        if record is None:
            return []
        if owner not in (None, record.entry.owner):
            raise _not_yours(record.entry, identity)
        self.revision += 1
        dated = None if cause is None else {**cause, "at": at}
        self._take_out(identity, dated)
        return [Delta(self.revision, identity, None, dated)]

    def expire(self, now: float, at: float = 0.0) -> list[Delta]:
        """Take out every entry whose lease is over, and note which jobs are lost."""
        over = [i for i, r in self._records.items() if r.expires_at <= now]
        cause = {"reason": f"no sign of life for {self.lease_s:g} s", "expired": True}
        for job in self._jobs.values():
            is_silent = job["reported_at"] + self.lease_s <= now
            if job.get("state") == "running" and is_silent:
                job["state"] = "lost"
                self._note_report(job)
        return [d for identity in over for d in self.remove(identity, cause, at)]

    def report_job(self, now: float, job: Mapping[str, Any]) -> None:
        """Take in the statistics of a job, by its ``id``.

        It belongs to the ``owner`` who reported it first, and no other changes it. One
        that runs and is not reported again within a lease counts as lost: its
        manager is gone. What was ordered for it stays in its row.
        """
        identity = job.get("id") if isinstance(job, Mapping) else None
        if not isinstance(identity, str) or not identity:
            raise RegistryError("a job report needs the job's id")
        self.bounds.check("a job report", job)
        former = self._jobs.get(identity)
        if former is not None and former.get("owner") != job.get("owner"):
            raise RegistryError(f"job {identity:.80} is another's")
        others = [i for i in self._jobs if i != identity]
        if len(others) >= self.jobs_kept:
            finished = (i for i in others if self._jobs[i].get("state") != "running")
            del self._jobs[next(finished, others[0])]
        orders = {"orders": former["orders"]} if former and "orders" in former else {}
        self._jobs[identity] = orders | dict(job) | {"reported_at": now}
        self._note_report(job)

    def order_job(
        self, identity: Any, order: Any, value: Any, by: str, at: float
    ) -> dict[str, Any]:
        """Note an order for a job in its row, which is returned.

        Raises
        ------
        RegistryError
            When there is no such job or order, or nobody could carry it out.
        """
        job = self._jobs.get(identity) if isinstance(identity, str) else None
        if job is None:
            raise RegistryError(f"no job {identity!r:.80} is known here")
        row = with_order(job, order, value, by, at)
        self._jobs[job["id"]] = row
        return {name: value for name, value in row.items() if name != "reported_at"}

    def orders_for(self, identity: str) -> dict[str, Any]:
        """Return what was ordered for a job."""
        return orders_of(self._jobs.get(identity, {}))

    def _note_report(self, job: Mapping[str, Any]) -> None:
        """Find out anew which workers will come, if it was told of that."""
        if is_report(job):
            self._expected = expected(self._jobs.values())

    def _check_owner(self, entry: Entry) -> None:
        """Refuse an entry that would take what another owner has."""
        former = self._records.get(entry.id)
        if former is not None and former.entry.owner != entry.owner:
            raise _not_yours(former.entry, entry.id)
        speaks_for_itself = entry.kind in ("worker", "service") and not entry.workshop
        if not entry.owner or not speaks_for_itself:
            # without keys all is everyone's; a workshop names its own computer's
            return
        for other in self.find(entry.kind, entry.type, entry.name):
            if other.owner != entry.owner:
                raise _not_yours(other, f"the name {entry.name}")

    # --- copies --------------------------------------------------------------

    def restore(self, now: float, snapshot: Mapping[str, Any]) -> None:
        """Become what another registry was when it made its snapshot.

        Raises
        ------
        RegistryError
            When it is no snapshot; this registry is as it was then.
        """
        revision, entries = read_snapshot(snapshot)
        figures, jobs, deaths = (
            snapshot.get(name, default)
            for name, default in (("figures", {}), ("jobs", []), ("deaths", []))
        )
        if not isinstance(figures, Mapping) or not all(
            isinstance(blob, bytes) for blob in figures.values()
        ):
            raise RegistryError("the figures of a snapshot are none")
        if not isinstance(deaths, list) or not all(map(_has_id, deaths)):
            raise RegistryError("the losses of a snapshot are none")
        if not isinstance(jobs, list) or not all(map(_has_id, jobs)):
            raise RegistryError("the jobs of a snapshot are none")
        until = now + self.lease_s
        records = {e.id: _Record(e, until, figures.get(e.id, b"")) for e in entries}
        recent = jobs[-self.jobs_kept :]
        reports = {job["id"]: {**job, "reported_at": now} for job in recent}
        self.revision, self._jobs = revision, reports
        self._expected = expected(reports.values())
        self._clients = Counter({"": len(records)} if records else {})
        self._deaths = deque(deaths, maxlen=DEATHS_KEPT)
        self._records, self._by_type, self._reporting = {}, {}, set()
        for record in records.values():
            self._put(record)

    def apply(self, now: float, delta: Delta) -> bool:
        """Apply a change of the registry that this one copies.

        Returns
        -------
        bool
            ``False`` means that some changes before it are missing.
        """
        if delta.revision <= self.revision:
            return True
        if delta.revision != self.revision + 1:
            return False
        self.revision = delta.revision
        if delta.entry is None:
            self._take_out(delta.id, delta.cause)
            return True
        record = self._records.get(delta.id)
        if record is None:
            self._clients[""] += 1
            record = _Record(delta.entry, now)
        until = now + self.lease_s
        self._put(replace(record, entry=delta.entry, expires_at=until))
        return True

    def extend(self, now: float) -> None:
        """Give everyone a whole lease: who leads now has not heard them until now."""
        for record in self._records.values():
            record.expires_at = now + self.lease_s
        for job in self._jobs.values():
            job["reported_at"] = now

    # --- questions -----------------------------------------------------------

    def find(self, kind: str = "", type: str = "", name: str = "") -> list[Entry]:
        """Return the entries of a kind, type and name; empty means any."""
        among = self._by_type.get(type, {}) if type else self._records
        return [
            record.entry
            for record in among.values()
            if (not kind or record.entry.kind == kind)
            and (not name or record.entry.name == name)
        ]

    def get(self, identity: str) -> Entry | None:
        """Return one entry, or ``None``."""
        record = self._records.get(identity)
        return record.entry if record else None

    @property
    def expected(self) -> list[str]:
        """The types of which workers will come when there is work for them."""
        return self._expected

    @property
    def ids(self) -> list[str]:
        """Everyone who is here."""
        return list(self._records)

    def snapshot(self) -> dict[str, Any]:
        """Return everything as plain types: all that `restore` takes."""
        return {
            "revision": self.revision,
            "entries": [r.entry.to_fields() for r in self._records.values()],
            "figures": {i: r.figures for i, r in self._records.items() if r.figures},
            "jobs": [dict(job) for job in self._jobs.values()],
            "deaths": list(self._deaths),
        }

    def heartbeat_interval_s(self, least_s: float) -> float:
        """Return how often each member should report itself, in seconds.

        Members of a workshop are reported by it. The more report, the rarer they
        do it, so that heartbeats never take more than a small part of a processor;
        a lease always lasts for several of them.
        """
        rare_s = len(self._reporting) / HEARTBEATS_PER_S
        return max(least_s, min(rare_s, self.lease_s / HEARTBEATS_PER_LEASE))

    def heartbeat_in_s(self, now: float, interval_s: float) -> float:
        """Return in how long a member whose heartbeat came now should send another.

        That is after the interval, rounded so that the heartbeats of a crowd come in
        bursts: many that come together cost far less than as many one by one.
        """
        apart_s = interval_s / BURSTS
        return round((now + interval_s) / apart_s) * apart_s - now

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        assert self.revision >= 0
        assert len(self._records) <= self.max_entries
        assert len(self._jobs) <= self.jobs_kept
        for identity, record in self._records.items():
            assert record.entry.id == identity
            assert record.entry.kind in KINDS
        listed = [i for of_type in self._by_type.values() for i in of_type]
        assert sorted(listed) == sorted(self._records)
        reporting = {i for i, r in self._records.items() if not r.entry.workshop}
        assert self._reporting == reporting
        assert self._clients == Counter(r.client for r in self._records.values())

    def _check_figures(self, ids: Sequence[str], nbytes: int) -> None:
        """Refuse figures that are larger than those of so many members may be."""
        count = len({identity for identity in ids if identity in self._records})
        if nbytes > self.bounds.max_bytes * count:
            raise RegistryError(
                f"{nbytes} bytes of figures for {count} members are too many; say "
                "less, or raise [limits] max_entry_bytes"
            )

    def _take_client(self, client: str) -> None:
        """Count an entry for a client, unless there is no room for it."""
        if len(self._records) >= self.max_entries:
            raise RegistryError(
                f"the registry is full ({self.max_entries} entries); "
                "raise [factory] max_entries or find out who registers so much"
            )
        if client and self._clients[client] >= self.max_entries_per_client:
            raise RegistryError(
                f"this client has {self.max_entries_per_client} entries already; "
                "raise [limits] max_entries_per_client, or find out why so many"
            )
        self._clients[client] += 1

    def _put(self, record: _Record) -> None:
        entry = record.entry
        former = self._records.get(entry.id)
        if former is not None:
            self._unlist(former.entry)
        self._records[entry.id] = record
        self._by_type.setdefault(entry.type, {})[entry.id] = record
        if not entry.workshop:
            self._reporting.add(entry.id)

    def _unlist(self, entry: Entry) -> None:
        of_type = self._by_type[entry.type]
        del of_type[entry.id]
        if not of_type:
            del self._by_type[entry.type]
        self._reporting.discard(entry.id)

    def _take_out(self, identity: str, cause: Mapping[str, Any] | None) -> None:
        """Remove an entry, and remember how it was lost unless it left in order."""
        record = self._records.pop(identity, None)
        if record is None:
            return
        self._drop_client(record.client)
        self._unlist(record.entry)
        if cause and not is_clean(cause):
            names = ("id", "kind", "type", "name", "host", "pid")
            who = {name: getattr(record.entry, name) for name in names}
            rest = {name: value for name, value in cause.items() if name != "at"}
            self._deaths.append(who | {"at": cause.get("at", 0.0), "cause": rest})

    def _drop_client(self, client: str) -> None:
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


def _has_id(fields: Any) -> bool:
    return isinstance(fields, Mapping) and isinstance(fields.get("id"), str)


def is_clean(cause: Mapping[str, Any]) -> bool:
    """Return whether a process ended by itself, in order and with nothing in hand."""
    is_amiss = cause.get("piece") or cause.get("exceeded")
    return cause.get("exit_code") == 0 and not is_amiss


def _not_yours(entry: Entry, what: str) -> RegistryError:
    return RegistryError(
        f"{what} belongs to {entry.kind} {entry.name} on {entry.host or 'its host'}, "
        f"which the certificate {entry.owner!r} registered and no other may change; "
        "give this process another name, or its own certificate back"
    )
