"""The scripts of batch systems, compared with those that are expected."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from opencluster.errors import ConfigError
from opencluster.launchers.batch.script import Job, script, time_limit_s
from opencluster.launchers.description import Batch

EXPECTED = Path(__file__).parent / "expected"
SMALL = Job(
    "small", "/home/ann/small", "/usr/bin/python3", Batch(cpus_per_node=4, time="30:00")
)
NIGHT = Job(
    "night",
    "/scratch/night",
    "/opt/open cluster/bin/python",
    Batch(
        nodes=4,
        time="1-02:00:00",
        cpus_per_node=16,
        gpus_per_node=2,
        partition="gpu",
        account="astro",
    ),
)
WHOLE = Job("whole", "/scratch/whole", "/usr/bin/python3", Batch(nodes=2))


@pytest.mark.parametrize(
    ("name", "system", "job"),
    [
        ("slurm-small", "slurm", SMALL),
        ("slurm-night", "slurm", NIGHT),
        ("slurm-whole", "slurm", WHOLE),
        ("slurm-join", "slurm", replace(WHOLE, is_first=False)),
        (
            "slurm-options",
            "slurm",
            replace(WHOLE, batch=Batch(queue="long", options=("--mem=64G", "-C ib"))),
        ),
        ("pbs-small", "pbs", SMALL),
        ("pbs-night", "pbs", NIGHT),
        ("pbs-join", "pbs", replace(SMALL, is_first=False)),
        (
            "pbs-options",
            "pbs",
            replace(SMALL, batch=Batch(cpus_per_node=1, options=("-l mem=64gb",))),
        ),
    ],
)
def test_a_script_is_the_one_that_is_expected(name: str, system: str, job: Job) -> None:
    text = script(system, job)
    assert text == (EXPECTED / f"{name}.sh").read_text()
    bash = shutil.which("bash") or "bash"
    subprocess.run([bash, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30:00", 1800),
        ("2:00:00", 7200),
        ("02:00:01", 7201),
        ("1-12", 129600),
        ("1-1:30", 91800),
        ("2-0:0:5", 172805),
        ("36:00:00", 129600),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(text: str, seconds: int) -> None:
    assert time_limit_s(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1:2:3:4", "two hours", "1-", "-1:00"])
def test_a_time_that_could_mean_something_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 2:00:00"):
        time_limit_s(text)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (replace(WHOLE, directory="/data/my folder"), "cannot stand in a job script"),
        (replace(WHOLE, directory="relative"), "cannot stand in a job script"),
        (replace(WHOLE, directory="/data/%j"), "cannot stand in a job script"),
        (replace(WHOLE, batch=Batch(account="a b")), "account: got 'a b'"),
        (replace(WHOLE, batch=Batch(partition="x\n#SBATCH -w n1")), "partition: got"),
        (replace(WHOLE, batch=Batch(options=("a\nrm -r .",))), "more than one line"),
        (replace(WHOLE, batch=Batch(time="2:00")), "nothing would ever run"),
        (replace(WHOLE, batch=Batch(time="90")), "got '90', expected hours"),
    ],
)
def test_what_would_mean_something_else_in_a_script_is_refused(
    job: Job, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        script("slurm", job)


def test_pbs_must_be_told_how_many_cpus_each_computer_gives() -> None:
    with pytest.raises(ConfigError, match="cpus_per_node"):
        script("pbs", WHOLE)
