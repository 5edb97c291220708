"""``opencluster launch``: options that stand for a cluster file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from opencluster.cli import main
from opencluster.launchers.base import Outcome
from opencluster.launchers.hosts import HostsLauncher

WORKER = "count.py:CountWorker"


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a program, in which commands are given."""
    (tmp_path / "count.py").write_text("class CountWorker: ...\n")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "gains.csv").write_text("1\n")
    monkeypatch.chdir(tmp_path)
    # put back afterwards, as --dir sets it
    monkeypatch.setenv("OPENCLUSTER_DIR", "/scratch/night")


def dry_run(*arguments: str) -> str:
    done = launch(*arguments, "--dry-run")
    assert done.exit_code == 0, done.output
    return done.stdout


def launch(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["launch", *arguments], catch_exceptions=False)


def test_options_become_a_job_of_slurm() -> None:
    text = dry_run(
        *("slurm", "--nodes", "4", "--workers-per-node", "8", "--gpus-per-node", "2"),
        *("--time", "2:00:00", "--partition", "gpu", "--account", "astro"),
        *("--option=--mem=64G", "--workers", WORKER, "--gpus-per-worker", "1"),
        *("--file", "tables", "--set", "worker.max_pieces=50", "--drain-before", "300"),
    )
    script, _, rest = text.partition("\n\n")
    for line in (
        "#SBATCH --nodes=4",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --time=2:00:00",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=astro",
        "#SBATCH --mem=64G",
        'job=/scratch/night/jobs-of-slurm/"$SLURM_JOB_ID"',
    ):
        assert line in script.splitlines()
    for line in (
        "# [worker:Count]",
        "# target = count.py:CountWorker",
        "# count = 8",
        "# gpus = 1",
        "# max_pieces = 50",
        "# drain_timeout_s = 250",
        "# and the files tables/gains.csv, count.py",
        "# sbatch --parsable /scratch/night/launch/job.sh",
    ):
        assert line in rest.splitlines()


def test_options_become_a_job_of_pbs() -> None:
    text = dry_run(
        *("pbs", "--nodes", "2", "--cpus-per-node", "16", "--queue", "long"),
        *("--workers", f"{WORKER}=16", "--time", "1-00:00:00"),
    )
    lines = text.splitlines()
    assert "#PBS -l select=2:ncpus=16:mpiprocs=1" in lines
    assert "#PBS -l walltime=24:00:00" in lines
    assert "#PBS -q long" in lines
    assert "# count = 16" in lines
    assert "# qsub /scratch/night/launch/job.sh" in lines


def test_options_become_orders_for_hosts() -> None:
    text = dry_run(
        *("ssh", "node1", "node2", "--workers", WORKER, "--name", "night"),
        *("--services", "almanac:EphemerisService"),
    )
    assert "# node1: factory, workshop" in text
    assert "# node2: workshop" in text
    assert "[worker:Count]" in text
    assert "[service:ephemeris]" in text
    assert "factories = tcp://node1:9100" in text
    local = dry_run("local", "--workers", f"{WORKER}=3")
    assert "directory /scratch/night" in local
    assert "count = 3" in local


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # of the file that stands for them nobody sees a line
        (("slurm", "--time", "90"), "command line: batch.time: got '90', expected hou"),
        (("slurm", "--workers", "nothing.py:Worker"), "there is no file nothing.py"),
        (("slurm", "--set", "wroker.max_pieces=1"), "did you mean worker?"),
        (("slurm", "--set", "worker.max_pieces=x"), "settings.worker.max_pieces: got"),
        (("pbs",), "PBS must be told how many CPUs each computer is to give"),
    ],
)
def test_mistakes_in_options_are_named(
    arguments: tuple[str, ...], message: str
) -> None:
    done = launch(*arguments, "--dry-run")
    assert done.exit_code == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "form"),
    [
        ("--workers", "CountWorker", "write MODULE:CLASS"),
        ("--workers", f"{WORKER}=many", "write MODULE:CLASS"),
        ("--set", "max_pieces=1", "write SECTION.KEY=VALUE"),
        ("--set", "worker.max_pieces", "write SECTION.KEY=VALUE"),
    ],
)
def test_options_of_another_form_are_refused(
    option: str, value: str, form: str
) -> None:
    done = launch("slurm", option, value)
    assert done.exit_code == 2
    assert form in done.stderr


def test_without_slurm_there_is_a_word_on_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OPENCLUSTER_DIR", str(tmp_path / "night"))
    done = launch("slurm", "--no-wait")
    assert done.exit_code == 1
    assert "cannot run sbatch" in done.stderr
    assert "use a computer on which jobs are submitted" in done.stderr


@pytest.mark.parametrize("options", [[], ["--restart"]])
def test_what_runs_otherwise_is_ended_if_that_is_wanted(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_restart = []

    def follow(launcher: HostsLauncher, deed: object) -> list[Outcome]:
        is_restart.append(launcher.is_restart)
        return []

    monkeypatch.setattr("opencluster.cli.launch.follow", follow)
    for name in ("FACTORIES", "KEYS"):
        monkeypatch.setenv(f"OPENCLUSTER_CLUSTER_{name}", "")
    assert launch("local", *options).exit_code == 0
    assert is_restart == [bool(options)]


def test_what_did_not_start_is_nothing_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLUSTER_DIR", str(tmp_path / "night"))
    monkeypatch.setenv("OPENCLUSTER_SSH", "/nowhere/ssh")
    done = launch("ssh", "node1")
    assert done.exit_code == 1
    assert "node1: cannot run /nowhere/ssh" in done.stderr
    assert "1 host of 1 failed" in done.stderr
    assert "status`" not in done.stderr
