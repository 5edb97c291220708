"""PBS Pro: how its commands are called, and what their answers mean."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from typing import Any

from opencluster.errors import ConfigError, LaunchFailed
from opencluster.launchers.base import ENDED, PENDING, RUNNING, Allocation
from opencluster.launchers.batch.external import ask
from opencluster.launchers.batch.launcher import BatchLauncher
from opencluster.launchers.batch.script import time_limit_s
from opencluster.launchers.description import ClusterFile
from opencluster.place import Place

SUBMIT_TIMEOUT_S = 60.0
UNKNOWN_JOB = 153
"""What qstat ends with when it knows one of the jobs no more."""
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
        """Return what the queue says of some jobs; nothing of those that it forgot."""
        if not ids:
            return {}
        command = ["qstat", "-x", "-f", "-F", "json", *ids]
        answer = ask(command, good_codes=(0, UNKNOWN_JOB))
        if not answer.strip():
            return {}
        try:
            jobs = json.loads(answer, strict=False).get("Jobs", {})
        except (ValueError, AttributeError) as error:
            raise LaunchFailed(f"qstat's answer is no JSON: {error}", answer) from None
        return {id: _allocation(id, jobs[id]) for id in ids if id in jobs}

    def ends_at(self, id: str) -> float:
        """Return when a job must have ended, in seconds since 1970; 0 if never."""
        found = self.look([id])
        if id not in found:
            raise LaunchFailed(f"qstat does not say when job {id} ends")
        return found[id].ends_at

    def clock_s(self) -> float:
        """Return our own time: it is the job's computer that ends it."""
        return time.time()

    def address_of(self, node: str) -> str:
        """Return nothing: PBS reaches computers by their names."""
        return ""

    def end(self, id: str) -> None:
        """Ask the daemons of a running job to end."""
        self.cancel(id)

    def cancel(self, id: str) -> None:
        """End a job: PBS asks all its processes, and kills them soon after."""
        ask(["qdel", id])


SYSTEM = Pbs()


def _allocation(id: str, job: Mapping[str, Any]) -> Allocation:
    resources = job.get("Resource_List", {})
    return Allocation(
        id=id,
        state=_STATES.get(job.get("job_state", ""), ENDED),
        nodes=int(resources.get("nodect", 0)),
        ends_at=_ends_at(job.get("stime", ""), resources.get("walltime", "")),
        reason=str(job.get("comment", "")),
    )


def _ends_at(began: str, walltime: str) -> float:
    """Return the end of a job in seconds since 1970, 0 when that is not known."""
    try:
        return time.mktime(time.strptime(began)) + time_limit_s(walltime)
    except (ValueError, ConfigError):
        return 0.0
