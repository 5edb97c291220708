"""PBS, by answers that OpenPBS 23.06.06 gave, and programs in its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opencluster.core.roles import WORKSHOP
from opencluster.errors import LaunchFailed
from opencluster.launchers.base import ENDED, PENDING, RUNNING, Allocation
from opencluster.launchers.batch.following import Follower
from opencluster.launchers.batch.job_folder import Job
from opencluster.launchers.batch.script import Job as Asked
from opencluster.launchers.batch.script import script
from opencluster.launchers.batch.watching import Watch
from opencluster.launchers.description import Batch
from opencluster.launchers.order import Order
from opencluster.launchers.pbs import SYSTEM
from opencluster.place import Place

TIMEOUT_S = 30.0
QSTAT = """\
Job Id: 12.head
    Job_Name = opencluster-night
    resources_used.walltime = 00:00:26
    job_state = R
    exec_host = n1/0+n2/0+n3/0
    Resource_List.nodect = 3
    Resource_List.place = scatter
    Resource_List.walltime = 26:20:00
    stime = Mon Nov 30 13:16:51 2026
    Variable_List = PBS_O_HOME=/home/ann,PBS_O_PATH=/usr/local/bin:/usr/bin:/b
	in,ODD=a \\"quoted\\" \\\\u@\\\\h
line two
    job_state = Z	tab,BASH_FUNC_f%%=() {  echo \\"hi \\\\n\\"
},
	PBS_O_HOST=head
    comment = Job run at Mon Nov 30 at 13:16 on (n1:ncpus=2)+(n2:ncpus=2)
    run_count = 1

Job Id: 14.head
    job_state = Q
    Resource_List.nodect = 4
    comment = Can Never Run: Not enough total nodes available (and nothing that w
	ould end changes this)

Job Id: 15.head
    job_state = H
    Resource_List.nodect = 1

Job Id: 16.head
    job_state = F
    Resource_List.nodect = 1
    stime = Mon Nov 30 13:19:11 2026
    comment = Job run at Mon Nov 30 at 13:19 on (n1:ncpus=1) and failed

"""
"""Of jobs that run, wait, are held and have failed; only some of the fields."""
# the last of it is what the real one does, which is why it must not be told
PBSDSH = """\
trap 'kill $!; exit 1' TERM
shift
"$@" &
wait $!"""
# stands for the Python of a job
PYTHON = """\
echo "does $3"
[ "$3" = work ] || exit 0
until [ -e "$5/end" ]; do sleep 0.05; done
echo "ended in order" """


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which programs are found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def wait_until(has_come: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not has_come():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def test_the_answers_of_pbs_are_understood(programs: Path) -> None:
    (programs / "answer").write_text(QSTAT)
    asked = 'echo "$(basename "$0") $@" >>"$(dirname "$0")/asked"'
    program(programs / "qstat", f"{asked}; cat {programs}/answer; exit 153")
    ids = [f"{number}.head" for number in (12, 14, 15, 16, 17)]
    found = SYSTEM.look(ids)
    began = time.mktime((2026, 11, 30, 13, 16, 51, 0, 0, -1))
    reason = (
        "Can Never Run: Not enough total nodes available (and nothing that would end "
        "changes this)"
    )
    assert [found[id] for id in ids[:3]] == [
        Allocation("12.head", RUNNING, 3, began + 26 * 3600 + 20 * 60),
        Allocation("14.head", PENDING, 4, reason=reason),
        Allocation("15.head", PENDING, 1),
    ]
    # without a history of jobs nothing is said of one that has ended
    assert [found[id].state for id in ids[3:]] == [ENDED, ENDED]
    assert SYSTEM.ends_at("12.head") == found["12.head"].ends_at
    assert SYSTEM.ends_at("14.head") == 0.0
    with pytest.raises(LaunchFailed, match="does not say when job 17.head ends"):
        SYSTEM.ends_at("17.head")
    program(programs / "qsub", f"{asked}; echo 18.head")
    assert SYSTEM.submit("/scratch/job.sh", "12.head") == "18.head"
    lines = (programs / "asked").read_text().splitlines()
    assert lines[0] == "qstat -f 12.head 14.head 15.head 16.head 17.head"
    assert lines[-1] == "qsub -W depend=after:12.head /scratch/job.sh"


def test_what_is_no_answer_of_pbs_is_refused(programs: Path) -> None:
    program(programs / "qstat", "echo busy")
    with pytest.raises(LaunchFailed, match="qstat's answer names no job"):
        SYSTEM.look(["17.head"])
    told = "auth: Unable to authenticate connection (head:15001)"
    program(programs / "qstat", f"echo '{told}' >&2; exit 255")
    with pytest.raises(LaunchFailed, match="Unable to authenticate"):
        SYSTEM.look(["17.head"])
    program(programs / "qsub", "echo welcome")
    with pytest.raises(LaunchFailed, match="qsub names no job, but says 'welcome'"):
        SYSTEM.submit("/scratch/job.sh")


@pytest.mark.parametrize(
    ("code", "said"), [(35, "Job has finished"), (153, "Unknown Job Id")]
)
def test_a_job_that_is_gone_counts_as_cancelled(
    programs: Path, code: int, said: str
) -> None:
    program(programs / "qstat", f"echo 'qstat: {said} 4.head' >&2; exit {code}")
    program(programs / "qdel", f"echo 'qdel: {said} 4.head' >&2; exit {code}")
    SYSTEM.cancel("4.head")
    assert SYSTEM.look(["4.head"]) == {"4.head": Allocation("4.head", ENDED, 0)}
    program(programs / "qdel", "echo 'qdel: Unauthorized Request 4.head' >&2; exit 159")
    with pytest.raises(LaunchFailed, match="Unauthorized Request"):
        SYSTEM.cancel("4.head")


def test_a_job_that_is_deleted_ends_in_order(programs: Path, tmp_path: Path) -> None:
    """PBS tells all of the script's session; what is to end knows it by the folder."""
    python = program(programs / "python", PYTHON)
    program(programs / "pbsdsh", PBSDSH)
    (tmp_path / "launch").mkdir()
    (tmp_path / "nodefile").write_text("n1\nn1\nn2\n")
    asked = Asked("night", str(tmp_path), str(python), Batch(cpus_per_node=1))
    job = tmp_path / "launch" / "job.sh"
    job.write_text(script("pbs", asked))
    log = tmp_path / "launch" / "7.head.log"
    environment = {"PBS_JOBID": "7.head", "PBS_NODEFILE": f"{tmp_path}/nodefile"}
    with subprocess.Popen(
        ["/bin/bash", str(job)], env=os.environ | environment, start_new_session=True
    ) as process:
        wait_until(lambda: log.exists() and "does work" in log.read_text())
        folder = tmp_path / "jobs-of-pbs" / "7.head"
        assert (folder / "nodes").read_text() == "n1\nn2\n"
        assert not (folder / "end").exists()
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    said = log.read_text().splitlines()
    assert said == ["does begin", "does work", "ended in order"]


def test_a_job_reads_in_its_folder_that_it_is_to_end(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs / "qdel", "exit 1")
    job = Job(tmp_path / "jobs-of-pbs" / "7.head")
    job.folder.mkdir(parents=True)
    (job.folder / "nodes").write_text("n1\nn2\n")
    sections = {"workshop": {"name": "n2.7.head"}}
    directory = str(job.folder / "n2")
    order = Order("n2", directory, roles=(WORKSHOP,), sections=sections)
    follower = Follower(job, order, SYSTEM, 120.0, 60.0)
    watch = Watch(Place(tmp_path), SYSTEM)
    monkeypatch.setattr(watch, "has_workshop", lambda id: True)
    monkeypatch.setattr(follower, "_shop", lambda: {})
    assert not follower.look()
    watch.end("7.head", RUNNING)
    assert follower.look()


def test_a_job_that_fails_at_once_says_what_pbs_has_delivered(
    programs: Path, tmp_path: Path
) -> None:
    program(programs / "qstat", "echo 'qstat: Unknown Job Id 7.head' >&2; exit 153")
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "7.head.OU").write_text("mkdir: Read-only file system\n")
    watch = Watch(Place(tmp_path), SYSTEM)
    (outcome,) = watch.await_work("7.head", lambda outcome: None)
    assert not outcome.is_done
    assert outcome.message.startswith("has ended before it was at work: see")
    assert outcome.detail.strip() == "mkdir: Read-only file system"


# stands for a workshop that has much in hand
STUBBORN = """\
import signal, time

signal.signal(signal.SIGTERM, lambda *_: None)
print("is here", flush=True)
while True:
    time.sleep(600)
"""
GUARDED = """\
import sys, time
from opencluster.launchers.batch.ending import ended_anyway
from opencluster.launchers.order import Order

with ended_anyway(Order("n1", sys.argv[1], roles=("factory", "workshop"))):
    print("is here", flush=True)
    time.sleep(600)
"""


@pytest.mark.processes
def test_daemons_end_with_a_job_that_is_killed(tmp_path: Path) -> None:
    """PBS without control groups kills no process of another session."""
    place = Place(tmp_path / "n1")
    place.path.mkdir()
    (tmp_path / "opencluster.py").write_text(STUBBORN)
    daemon = [sys.executable, "-m", "opencluster", "workshop", "--dir", str(place.path)]
    with (
        subprocess.Popen(
            daemon, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE
        ) as process,
        subprocess.Popen(
            [sys.executable, "-c", GUARDED, str(place.path)],
            stdout=subprocess.PIPE,
            text=True,
        ) as job,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"is here\n"
            assert job.stdout is not None
            assert job.stdout.readline() == "is here\n"
            assert process.poll() is None
            job.kill()
            assert process.wait(TIMEOUT_S) == -signal.SIGKILL
        finally:
            job.kill()
            process.kill()
