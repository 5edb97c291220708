"""Slurm: how its commands are called, and what their answers mean."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from opencluster.errors import LaunchFailed
from opencluster.launchers.base import ENDED, PENDING, RUNNING, Allocation
from opencluster.launchers.batch.external import ask
from opencluster.launchers.batch.launcher import BatchLauncher
from opencluster.launchers.description import ClusterFile
from opencluster.place import Place

SUBMIT_TIMEOUT_S = 60.0
_TOLD = ("--noheader", "--format=%i|%T|%D|%l|%e|%r")
UNLIMITED = "UNLIMITED"
"""The limit of a job that never ends; what else a limit may be says nothing of that."""
_TIMES = {"SLURM_TIME_FORMAT": "%s"}
"""Has Slurm write times as seconds since 1970."""
_CLOCK = re.compile(r"^Configuration data as of (\d+)", re.MULTILINE)
_STATES = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"), PENDING
    ),
    **dict.fromkeys(("RUNNING", "COMPLETING", "STAGE_OUT", "SUSPENDED"), RUNNING),
}


def launcher(file: ClusterFile, place: Place) -> BatchLauncher:
    """Return the launcher of a cluster file that asks for Slurm."""
    return BatchLauncher(file, place, SYSTEM)


class Slurm:
    """The commands ``sbatch``, ``squeue``, ``scancel`` and ``scontrol``."""

    name = "slurm"

    def submission(self, script: str, after: str = "") -> list[str]:
        """Return the command that submits a script, to begin after another job."""
        dependency = [f"--dependency=after:{after}"] if after else []
        return ["sbatch", "--parsable", *dependency, script]

    def submit(self, script: str, after: str = "") -> str:
        """Submit a script and return the job's number."""
        answer = ask(self.submission(script, after), SUBMIT_TIMEOUT_S).strip()
        # of several lines the last one is the answer; a plug-in may have said the rest
        id, *_ = answer.rpartition("\n")[2].partition(";")
        if not id.isdecimal():
            raise LaunchFailed(f"sbatch names no job, but says {answer!r}", answer)
        return id

    def look(self, ids: Collection[str]) -> dict[str, Allocation]:
        """Return what the queue says of some jobs; nothing of those that it forgot."""
        if not ids:
            return {}
        # all of the user's: squeue refuses a job that it has forgotten
        command = ["squeue", f"--user={os.getuid()}", "--states=all", *_TOLD]
        found = _allocations(ask(command, environment=_TIMES))
        return {each.id: each for each in found if each.id in ids}

    def ends_at(self, id: str) -> float:
        """Return when a job must have ended, in seconds since 1970; 0 if never."""
        command = ["squeue", f"--jobs={id}", *_TOLD]
        for row in _rows(ask(command, environment=_TIMES)):
            limit, ends_at = row[3:5]
            if row[0].strip() != id:
                continue
            if limit.strip() == UNLIMITED:
                return 0.0
            if ends_at.isdecimal():
                return float(ends_at)
        raise LaunchFailed(f"squeue does not say when job {id} ends")

    def clock_s(self) -> float:
        """Return what time it is for the controller, which ends jobs by its clock.

        What squeue tells of the time that is left is reckoned by our own clock.
        """
        answer = ask(["scontrol", "show", "config"], environment=_TIMES)
        told = _CLOCK.search(answer)
        if told is None:
            raise LaunchFailed("`scontrol show config` does not say what time it is")
        return float(told[1])

    def address_of(self, node: str) -> str:
        """Return at which address Slurm reaches a computer, or nothing."""
        for line in ask(["scontrol", "--oneliner", "show", "node", node]).splitlines():
            for word in line.split():
                if word.startswith("NodeAddr="):
                    return word.removeprefix("NodeAddr=")
        return ""

    def end(self, id: str) -> None:
        """Ask the daemons of a running job to end."""
        # without --batch the script, which waits for them, is left alone
        ask(["scancel", "--signal=TERM", id])

    def cancel(self, id: str) -> None:
        """End a job: Slurm asks all its processes, and kills them soon after."""
        ask(["scancel", id])


SYSTEM = Slurm()


def _allocations(answer: str) -> list[Allocation]:
    """Return the jobs in an answer of squeue, among what else a site prints there."""
    return [_allocation(row) for row in _rows(answer)]


def _rows(answer: str) -> list[list[str]]:
    rows = (line.split("|", 5) for line in answer.splitlines())
    return [row for row in rows if len(row) == 6]


def _allocation(row: list[str]) -> Allocation:
    id, state, nodes, limit, ends_at, reason = row
    has_end = ends_at.isdecimal() and limit.strip() != UNLIMITED
    is_told = reason not in ("", "None")
    return Allocation(
        id=id.strip(),
        state=_STATES.get(state, ENDED),
        nodes=int(nodes) if nodes.isdecimal() else 0,
        ends_at=float(ends_at) if has_end else 0.0,
        reason=reason if is_told else "",
    )
