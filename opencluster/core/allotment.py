"""The jobs of a batch system that were asked for: which bring workers, which failed.

It owns what is remembered of such jobs, asks nobody, and believes the registry rather
than the queue: a job whose workshop has registered runs. A launch has succeeded when
its job has been at work for a while.

Rules that this module keeps:

1. A job counts from the moment that it is asked for, whether the queue shows it or not.
2. A job that runs counts as what it will bring until its workers are there, but only
   for so long; then it has failed, and is given back.
3. A job that ends soon, or is given back, brings nothing, and its workers count as
   none. Of a short job, no more than its second half is soon.
4. A job that ends before that has failed, however long it was at work: whatever ended
   it may end the next one. Several at a look are one failure.
5. Only what was asked for here is given back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

PENDING, RUNNING = "pending", "running"
LISTED_AFTER_S = 60.0
"""How long a queue may take to show a job that was submitted."""
PROVEN_S = 60.0
"""How long a job must be at work before its launch has succeeded."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A job as the queue shows it.

    Attributes
    ----------
    id, state : str
        Its name; ``pending`` or ``running``.
    nodes : int
        Computers that it is for.
    ends_at : float
        When it must have ended, in seconds since 1970; 0 when that is not known.
    """

    id: str
    state: str
    nodes: int = 1
    ends_at: float = 0.0


@dataclass(slots=True)
class _Own:
    asked_at: float
    here_since: float | None = None
    is_proven: bool = False
    # nobody is surprised when it has ended
    may_end: bool = False


@dataclass(frozen=True)
class Count:
    """What jobs bring, and what became of them.

    Attributes
    ----------
    pending : dict of str to int
        Workers of each type that will come.
    ending : frozenset of str
        Jobs whose workers count as none.
    failed : tuple of str
        Why jobs failed since the last look.
    overdue : tuple of str
        Jobs of our own that are to be given back, since nobody came of them.
    arrived : bool
        A job of our own has been at work for long enough since the last look.
    leaving : frozenset of str
        Jobs that are being given back, and have not ended yet.
    """

    pending: dict[str, int] = field(default_factory=dict)
    ending: frozenset[str] = frozenset()
    failed: tuple[str, ...] = ()
    overdue: tuple[str, ...] = ()
    arrived: bool = False
    leaving: frozenset[str] = frozenset()


class Allotment:
    """The jobs that were asked for here, and what all jobs bring.

    Parameters
    ----------
    each : mapping of str to int
        Workers of each type that a computer brings.
    start_timeout_s : float
        How long the workers of a job that runs may take to be ready.
    ending_s : float
        How long before its end a job counts as none.

    Attributes
    ----------
    asking : int
        Jobs of one computer that are being submitted.
    """

    def __init__(
        self, each: Mapping[str, int], start_timeout_s: float, ending_s: float
    ) -> None:
        self.each = each
        self.start_timeout_s = start_timeout_s
        self.ending_s = ending_s
        self.asking = 0
        self._own: dict[str, _Own] = {}
        self._given_back: dict[str, float] = {}
        self._first_seen: dict[str, float] = {}
        self._life_s: dict[str, float] = {}

    def asked(self, now: float, ids: Collection[str]) -> None:
        """Note jobs that were submitted."""
        for id in ids:
            self._own[id] = _Own(now)

    def given_back(self, now: float, id: str) -> None:
        """Note that a job is being given back."""
        self._own.pop(id, None)
        self._given_back[id] = now

    def kept(self, now: float, id: str) -> None:
        """Note that a job could not be given back; that is tried again later."""
        self._given_back.pop(id, None)
        self._first_seen.pop(id, None)
        self._own[id] = _Own(now, here_since=now, is_proven=True, may_end=True)

    @property
    def own(self) -> list[str]:
        """The jobs that were asked for here and have not ended, the oldest first."""
        return list(self._own)

    def look(
        self,
        now: float,
        clock: float,
        queue: Collection[Listed] | None,
        here: Mapping[str, Mapping[str, int]],
    ) -> Count:
        """Take in how the jobs stand.

        Parameters
        ----------
        now : float
            The time, in seconds.
        clock : float
            The time of day, in seconds since 1970.
        queue : collection of Listed or None
            The jobs that the batch system shows, whoever asked for them; ``None`` when
            it does not answer.
        here : mapping of str to mapping of str to int
            By job: the workers of each type that are registered, for jobs of which a
            workshop is.
        """
        shown = {job.id: job for job in queue or ()}
        arrived = self._note_arrivals(now, here)
        failed = [] if queue is None else self._note_ends(now, shown, here)
        jobs = dict(shown)
        for id in self._own.keys() - jobs.keys():
            jobs[id] = Listed(id, RUNNING if id in here else PENDING)
        self._note_gone(now, jobs, here)
        ends_soon = {job.id for job in jobs.values() if self._ends_soon(clock, job)}
        ending = frozenset(ends_soon | self._given_back.keys())
        # while the batch system is silent, what was known before holds
        for id, own in self._own.items() if queue is not None else ():
            own.may_end = id in ending
        pending = {type: count * self.asking for type, count in self.each.items()}
        overdue = []
        for job in jobs.values():
            if job.id in ending:
                continue
            is_late = self._is_late(now, job, here)
            if is_late and job.id in self._own and job.id not in here:
                limit = f"{self.start_timeout_s:g} s"
                failed.append(f"nobody came to work of job {job.id} in {limit}")
                overdue.append(job.id)
            if is_late:
                continue
            for type, count in self.each.items():
                there = here.get(job.id, {}).get(type, 0)
                pending[type] += max(0, count * max(1, job.nodes) - there)
        self._first_seen = {i: t for i, t in self._first_seen.items() if i in jobs}
        self._life_s = {i: s for i, s in self._life_s.items() if i in jobs}
        leaving = frozenset(i for i in self._given_back if i in jobs or i in here)
        return Count(pending, ending, tuple(failed), tuple(overdue), arrived, leaving)

    def to_give_back(self, queue: Collection[Listed], idle: Collection[str]) -> str:
        """Return which job is given back: one that waits, else an idle one, the newest.

        Parameters
        ----------
        queue : collection of Listed
            The jobs that the batch system shows.
        idle : collection of str
            Jobs whose workers all do nothing.

        Returns
        -------
        str
            Its name, or an empty text if none of our own may be given back now.
        """
        states = {job.id: job.state for job in queue}
        newest = self.own[::-1]
        waiting = [id for id in newest if states.get(id, PENDING) == PENDING]
        found = waiting + [id for id in newest if id in idle]
        return found[0] if found else ""

    # --- what outlives a process -----------------------------------------------

    def to_fields(self) -> dict[str, list[str]]:
        """Return what `remember` takes after a restart."""
        return {"own": self.own, "given_back": list(self._given_back)}

    def remember(self, now: float, fields: Any) -> list[str]:
        """Look after jobs that were asked for before a restart.

        Returns
        -------
        list of str
            Jobs whose giving back may have been cut short: it is to be done again.
        """
        own, given_back = _ids(fields, "own"), _ids(fields, "given_back")
        for id in own + given_back:
            # with the cluster of then it may have ended long ago
            self._own[id] = _Own(now, here_since=now, may_end=True)
        return given_back

    # --- inside ------------------------------------------------------------------

    def _note_arrivals(self, now: float, here: Collection[str]) -> bool:
        arrived = False
        for id, own in self._own.items():
            if id not in here:
                continue
            if own.here_since is None:
                own.here_since = now
            if not own.is_proven and now - own.here_since >= PROVEN_S:
                own.is_proven = arrived = True
        return arrived

    def _note_ends(
        self, now: float, shown: Collection[str], here: Collection[str]
    ) -> list[str]:
        """Forget jobs that have ended; return why those failed that should not have."""
        failed, lost = [], []
        for id, own in list(self._own.items()):
            was_here = own.here_since is not None
            is_fresh = now - own.asked_at < LISTED_AFTER_S and not was_here
            if id in shown or id in here or is_fresh:
                continue
            del self._own[id]
            if not was_here:
                failed.append(f"job {id} has ended before anybody came to work of it")
            elif not own.may_end:
                lost.append(id)
        if lost:
            failed.append(f"ended, but was not given back: job {', '.join(lost)}")
        return failed

    def _ends_soon(self, clock: float, job: Listed) -> bool:
        if not job.ends_at:
            return False
        left_s = job.ends_at - clock
        life_s = self._life_s.setdefault(job.id, left_s)
        return left_s <= min(self.ending_s, life_s / 2.0)

    def _note_gone(
        self, now: float, shown: Collection[str], here: Collection[str]
    ) -> None:
        """Forget jobs that were given back and have ended."""
        for id, since in list(self._given_back.items()):
            is_seen = id in shown or id in here
            if not is_seen and now - since >= LISTED_AFTER_S:
                del self._given_back[id]

    def _is_late(self, now: float, job: Listed, here: Collection[str]) -> bool:
        """Return whether a job has run for longer than its workers may take."""
        if job.state != RUNNING and job.id not in here:
            return False
        since = self._first_seen.setdefault(job.id, now)
        return now - since >= self.start_timeout_s


def _ids(fields: Any, key: str) -> list[str]:
    """Return the names of jobs in what was kept, none where it makes no sense."""
    found = fields.get(key) if isinstance(fields, Mapping) else None
    return [id for id in found or () if isinstance(id, str)]
