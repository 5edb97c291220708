"""The scripts that a batch system runs: one generator for Slurm and for PBS.

Owns their text. Runs nothing and reads nothing: the same options give the same text.
A script writes down which computers the job has, and starts
`opencluster.launchers.batch.allocation` once on each.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from opencluster.errors import ConfigError
from opencluster.launchers.description import Batch

NODES_FILE = "nodes"
"""In a job's folder: its computers, a line each."""
ENDS_AT_FILE = "ends-at"
"""In a job's folder: when it must have ended, in seconds since 1970."""
END_FILE = "end"
"""In a job's folder, when its computers are to end."""
JOBS_FILE = "allocations.json"
"""In the cluster's directory: the jobs that were submitted."""
LAUNCH_FOLDER = "launch"
"""In the cluster's directory: scripts, what they start, and what they print."""
_TIME = re.compile(r"(?:(\d+)-)?(\d+(?::\d+)*)")
# batch systems read these lines without a shell, and have their own signs in them
_PLAIN_PATH = re.compile(r"/[\w./+,@=-]*")
_PLAIN_NAME = re.compile(r"[\w.+@-]+")


@dataclass(frozen=True)
class Job:
    """A job to ask a batch system for.

    Attributes
    ----------
    cluster : str
        Name of the cluster.
    directory : str
        Of the cluster, absolute, and the same on all computers.
    python : str
        The interpreter there.
    batch : Batch
        What is asked for.
    is_first : bool
        Whether it has the factories; others join them.
    """

    cluster: str
    directory: str
    python: str
    batch: Batch
    is_first: bool = True

    @property
    def script_path(self) -> str:
        """Where the script is written, and read by the batch system."""
        name = "job.sh" if self.is_first else "join.sh"
        return f"{self.directory}/{LAUNCH_FOLDER}/{name}"


def jobs_folder(system: str) -> str:
    """Return what the folder of jobs of a batch system is called."""
    return f"jobs-of-{system}"


def time_limit_s(text: str) -> int:
    """Return how many seconds a time limit is.

    Parameters
    ----------
    text : str
        ``hours:minutes:seconds``, ``minutes:seconds``, or either of
        ``days-hours:minutes:seconds``, ``days-hours:minutes`` and ``days-hours``, as
        Slurm reads them.

    Raises
    ------
    ConfigError
        When it is none of these. A lone number is refused: it is minutes for Slurm
        and seconds for PBS.
    """
    match = _TIME.fullmatch(text)
    parts = [int(part) for part in match[2].split(":")] if match else []
    days = match[1] if match else None
    if not (1 if days else 2) <= len(parts) <= 3:
        raise ConfigError(
            f"got {text!r}, expected hours:minutes:seconds or "
            "days-hours:minutes:seconds, such as 2:00:00"
        )
    if days or len(parts) == 3:
        parts += [0, 0]
    else:
        parts.insert(0, 0)
    hours = int(days or 0) * 24 + parts[0]
    return (hours * 60 + parts[1]) * 60 + parts[2]


def script(system: str, job: Job) -> str:
    """Return the script of a job.

    Parameters
    ----------
    system : str
        ``slurm`` or ``pbs``.
    job : Job
        What is asked for.

    Raises
    ------
    ConfigError
        When a name or an option cannot stand in a script.
    """
    _check(system, job)
    lines, body, sign, number = {
        "slurm": (_slurm_lines, _SLURM, "#SBATCH", "SLURM_JOB_ID"),
        "pbs": (_pbs_lines, _PBS, "#PBS", "PBS_JOBID"),
    }[system]
    what = "starts" if job.is_first else "joins"
    head = [
        "#!/bin/bash",
        f"# Made by `opencluster launch {system}`: {what} the cluster {job.cluster} on "
        "each computer of a job.",
        *(f"{sign} {line}" for line in (*lines(job), *job.batch.options)),
    ]
    cpus = job.batch.cpus_per_node
    filled = body.format(
        python=shlex.quote(job.python),
        folder=f"{job.directory}/{jobs_folder(system)}",
        launch=f"{job.directory}/{LAUNCH_FOLDER}",
        end=END_FILE,
        number=number,
        nodes=NODES_FILE,
        role="first" if job.is_first else "joining",
        cpus=f" --cpus-per-task={cpus}" if cpus else "",
        note_end=_note_end(job.batch.time),
    )
    return "\n".join(head) + "\n" + filled


_BEGINNING = """\
set -euo pipefail
umask 077
run=({python} -m opencluster.launchers.batch.allocation)
job={folder}/"${number}"
mkdir -p "$job"
"""

# many sites bind a task to one core; this one is all workers of a computer
_SLURM = (
    _BEGINNING
    + """\
scontrol show hostnames "$SLURM_JOB_NODELIST" >"$job/{nodes}"
"${{run[@]}}" begin slurm "$job" {role}
# a computer that fails takes no other one with it
exec srun --ntasks-per-node=1{cpus} --mpi=none --cpu-bind=none --no-kill \\
    --kill-on-bad-exit=0 --wait=0 "${{run[@]}}" work slurm "$job"
"""
)

_PBS = (
    _BEGINNING
    + """\
# PBS delivers what is printed at the end alone, and that of other computers apart
log={launch}/"${number}".log
exec >>"$log" 2>&1
awk '!seen[$0]++' "$PBS_NODEFILE" >"$job/{nodes}"
{note_end}"${{run[@]}}" begin pbs "$job" {role}
# qdel tells this computer alone, which tells the others
trap 'touch "$job/{end}"' TERM
# pbsdsh, told as well, would have all killed; what modules have set it does not hand on
setsid pbsdsh -- /bin/sh -c 'exec "$@" >>"$0" 2>&1' "$log" \\
    /usr/bin/env HOME="$HOME" PATH="$PATH" PBS_JOBID="$PBS_JOBID" \\
    LD_LIBRARY_PATH="${{LD_LIBRARY_PATH:-}}" PYTHONPATH="${{PYTHONPATH:-}}" \\
    "${{run[@]}}" work pbs "$job" &
while kill -0 $! 2>/dev/null; do wait $! || true; done
"""
)


def _slurm_lines(job: Job) -> Iterator[str]:
    batch = job.batch
    yield f"--job-name=opencluster-{job.cluster}"
    yield f"--nodes={batch.nodes}"
    yield "--ntasks-per-node=1"
    cpus = batch.cpus_per_node
    yield f"--cpus-per-task={cpus}" if cpus else "--exclusive"
    if batch.gpus_per_node:
        yield f"--gpus-per-node={batch.gpus_per_node}"
    if batch.time:
        yield f"--time={_written(batch.time)}"
    if partition := batch.partition or batch.queue:
        yield f"--partition={partition}"
    if batch.account:
        yield f"--account={batch.account}"
    yield f"--output={job.directory}/{LAUNCH_FOLDER}/%j.log"
    yield "--no-kill"
    yield "--no-requeue"


def _pbs_lines(job: Job) -> Iterator[str]:
    batch = job.batch
    cpus = batch.cpus_per_node
    gpus = f":ngpus={batch.gpus_per_node}" if batch.gpus_per_node else ""
    yield f"-N opencluster-{job.cluster}"
    yield f"-l select={batch.nodes}:ncpus={cpus}:mpiprocs=1{gpus}"
    yield "-l place=scatter"
    if batch.time:
        yield f"-l walltime={_written(batch.time)}"
    if queue := batch.queue or batch.partition:
        yield f"-q {queue}"
    if batch.account:
        yield f"-A {batch.account}"
    yield "-j oe"
    yield f"-o {job.directory}/{LAUNCH_FOLDER}/"
    yield "-r n"
    yield "-V"
    if batch.nodes > 1:
        # or the job is killed some minutes after one of its computers has failed
        yield "-W tolerate_node_failures=all"


def _note_end(time: str) -> str:
    """Return the line that writes down when the job ends, if that is known."""
    if not time:
        return ""
    return f'echo $(($(date +%s) + {time_limit_s(time)})) >"$job/{ENDS_AT_FILE}"\n'


def _written(time: str) -> str:
    minutes, seconds = divmod(time_limit_s(time), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _check(system: str, job: Job) -> None:
    """Refuse what would mean something else on a line of a script."""
    problem = problem_of_directory(job.directory)
    if problem:
        raise ConfigError(f"the directory {problem}")
    for key, problem in problems_of(system, job.batch):
        raise ConfigError(f"{key}: {problem}")
    if not _PLAIN_NAME.fullmatch(job.cluster):
        raise ConfigError(f"name: {_no_name(job.cluster)}")
    for option in job.batch.options:
        if not option.isprintable():
            raise ConfigError(f"options: {option!r} is more than one line")


def problem_of_directory(directory: str) -> str:
    """Return why a directory cannot stand in a script, or an empty text."""
    if _PLAIN_PATH.fullmatch(directory):
        return ""
    return (
        f"{directory!r} cannot stand in a job script: choose an absolute path of "
        "letters, digits and ./+,@=-_ that all computers share"
    )


def problems_of(system: str, batch: Batch) -> Iterator[tuple[str, str]]:
    """Yield what cannot be asked of a batch system: its key, and why.

    Raises
    ------
    ConfigError
        When the time limit is none.
    """
    if system == "pbs" and not batch.cpus_per_node:
        # it gives no more than is asked for, and so one
        yield (
            "cpus_per_node",
            "PBS must be told how many CPUs each computer is to give: cpus_per_node, "
            "or --cpus-per-node",
        )
    if batch.time and time_limit_s(batch.time) <= batch.drain_before_s:
        yield (
            "time",
            f"{batch.time} is no longer than drain_before_s, or --drain-before "
            f"({batch.drain_before_s:g} s): nothing would ever run",
        )
    for key in ("partition", "queue", "account"):
        name = getattr(batch, key)
        if name and not _PLAIN_NAME.fullmatch(name):
            yield key, _no_name(name)


def _no_name(text: str) -> str:
    return f"got {text!r}, expected letters, digits and . + @ - _"
