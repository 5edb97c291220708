"""Clusters in jobs of a real Slurm, on which one computer plays several."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from slurm_site import SlurmSite

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.errors import FactoryUnreachable
from opencluster.launchers import embedded
from opencluster.launchers.base import RUNNING, Outcome
from opencluster.launchers.batch.launcher import BatchLauncher
from opencluster.launchers.cluster_file import read_cluster_file
from opencluster.launchers.slurm import SYSTEM
from opencluster.net.control import Control
from opencluster.place import Place

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent.parent
WORDCOUNT = ROOT / "examples" / "wordcount"
BOOK = ROOT / "README.md"
TIMEOUT_S = 90.0
CLUSTER_FILE = """\
name: night
launcher: slurm
directory: {directory}
batch:
  nodes: 3
  time: "1:00:00"
  cpus_per_node: 1
  gpus_per_node: 1
  drain_before_s: 600
workers:
  WordCount: {{target: wordcount.py:WordCountWorker, count: 1}}
"""
NAPS = ROOT / "tests" / "elastic" / "elastic_programs.py"
ELASTIC_FILE = """\
launcher: slurm
batch: {nodes: 1, time: "1:00:00", cpus_per_node: 1}
workers:
  Nap: {target: elastic_programs.py:NapWorker, count: 1}
elastic:
  Nap: {minimum: 1, maximum: 3, target_s: 0.2}
  limits: {interval_s: 0.3, rise_s: 0.3, cooldown_s: 2, launches_per_minute: 60}
"""


@pytest.fixture(scope="module")
def site() -> Iterator[SlurmSite]:
    site = SlurmSite(3)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.environment.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(ROOT))
        try:
            site.start()
            yield site
        finally:
            site.remove()


@pytest.fixture
def place(site: SlurmSite) -> Iterator[Place]:
    """A directory that all computers share."""
    place = Place(site.directory / "night")
    yield place
    # a test that fails leaves jobs
    site.ask("scancel", "--user", str(os.getuid()))
    wait_until(lambda: not site.jobs() and site.idle() == site.names)
    shutil.rmtree(place.path, ignore_errors=True)


def wait_until(has_come: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not has_come():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)


def opencluster(place: Place, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "opencluster", "--dir", str(place.path), *arguments]


def said_by(place: Place, *arguments: str) -> str:
    done = subprocess.run(
        opencluster(place, *arguments),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def registered(control: Control, kind: str) -> list[Mapping[str, Any]]:
    return list(control.factory("find", {"kind": kind}))


def shops_of(control: Control, id: str) -> list[Mapping[str, Any]]:
    shops = registered(control, "workshop")
    return [shop for shop in shops if shop["name"].endswith(f".{id}")]


def running_in(place: Place) -> dict[int, str]:
    """Return the command lines that name the cluster's directory, by process."""
    processes = psutil.process_iter(["pid", "cmdline"])
    lines = {p.info["pid"]: " ".join(p.info["cmdline"] or ()) for p in processes}
    return {pid: line for pid, line in lines.items() if str(place.path) in line}


def test_a_cluster_lives_and_ends_in_jobs(site: SlurmSite, place: Place) -> None:
    file = read_cluster_file(
        CLUSTER_FILE.format(directory=place.path), WORDCOUNT / "night.yaml"
    )
    launcher = BatchLauncher(file, place, SYSTEM)
    launcher.look_again_s = 1.5
    told: list[Outcome] = []
    outcomes = launcher.launch(told.append)
    assert sorted(outcomes, key=lambda each: each.host) == [
        Outcome(name, True, "is at work") for name in site.names
    ]
    (first,) = launcher.allocations()
    assert (first.state, first.nodes) == (RUNNING, 3)
    assert 3000 < first.ends_at - time.time() <= 3600
    assert abs(SYSTEM.clock_s() - time.time()) < 60
    with embedded.control_of(load(), place) as control:
        wait_until(lambda: len(registered(control, "worker")) == 3)
        it_is_used_from_any_computer(place)
        its_parts_lie_where_they_should(control, place, first.id)
        it_grows_and_follows_the_end_of_a_job(site, control, launcher)
        it_rests_before_the_end_and_goes_on_when_there_is_none(site, control, first.id)
        it_is_cancelled(site, place, launcher, first.id)
        with pytest.raises(FactoryUnreachable):
            registered(control, "worker")


def it_is_used_from_any_computer(place: Place) -> None:
    """The directory is enough to find the cluster, and to be let in."""
    status = said_by(place, "status")
    assert "3 factories, 3 workshops, 3 workers" in status
    counted = said_by(place, "run", str(WORDCOUNT / "wordcount.py"), str(BOOK))
    words = Counter(re.findall(r"\w+", BOOK.read_text().lower()))
    wanted = [f"{number} {word}" for word, number in words.most_common(3)]
    assert [" ".join(line.split()) for line in counted.splitlines()[:3]] == wanted


def its_parts_lie_where_they_should(control: Control, place: Place, id: str) -> None:
    """Sockets lie on each computer's own disk, and GPUs are those that Slurm gave."""
    for shop in shops_of(control, id):
        name = shop["name"].partition(".")[0]
        folder = place.path / "jobs-of-slurm" / id / name
        assert (folder / "run").is_symlink()
        assert {path.name for path in (folder / "keys").glob("w*.key")} == {
            "workshop.key",
            "worker.key",
        }
        environment = Path(f"/proc/{shop['pid']}/environ").read_bytes().split(b"\0")
        assert b"CUDA_VISIBLE_DEVICES=0" in environment


def it_grows_and_follows_the_end_of_a_job(
    site: SlurmSite, control: Control, launcher: BatchLauncher
) -> None:
    """A further job joins the factories, and has ended before Slurm ends it."""
    (id,) = launcher.add(1)
    wait_until(lambda: len(shops_of(control, id)) == 1)
    assert [each.state for each in launcher.allocations()] == [RUNNING, RUNNING]
    site.ask("scontrol", "update", f"JobId={id}", "TimeLimit=8")
    wait_until(lambda: id not in site.jobs())
    assert "JobState=COMPLETED" in site.ask("scontrol", "show", "job", id)
    assert shops_of(control, id) == []


def it_rests_before_the_end_and_goes_on_when_there_is_none(
    site: SlurmSite, control: Control, id: str
) -> None:
    """Its workers end before the job, and the factories stay for the others."""
    site.ask("scontrol", "update", f"JobId={id}", "TimeLimit=8")
    wait_until(lambda: not registered(control, "worker"))
    shops = shops_of(control, id)
    assert [shop["attributes"]["is_drained"] for shop in shops] == [True] * 3
    site.ask("scontrol", "update", f"JobId={id}", "TimeLimit=UNLIMITED")
    wait_until(lambda: len(registered(control, "worker")) == 3)
    assert SYSTEM.ends_at(id) == 0.0


def it_is_cancelled(
    site: SlurmSite, place: Place, launcher: BatchLauncher, id: str
) -> None:
    """Slurm ends all of it, as for any job, and no process is left."""
    assert running_in(place)
    site.ask("scancel", id)
    wait_until(lambda: not site.jobs())
    assert launcher.allocations() == []
    assert running_in(place) == {}
    assert not place.cluster_file.exists()
    assert not list((place.path / "jobs-of-slurm").glob("*/*/run"))


def test_ctrl_c_cancels_a_job_that_waits(site: SlurmSite, place: Place) -> None:
    launch = ("launch", "slurm", "--option=--hold", "--cpus-per-node=1")
    with subprocess.Popen(
        opencluster(place, *launch), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("is pending (JobHeldUser)" in line for line in lines)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(TIMEOUT_S) == 130
    assert re.search(r"^job \d+: is cancelled$", said, re.MULTILINE)
    assert site.jobs() == {}


def test_a_job_that_waits_is_taken_down(site: SlurmSite, place: Place) -> None:
    launch = ("launch", "slurm", "--option=--hold", "--no-wait")
    said = said_by(place, *launch)
    assert re.search(r"^job (\d+): is submitted$", said, re.MULTILINE)
    assert list(site.jobs().values()) == ["PENDING"]
    assert "has ended" in said_by(place, "down")
    assert site.jobs() == {}


def test_jobs_come_and_go_with_the_work_whoever_looks_after_them(
    site: SlurmSite, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site.directory / "naps.yaml"
    path.write_text(ELASTIC_FILE)
    shutil.copy(NAPS, site.directory)
    said_by(place, "up", str(path))
    monkeypatch.setenv("OPENCLUSTER_DIR", str(place.path))
    log = place.logs / "elastic.log"
    morning = site.directory / "morning"
    with ThreadPoolExecutor(1) as thread:
        pieces = [WorkPiece(until=str(morning))] * 20
        naps = thread.submit(lambda: list(Manager().map("Nap", pieces)))
        try:
            wait_until(lambda: list(site.jobs().values()) == ["RUNNING"] * 3)
        finally:
            morning.touch()
        assert len(naps.result(TIMEOUT_S)) == 20
    wait_until(lambda: "is given back" in log.read_text())
    # the next one knows which jobs are its own, and which of them may end
    os.kill(looking_after_types(place), signal.SIGKILL)
    said_by(place, "up", str(path))
    wait_until(lambda: list(site.jobs().values()) == ["RUNNING"])
    wait_until(lambda: "this does" in log.read_text())
    wait_until(lambda: "steady" in said_by(place, "elastic", "status"))
    assert log.read_text().count("is submitted") == 2
    assert "a launch failed" not in log.read_text()
    said_by(place, "down")
    assert site.jobs() == {}
    wait_until(lambda: not running_in(place))


def looking_after_types(place: Place) -> int:
    (found,) = (pid for pid, line in running_in(place).items() if "elastic run" in line)
    return found
