"""A cluster in jobs of a batch system: the first has the factories, others join them.

Owns the jobs of one cluster: how they are asked for, waited for and ended. The commands
of a batch system stand in a module of its own. What the queue says is a hint: whoever
is there, the factories know.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from opencluster.config import Config, load
from opencluster.config.render import render_sections
from opencluster.core.roles import WORKSHOP
from opencluster.errors import FactoryUnreachable, LaunchFailed, OpenClusterError
from opencluster.launchers import local
from opencluster.launchers.base import (
    ENDED,
    PENDING,
    RUNNING,
    Allocation,
    Outcome,
    Tell,
)
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.job_folder import ANSWERS_FOLDER, END_MARGIN_S, ORDER_FILE
from opencluster.launchers.order import Order, answer_in
from opencluster.launchers.orders import (
    ANY_ADDRESS,
    cluster_keys,
    programs,
    sections_of,
)
from opencluster.launchers.record import forget_record, keep_record
from opencluster.launchers.script import (
    LAUNCH_FOLDER,
    NODES_FILE,
    Job,
    jobs_folder,
    script,
)
from opencluster.node.output import read_tail
from opencluster.place import Place

LOOK_AGAIN_S = 60.0
"""How often a job asks when it ends."""
QUEUE_LOOKS_S = (0.5, 10.0)
"""After this long the queue is asked again, at first and when a job waits for long."""
POLL_S = 0.25
READY_TIMEOUT_S = 300.0
"""How long the workshops of a running job may take to register."""
END_TIMEOUT_S = 60.0
"""How long the daemons of a job may take to end before it is cancelled."""
JOBS_FILE = "allocations.json"
LOG_LINES = 20


class System(Protocol):
    """The commands of a batch system; each may raise `LaunchFailed`."""

    @property
    def name(self) -> str:
        """``slurm`` or ``pbs``."""

    def submission(self, script: str, after: str = "") -> list[str]:
        """Return the command that submits a script, to begin after another job."""

    def submit(self, script: str, after: str = "") -> str:
        """Submit a script and return the job's number or name."""

    def look(self, ids: Collection[str]) -> dict[str, Allocation]:
        """Return what the queue says of some jobs; nothing of those that it forgot."""

    def ends_at(self, id: str) -> float:
        """Return when a job must have ended, in seconds since 1970; 0 if never."""

    def address_of(self, node: str) -> str:
        """Return at which address a computer is reached, or nothing."""

    def end(self, id: str) -> None:
        """Ask the daemons of a running job to end."""

    def cancel(self, id: str) -> None:
        """End a job, soon by force."""


@dataclass(frozen=True)
class _Noted:
    """A job that was submitted from here."""

    id: str
    nodes: int
    is_first: bool


class BatchLauncher:
    """Runs a cluster file in jobs of a batch system.

    Parameters
    ----------
    file : ClusterFile
        What is to run, and what is asked for.
    place : Place
        The cluster's directory, which all computers share.
    system : System
        The commands of the batch system.

    Attributes
    ----------
    is_waiting : bool
        Whether `launch` returns when all is ready, and not as soon as the job waits.
    look_again_s : float
        How often a job asks when it ends.
    """

    def __init__(self, file: ClusterFile, place: Place, system: System) -> None:
        self.is_waiting = True
        self.look_again_s = LOOK_AGAIN_S
        self._file = file
        self._place = place
        self._system = system

    # --- what all launchers can ------------------------------------------------

    def describe(self) -> str:
        """Return the script of the first job, and what is done with it."""
        job = self._job()
        text = script(self._system.name, job)
        folder = f"{self._place.path}/{LAUNCH_FOLDER}"
        told = [f"{folder}/{ORDER_FILE} has config.ini for each computer:", ""]
        told += render_sections(self._sections()).rstrip().splitlines()
        if self._file.files:
            told += ["", f"and the files {', '.join(self._file.files)}"]
        command = " ".join(self._system.submission(job.script_path))
        told += ["", f"this script is {job.script_path}, and submitted by", command]
        return text + "\n" + "\n".join(f"# {line}".rstrip() for line in told) + "\n"

    def launch(self, tell: Tell) -> list[Outcome]:
        """Submit the first job, unless it is there, and wait until it is at work."""
        self._place.make()
        with local.alone(self._place):
            first = self._first()
            if first is None:
                self._place.forget()
                id = self._submit(self._job(), "")
                tell(Outcome(self._named(id), True, "is submitted"))
            else:
                id = first.id
        if not self.is_waiting:
            message = "waits for computers" if first is None else "is there already"
            return [Outcome(self._named(id), True, message)]
        try:
            return self._await(id, tell)
        except KeyboardInterrupt:
            if first is None:
                self._system.cancel(id)
                tell(Outcome(self._named(id), False, "is cancelled"))
            raise

    def take_down(self, tell: Tell) -> list[Outcome]:
        """End all jobs, those that joined before the first one."""
        if not self._place.path.is_dir():
            return []
        with local.alone(self._place):
            noted = sorted(self._noted(), key=lambda job: job.is_first)
            known = self._system.look([job.id for job in noted])
            for job in noted:
                if self._is_in(known, job.id):
                    self._end(job.id, known[job.id].state)
            outcomes = [self._ended(job.id, tell) for job in noted]
            if all(outcome.is_done for outcome in outcomes):
                self._note([])
                self._place.forget()
                forget_record(self._place)
        return outcomes

    def allocations(self) -> list[Allocation]:
        """Return the jobs that have not ended, as far as anyone knows.

        Raises
        ------
        LaunchFailed
            When the batch system does not answer.
        """
        noted = self._noted()
        known = self._system.look([job.id for job in noted])
        here = self._workshops()
        found = []
        for job in noted:
            told = known.get(job.id, Allocation(job.id, ENDED, job.nodes))
            # the queue forgets, and lags behind; a workshop that is there runs
            state = RUNNING if here.get(job.id) else told.state
            if state != ENDED:
                found.append(replace(told, state=state, nodes=told.nodes or job.nodes))
        return found

    def add(self, nodes: int) -> list[str]:
        """Submit so many more jobs of one computer each, which join the first.

        Raises
        ------
        LaunchFailed
            When there is no first job, or the batch system refuses.
        """
        with local.alone(self._place):
            first = self._first()
            if first is None:
                raise LaunchFailed(
                    "the first job has ended, and with it the factories: `opencluster "
                    "up` starts the cluster anew"
                )
            job = self._job()
            batch = replace(job.batch, nodes=1)
            job = replace(job, batch=batch, is_first=False)
            return [self._submit(job, first.id) for _ in range(nodes)]

    def remove(self, id: str) -> None:
        """Drain the computers of a job, and end it; waits until it has ended.

        Raises
        ------
        LaunchFailed
            When there is no such job, it is the first, or it does not end.
        """
        noted = {job.id: job for job in self._noted()}
        if id not in noted:
            listed = ", ".join(noted) or "none"
            raise LaunchFailed(f"job {id} is none of this cluster's ({listed})")
        if noted[id].is_first:
            raise LaunchFailed(
                f"job {id} has the factories: `opencluster down` ends the whole cluster"
            )
        known = self._system.look([id])
        if self._is_in(known, id):
            self._drain(id)
            self._end(id, known[id].state)
        outcome = self._ended(id, lambda outcome: None)
        if not outcome.is_done:
            raise LaunchFailed(f"{outcome.host} {outcome.message}", outcome.detail)
        with local.alone(self._place):
            self._note([job for job in self._noted() if job.id != id])

    # --- jobs ----------------------------------------------------------------

    def _job(self) -> Job:
        file = self._file
        return Job(file.name, str(self._place.path), file.python, file.batch)

    def _sections(self) -> dict[str, dict[str, str]]:
        sections = sections_of(self._file, Host("", (WORKSHOP,)), [])
        sections.setdefault("network", {}).setdefault("bind", ANY_ADDRESS)
        # what is drained before the end may as well finish what it has in hand
        worker = sections.setdefault("worker", {})
        worker.setdefault("drain_timeout_s", f"{self._drain_timeout_s():g}")
        return sections

    def _drain_timeout_s(self) -> float:
        """Return how long workers have before the end to finish their pieces."""
        defaults = Config()
        others_s = defaults.workshop.stop_grace_s + defaults.worker.hand_over_s
        left_s = self._file.batch.drain_before_s - END_MARGIN_S - others_s
        return max(left_s, defaults.worker.drain_timeout_s)

    def _submit(self, job: Job, after: str) -> str:
        """Write what a job needs, submit it and note its number."""
        text = script(self._system.name, job)
        folder = self._place.path / LAUNCH_FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        cluster_keys(self._file, self._place)
        order = Order("", "", sections=self._sections(), files=programs(self._file))
        follow = {
            "drain_before_s": self._file.batch.drain_before_s,
            "look_again_s": self.look_again_s,
        }
        content = {"order": asdict(order), "follow": follow}
        _replace(folder / ORDER_FILE, json.dumps(content))
        _replace(Path(job.script_path), text)
        keep_record(self._place, self._file)
        id = self._system.submit(job.script_path, after)
        self._note([*self._noted(), _Noted(id, job.batch.nodes, job.is_first)])
        return id

    def _first(self) -> _Noted | None:
        """Return the job that has the factories, if it is there; forget those ended."""
        noted = self._noted()
        if not noted:
            return None
        there = {each.id for each in self.allocations()}
        left = [job for job in noted if job.id in there]
        self._note(left)
        return next((job for job in left if job.is_first), None)

    def _noted(self) -> list[_Noted]:
        try:
            rows = json.loads((self._place.path / JOBS_FILE).read_text())
        except FileNotFoundError:
            return []
        return [_Noted(**row) for row in rows]

    def _note(self, jobs: Sequence[_Noted]) -> None:
        _replace(self._place.path / JOBS_FILE, json.dumps([asdict(j) for j in jobs]))

    def _named(self, id: str) -> str:
        return f"job {id}"

    # --- waiting for a job ---------------------------------------------------

    def _await(self, id: str, tell: Tell) -> list[Outcome]:
        """Wait until the workshops of the first job have registered.

        Returns
        -------
        list of Outcome
            One for each computer, or one for the job when it has none yet.
        """
        folder = self._place.path / jobs_folder(self._system.name) / id
        told: dict[str, Outcome] = {}
        state, look_at, deadline = "", 0.0, 0.0
        pause_s = QUEUE_LOOKS_S[0]
        while True:
            now = time.monotonic()
            nodes = _words(folder / NODES_FILE) if self._is_begun(id) else []
            for outcome in self._arrivals(id, folder, nodes):
                if outcome.host not in told:
                    told[outcome.host] = outcome
                    tell(outcome)
            if nodes and len(told) == len(nodes):
                return list(told.values())
            if nodes:
                deadline = deadline or now + READY_TIMEOUT_S
            if deadline and now > deadline:
                late = [self._late(name, folder) for name in nodes if name not in told]
                for outcome in late:
                    tell(outcome)
                return [*told.values(), *late]
            if now >= look_at:
                look_at = now + pause_s
                pause_s = min(1.5 * pause_s, QUEUE_LOOKS_S[1])
                found = self._glimpse(id)
                if found is not None and found.state == ENDED and not told:
                    return [self._too_early(id, tell)]
                if found is not None and found.state != state:
                    state = found.state
                    reason = f" ({found.reason})" if found.reason else ""
                    tell(Outcome(self._named(id), True, f"is {state}{reason}"))
            time.sleep(POLL_S)

    def _is_begun(self, id: str) -> bool:
        return bool(self._place.read().get("job") == id)

    def _glimpse(self, id: str) -> Allocation | None:
        """Return what the queue says of a job; ``None`` when it does not answer."""
        try:
            known = self._system.look([id])
        except LaunchFailed:
            return None
        return known.get(id, Allocation(id, ENDED, 0))

    def _arrivals(
        self, id: str, folder: Path, nodes: Sequence[str]
    ) -> Iterator[Outcome]:
        """Yield the computers that are at work, and those that have failed."""
        here = self._workshops().get(id, []) if nodes else []
        for name in nodes:
            if f"{name}.{id}" in here:
                yield Outcome(name, True, "is at work")
                continue
            answer = answer_in(_text(folder / ANSWERS_FOLDER / name))
            if answer is not None:
                yield Outcome(name, False, answer.message, answer.output)

    def _late(self, name: str, folder: Path) -> Outcome:
        message = f"is not there after {READY_TIMEOUT_S:g} s: see {folder}"
        return Outcome(name, False, message)

    def _too_early(self, id: str, tell: Tell) -> Outcome:
        log = self._place.path / LAUNCH_FOLDER / f"{id}.log"
        detail = read_tail(log, LOG_LINES) if log.exists() else ""
        message = f"has ended before it was at work: see {log}"
        outcome = Outcome(self._named(id), False, message, detail)
        tell(outcome)
        return outcome

    def _workshops(self) -> dict[str, list[str]]:
        """Return the workshops that are registered, by the job that they are in."""
        found: dict[str, list[str]] = {}
        for shop in self._registered():
            id = shop["name"].partition(".")[2]
            found.setdefault(id, []).append(shop["name"])
        return found

    def _registered(self) -> list[Mapping[str, Any]]:
        if not self._place.cluster_file.exists():
            return []
        try:
            with local.control_of(load(), self._place) as control:
                return list(control.factory("find", {"kind": WORKSHOP}))
        except FactoryUnreachable:
            return []

    # --- the end of a job ------------------------------------------------------

    def _is_in(self, known: Mapping[str, Allocation], id: str) -> bool:
        return id in known and known[id].state != ENDED

    def _end(self, id: str, state: str) -> None:
        if state == PENDING:
            self._system.cancel(id)
        else:
            self._system.end(id)

    def _drain(self, id: str) -> None:
        """Let the workshops of a job finish what they have in hand, and wait for it."""
        shops = [s for s in self._registered() if s["name"].partition(".")[2] == id]
        if not shops:
            return
        deadline = time.monotonic() + self._file.batch.drain_before_s
        with suppress(OpenClusterError), local.control_of(load(), self._place) as asked:
            for shop in shops:
                asked.workshop(shop, "drain", {})
            while time.monotonic() < deadline:
                if all(asked.workshop(s, "status", {})["is_empty"] for s in shops):
                    return
                time.sleep(POLL_S)

    def _ended(self, id: str, tell: Tell) -> Outcome:
        """Wait until a job that was asked to end has ended, and insist if need be."""
        deadline = time.monotonic() + END_TIMEOUT_S
        is_cancelled = False
        while (found := self._glimpse(id)) is None or found.state != ENDED:
            if time.monotonic() > deadline:
                if is_cancelled:
                    outcome = Outcome(self._named(id), False, "does not end")
                    tell(outcome)
                    return outcome
                is_cancelled = True
                deadline += END_TIMEOUT_S
                self._system.cancel(id)
            time.sleep(POLL_S)
        outcome = Outcome(self._named(id), True, "has ended")
        tell(outcome)
        return outcome


def _replace(path: Path, text: str) -> None:
    """Write a file in one step, for its owner alone."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()
