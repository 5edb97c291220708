"""PBS Pro: how its commands are called, and what their answers mean."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping

from opencluster.errors import ConfigError, LaunchFailed
from opencluster.launchers.base import ENDED, PENDING, RUNNING, Allocation
from opencluster.launchers.batch.external import ask
from opencluster.launchers.batch.launcher import BatchLauncher
from opencluster.launchers.batch.script import time_limit_s
from opencluster.launchers.description import ClusterFile
from opencluster.place import Place

SUBMIT_TIMEOUT_S = 60.0
UNKNOWN_JOB = 153
ENDED_JOB = 35
"""What commands end with that name a job which is not, or no more, in the queue."""
_ATTRIBUTE = re.compile(r" {4}([\w.]+) = (.*)")
_STATES = {
    **dict.fromkeys("HQTW", PENDING),
    **dict.fromkeys("BERSU", RUNNING),
}


def launcher(file: ClusterFile, place: Place) -> BatchLauncher:
    """Return the launcher of a cluster file that asks for PBS."""
    return BatchLauncher(file, place, SYSTEM)


class Pbs:
    """The commands ``qsub``, ``qstat`` and ``qdel``."""

    name = "pbs"

    def submission(self, script: str, after: str = "") -> list[str]:
        """Return the command that submits a script, to begin after another job."""
        dependency = ["-W", f"depend=after:{after}"] if after else []
        return ["qsub", *dependency, script]

    def submit(self, script: str, after: str = "") -> str:
        """Submit a script and return the job's name, such as ``17.server``."""
        answer = ask(self.submission(script, after), SUBMIT_TIMEOUT_S).strip()
        id = answer.rpartition("\n")[2].strip()
        if not id[:1].isdecimal():
            raise LaunchFailed(f"qsub names no job, but says {answer!r}", answer)
        return id

    def look(self, ids: Collection[str]) -> dict[str, Allocation]:
        """Return what the queue says of some jobs; those that it forgot have ended."""
        if not ids:
            return {}
        # without -x, which finds nothing where no history of jobs is kept, as is usual;
        # and no JSON: of many versions it is none when jobs have shell functions
        answer = ask(["qstat", "-f", *ids], good_codes=(0, UNKNOWN_JOB, ENDED_JOB))
        jobs = _attributes(answer)
        if answer.strip() and not jobs:
            raise LaunchFailed("qstat's answer names no job", answer)
        # qsub returns when a job is in the queue: one that is not has been there
        gone = {id: Allocation(id, ENDED, 0) for id in ids if id not in jobs}
        return gone | {id: _allocation(id, jobs[id]) for id in ids if id in jobs}

    def ends_at(self, id: str) -> float:
        """Return when a job must have ended, in seconds since 1970; 0 if never."""
        found = self.look([id])[id]
        if found.state == ENDED:
            raise LaunchFailed(f"qstat does not say when job {id} ends")
        return found.ends_at

    def clock_s(self) -> float:
        """Return our own time: it is the job's computer that ends it."""
        return time.time()

    def address_of(self, node: str) -> str:
        """Return nothing: PBS reaches computers by their names."""
        return ""

    def end(self, id: str) -> None:
        """Do nothing: the job reads in its folder that it is to end.

        A signal ends the shell in which PBS runs a job, and PBS kills the rest at once.
        """

    def cancel(self, id: str) -> None:
        """End a job: PBS asks its first computer, and kills all soon after."""
        ask(["qdel", id], good_codes=(0, UNKNOWN_JOB, ENDED_JOB))


SYSTEM = Pbs()


def _attributes(answer: str) -> dict[str, dict[str, str]]:
    """Return what ``qstat -f`` says of each job, by the names that it has for it.

    Long values are folded. Those of a user's variables may have lines that look like
    attributes, but come after all that is of use.
    """
    found: dict[str, dict[str, str]] = {}
    values: dict[str, str] = {}
    key = ""
    for line in answer.split("\n"):
        match = _ATTRIBUTE.fullmatch(line)
        if line.startswith("Job Id: "):
            values = found.setdefault(line.removeprefix("Job Id: ").strip(), {})
        elif match and match[1] not in values:
            key = match[1]
            values[key] = match[2]
            continue
        elif line.startswith("\t") and key:
            values[key] += line[1:]
            continue
        key = ""
    return found


def _allocation(id: str, job: Mapping[str, str]) -> Allocation:
    state = _STATES.get(job.get("job_state", ""), ENDED)
    nodes = job.get("Resource_List.nodect", "")
    return Allocation(
        id=id,
        state=state,
        nodes=int(nodes) if nodes.isdecimal() else 0,
        ends_at=_ends_at(job.get("stime", ""), job.get("Resource_List.walltime", "")),
        # of one that runs it says where
        reason=job.get("comment", "") if state == PENDING else "",
    )


def _ends_at(began: str, walltime: str) -> float:
    """Return the end of a job in seconds since 1970, 0 when that is not known."""
    try:
        return time.mktime(time.strptime(began)) + time_limit_s(walltime)
    except (ValueError, ConfigError):
        return 0.0
