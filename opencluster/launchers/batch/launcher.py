"""A cluster in jobs of a batch system: the first has the factories, others join them.

Owns the jobs of one cluster: how they are asked for, waited for and ended. The commands
of a batch system stand in a module of its own. What the queue says is a hint: whoever
is there, the factories know.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from opencluster.config import Config
from opencluster.config.render import render_sections
from opencluster.core.roles import WORKSHOP
from opencluster.errors import LaunchFailed
from opencluster.launchers import embedded
from opencluster.launchers.base import (
    ENDED,
    PENDING,
    RUNNING,
    Allocation,
    Outcome,
    Tell,
)
from opencluster.launchers.batch.clock import SystemClock
from opencluster.launchers.batch.job_folder import END_MARGIN_S, ORDER_FILE
from opencluster.launchers.batch.script import (
    JOBS_FILE,
    LAUNCH_FOLDER,
    Job,
    script,
)
from opencluster.launchers.batch.watching import (
    YOUNG_S,
    System,
    Watch,
    is_of_job,
    named,
)
from opencluster.launchers.changes import Outline, change_between, outline
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.order import Order
from opencluster.launchers.planning import (
    ANY_ADDRESS,
    cluster_keys,
    executables,
    programs,
    sections_of,
)
from opencluster.launchers.record import (
    check_same_file,
    forget_record,
    keep_record,
    recorded,
    with_elastic_of,
)
from opencluster.place import Place, replace_file

LOOK_AGAIN_S = 60.0
"""How often a job asks when it ends."""


@dataclass(frozen=True)
class _Noted:
    """A job that was submitted from here."""

    id: str
    nodes: int
    is_first: bool
    submitted_at: float


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
        self._watch = Watch(place, system)
        self._clock = SystemClock(system)

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
        """Submit the first job, unless it is there, and wait until it is at work.

        On Ctrl-C it cancels the job that it has submitted.
        """
        self._make()
        submitted = ""
        try:
            with embedded.alone(self._place):
                self._check_place()
                first = self._first()
                if first is None:
                    self._place.forget()
                    with _uninterrupted():
                        submitted = self._submit(self._job(), "")
                    said = "is submitted"
                else:
                    before = recorded(self._place) or self._file
                    check_same_file(before, self._file)
                    said = self._compared(before)
            id = submitted or (first.id if first else "")
            told = Outcome(named(id), True, said)
            tell(told)
            return self._watch.await_work(id, tell) if self.is_waiting else [told]
        except KeyboardInterrupt:
            if submitted:
                self._system.cancel(submitted)
                tell(Outcome(named(submitted), False, "is cancelled"))
            raise

    def take_down(self, tell: Tell) -> list[Outcome]:
        """End all jobs, those that joined before the first one."""
        if not self._place.path.is_dir():
            return []
        with embedded.alone(self._place):
            noted = sorted(self._noted(), key=lambda job: job.is_first)
            known = self._system.look([job.id for job in noted])
            for job in noted:
                if _is_there(known, job.id):
                    self._watch.end(job.id, known[job.id].state)
            outcomes = [self._watch.await_end(job.id, tell) for job in noted]
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
        here = self._watch.workshops()
        found = []
        for job in noted:
            is_young = 0 <= time.time() - job.submitted_at < YOUNG_S
            unknown = Allocation(job.id, PENDING if is_young else ENDED, job.nodes)
            told = known.get(job.id, unknown)
            # the queue forgets, and lags behind; a workshop that is there runs
            is_here = any(is_of_job(name, job.id) for name in here)
            state = RUNNING if is_here else told.state
            if state != ENDED:
                ends_at = self._by_our_clock(told.ends_at)
                nodes = told.nodes or job.nodes
                found.append(replace(told, state=state, nodes=nodes, ends_at=ends_at))
        return found

    def _by_our_clock(self, ends_at: float) -> float:
        """Return a moment of the batch system as this computer's clock has it."""
        return ends_at and ends_at + time.time() - self._clock.now()

    def add(self, nodes: int) -> list[str]:
        """Submit so many more jobs of one computer each, which join the first.

        Raises
        ------
        LaunchFailed
            When there is no first job, or the batch system refuses.
        """
        self._make()
        with embedded.alone(self._place):
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
        if _is_there(known, id):
            self._watch.drain(id, self._file.batch.drain_before_s)
            self._watch.end(id, known[id].state)
        outcome = self._watch.await_end(id, lambda outcome: None)
        if not outcome.is_done:
            raise LaunchFailed(f"{outcome.host} {outcome.message}", outcome.detail)
        with embedded.alone(self._place):
            self._note([job for job in self._noted() if job.id != id])

    # --- jobs ----------------------------------------------------------------

    def _check_place(self) -> None:
        """Refuse a place where something else runs, or was launched from."""
        rows = embedded.daemons(self._place.read())
        before = recorded(self._place)
        if any(map(embedded.is_alive, rows)):
            raise LaunchFailed(
                f"another cluster runs in {self._place.path}: stop it with "
                "`opencluster stop`, or choose another --dir"
            )
        if before is not None and before.launcher != self._file.launcher:
            raise LaunchFailed(
                f"a cluster was launched by {before.launcher} from {self._place.path}: "
                "`opencluster down` first, or choose another --dir"
            )

    def _make(self) -> None:
        self._place.make()
        # nothing of the cluster runs on this computer
        with suppress(OSError):
            self._place.sockets.rmdir()

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
        folder = self._place.path / LAUNCH_FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        # jobs that join run what the first one runs, whatever became of the files since
        if job.is_first or not (folder / ORDER_FILE).exists():
            self._write_order(folder / ORDER_FILE)
        replace_file(Path(job.script_path), script(self._system.name, job))
        id = self._system.submit(job.script_path, after)
        self._note(
            [*self._noted(), _Noted(id, job.batch.nodes, job.is_first, time.time())]
        )
        return id

    def _compared(self, before: ClusterFile) -> str:
        """Return what is to be said of a job that is there, by what it was told.

        What is elastic is no matter of the job, and in force from now on.
        """
        change = change_between(self._outline_in_force(), outline(self._order()))
        old, new = asdict(before.batch), asdict(self._file.batch)
        others = [f"other {key} in batch" for key in new if new[key] != old[key]]
        keep_record(self._place, with_elastic_of(self._file, before))
        what = "; ".join(filter(None, [change.what, *others]))
        if not what:
            return "is there already; what it runs stays as it is"
        return (
            "is there already, and goes on with what the cluster file said before it "
            f"was changed ({what}): `opencluster down` and `opencluster up` take that "
            "over"
        )

    def _outline_in_force(self) -> Outline:
        """Return what the jobs run, as far as that is known."""
        path = self._place.path / LAUNCH_FOLDER / ORDER_FILE
        try:
            known = json.loads(path.read_text())["order"]
            return outline(Order.from_json(json.dumps(known), is_any_version=True))
        except (OSError, ValueError, KeyError, LaunchFailed):
            return {}

    def _order(self) -> Order:
        return Order(
            "",
            "",
            sections=self._sections(),
            files=programs(self._file),
            executables=executables(self._file),
        )

    def _write_order(self, path: Path) -> None:
        """Write down what each computer runs, with the files for it."""
        cluster_keys(self._file, self._place)
        order = self._order()
        follow = {
            "drain_before_s": self._file.batch.drain_before_s,
            "look_again_s": self.look_again_s,
        }
        content = {"order": asdict(order), "follow": follow}
        replace_file(path, json.dumps(content))
        keep_record(self._place, self._file)

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
        replace_file(
            self._place.path / JOBS_FILE, json.dumps([asdict(j) for j in jobs])
        )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off, where it can be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _is_there(known: Mapping[str, Allocation], id: str) -> bool:
    return id in known and known[id].state != ENDED
