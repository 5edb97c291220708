"""What can be seen of the jobs of a cluster, in the queue and in the registry.

Owns how a job is waited for, drained and ended. What the queue says is a hint: whoever
is there, the factories know.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from opencluster.config import load
from opencluster.core.roles import WORKSHOP
from opencluster.errors import FactoryUnreachable, LaunchFailed, OpenClusterError
from opencluster.launchers import embedded
from opencluster.launchers.base import ENDED, PENDING, Allocation, Outcome, Tell
from opencluster.launchers.batch.job_folder import ANSWERS_FOLDER, Job, workshop_name
from opencluster.launchers.batch.script import LAUNCH_FOLDER, NODES_FILE, jobs_folder
from opencluster.launchers.order import answer_in
from opencluster.node.output import read_tail
from opencluster.place import Place

QUEUE_LOOKS_S = (0.5, 10.0)
"""After this long the queue is asked again, at first and when a job waits for long."""
YOUNG_S = 60.0
"""For so long a job may be unknown to the queue to which it was submitted."""
POLL_S = 0.5
READY_TIMEOUT_S = 300.0
"""How long the workshops of a running job may take to register."""
SILENT = "is waited for, though the batch system does not answer now"
END_TIMEOUT_S = 90.0
"""How long the daemons of a job may take to end before it is cancelled."""
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
        """Return when a job must have ended, in seconds since 1970; 0 if never.

        By the clock of `clock_s`. That it is not known now is a failure.
        """

    def clock_s(self) -> float:
        """Return what time it is for whoever ends jobs, in seconds since 1970."""

    def address_of(self, node: str) -> str:
        """Return at which address a computer is reached, or nothing."""

    def end(self, id: str) -> None:
        """Ask the daemons of a running job to end, who are told by its folder too."""

    def cancel(self, id: str) -> None:
        """End a job, soon by force."""


def is_of_job(workshop: str, id: str) -> bool:
    """Return whether a workshop is in a job, by their names."""
    return workshop.endswith(f".{id}")


def named(id: str) -> str:
    """Return what a job is called in messages."""
    return f"job {id}"


class Watch:
    """Sees the jobs of one cluster.

    Parameters
    ----------
    place : Place
        The cluster's directory.
    system : System
        The commands of the batch system.
    """

    def __init__(self, place: Place, system: System) -> None:
        self._place = place
        self._system = system

    # --- waiting for a job ---------------------------------------------------

    def await_work(self, id: str, tell: Tell) -> list[Outcome]:
        """Wait until the workshops of the first job have registered.

        Returns
        -------
        list of Outcome
            One for each computer, or one for the job when it has none yet.
        """
        folder = self._folder_of(id)
        told: dict[str, Outcome] = {}
        state, look_at, deadline = "", 0.0, 0.0
        pause_s = QUEUE_LOOKS_S[0]
        began = time.monotonic()
        while True:
            now = time.monotonic()
            nodes = _words(folder / NODES_FILE) if self._is_begun(id) else []
            if nodes:
                deadline = deadline or now + READY_TIMEOUT_S
            is_late = bool(deadline) and now > deadline
            for outcome in self._arrivals(id, folder, nodes, is_late):
                if told.setdefault(outcome.host, outcome) is outcome:
                    tell(outcome)
            if nodes and len(told) == len(nodes):
                return list(told.values())
            if now >= look_at:
                look_at = now + pause_s
                pause_s = min(1.5 * pause_s, QUEUE_LOOKS_S[1])
                is_new = now - began < YOUNG_S
                found = self.glimpse(id, PENDING if is_new else ENDED)
                if found and found.state == ENDED and not self.has_workshop(id):
                    return [*told.values(), self._too_early(id, tell)]
                if found is None and state != SILENT:
                    state = SILENT
                    tell(Outcome(named(id), True, SILENT))
                if found and found.state not in (state, ENDED):
                    state = found.state
                    reason = f" ({found.reason})" if found.reason else ""
                    tell(Outcome(named(id), True, f"is {state}{reason}"))
            time.sleep(POLL_S)

    def _folder_of(self, id: str) -> Path:
        return self._place.path / jobs_folder(self._system.name) / id

    def _is_begun(self, id: str) -> bool:
        return bool(self._place.read().get("job") == id)

    def glimpse(self, id: str, unknown: str) -> Allocation | None:
        """Return what the queue says of a job; ``None`` when it does not answer.

        Parameters
        ----------
        id : str
            The job.
        unknown : str
            Its state when the queue does not know it (yet, or any more).
        """
        try:
            known = self._system.look([id])
        except LaunchFailed:
            return None
        return known.get(id, Allocation(id, unknown, 0))

    def _arrivals(
        self, id: str, folder: Path, nodes: Sequence[str], is_late: bool
    ) -> Iterator[Outcome]:
        """Yield the computers that are at work, and those that have failed."""
        here = self.workshops() if nodes else []
        for name in nodes:
            if workshop_name(name, id) in here:
                yield Outcome(name, True, "is at work")
                continue
            answer = answer_in(_text(folder / ANSWERS_FOLDER / name))
            if answer is not None:
                yield Outcome(name, False, answer.message, answer.output)
            elif is_late:
                message = f"is not there after {READY_TIMEOUT_S:g} s: see {folder}"
                yield Outcome(name, False, message)

    def _too_early(self, id: str, tell: Tell) -> Outcome:
        launch = self._place.path / LAUNCH_FOLDER
        log = launch / f"{id}.log"
        # what PBS has to say comes in a file that it names
        said = [read_tail(path, LOG_LINES) for path in sorted(launch.glob(f"{id}.*"))]
        detail = "\n".join(filter(None, said))
        message = f"has ended before it was at work: see {log}"
        outcome = Outcome(named(id), False, message, detail)
        tell(outcome)
        return outcome

    def workshops(self) -> list[str]:
        """Return the names of the workshops that are registered."""
        return [str(shop["name"]) for shop in self.registered()]

    def has_workshop(self, id: str) -> bool:
        """Return whether a workshop of a job is registered."""
        return any(is_of_job(name, id) for name in self.workshops())

    def registered(self) -> list[Mapping[str, Any]]:
        """Return what the workshops of all jobs registered; none without a factory."""
        if not self._place.cluster_file.exists():
            return []
        try:
            with embedded.control_of(load(), self._place) as control:
                return list(control.factory("find", {"kind": WORKSHOP}))
        except FactoryUnreachable:
            return []

    # --- the end of a job ------------------------------------------------------

    def end(self, id: str, state: str) -> None:
        """Ask a job to end that is in a state as the queue has it."""
        if state == PENDING or not self.has_workshop(id):
            # nobody is there yet whom to ask
            self._system.cancel(id)
            return
        with suppress(OSError):
            Job(self._folder_of(id)).ask_to_end()
        self._system.end(id)

    def drain(self, id: str, limit_s: float) -> None:
        """Let the workshops of a job finish what they have in hand, and wait for it."""
        shops = [s for s in self.registered() if is_of_job(s["name"], id)]
        if not shops:
            return
        deadline = time.monotonic() + limit_s
        with (
            suppress(OpenClusterError),
            embedded.control_of(load(), self._place) as asked,
        ):
            for shop in shops:
                asked.workshop(shop, "drain", {})
            while time.monotonic() < deadline:
                if all(asked.workshop(s, "status", {})["is_empty"] for s in shops):
                    return
                time.sleep(POLL_S)

    def await_end(self, id: str, tell: Tell) -> Outcome:
        """Wait until a job that was asked to end has ended, and insist if need be."""
        deadline = time.monotonic() + END_TIMEOUT_S
        is_cancelled = False
        while (found := self.glimpse(id, ENDED)) is None or found.state != ENDED:
            if time.monotonic() > deadline:
                if is_cancelled:
                    outcome = Outcome(named(id), False, "does not end")
                    tell(outcome)
                    return outcome
                is_cancelled = True
                deadline += END_TIMEOUT_S
                self._system.cancel(id)
            time.sleep(POLL_S)
        outcome = Outcome(named(id), True, "has ended")
        tell(outcome)
        return outcome


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()
