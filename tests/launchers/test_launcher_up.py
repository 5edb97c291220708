"""``opencluster up`` and ``down`` on this computer, and what they say."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from opencluster.cli import main
from opencluster.cli.up import place_of
from opencluster.config import load
from opencluster.elastic.running import COMMANDS, start_beside
from opencluster.errors import FactoryUnreachable, StartFailed
from opencluster.launchers import embedded, logout
from opencluster.launchers.cluster_file import load_cluster_file
from opencluster.launchers.record import keep_record, recorded
from opencluster.place import Place

PROGRAM = """\
from opencluster import Worker
class Nothing(Worker):
    def perform(self, work):
        return work
"""
FILE = "workers: {Nothing: {target: 'program.py:NAME', count: 1}}\n"
MORE = """\
workers:
  Nothing: {target: 'program.py:Nothing', count: 2}
  Other: {target: 'other.py:Nothing', count: 1}
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "its place")
    yield place
    embedded.stop(place)


@pytest.fixture(autouse=True)
def _no_other_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENCLUSTER_")]:
        monkeypatch.delenv(name)
    # what the command sets is taken back
    for name in ("DIR", "CLUSTER_FACTORIES", "CLUSTER_KEYS"):
        monkeypatch.setenv(f"OPENCLUSTER_{name}", "")


def opencluster(place: Place, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--dir", str(place.path), *arguments])


@pytest.mark.processes
def test_a_cluster_of_this_computer_from_up_to_down(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # that of a site, as a user may have it in a file
    monkeypatch.setenv("OPENCLUSTER_CLUSTER_FACTORIES", "127.0.0.1:1")
    for name in ("program.py", "other.py"):
        (tmp_path / name).write_text(PROGRAM)
    path = tmp_path / "here.yaml"
    elastic = "elastic: {Nothing: {minimum: 1, maximum: 1}}\n"
    path.write_text(FILE.replace("NAME", "Nothing") + elastic)
    # a log-in node may end what a log-in leaves
    monkeypatch.setattr(logout, "ends_processes", lambda: True)
    shown = opencluster(place, "up", str(path), "--dry-run")
    assert "target = program.py:Nothing" in shown.output
    assert "`opencluster elastic run` here: 1 to 1 Nothing" in shown.output
    assert not place.path.exists()
    begun = opencluster(place, "up", str(path))
    assert begun.exit_code == 0, begun.output
    assert ": started factory and workshop (" in begun.output
    assert f"`opencluster --dir '{place.path}' status`" in begun.output
    assert "set OPENCLUSTER_CLUSTER_FACTORIES to nothing to use this" in begun.output
    assert "workers of elastic types come and go with the work" in begun.output
    assert "mind that what looks after them ends when you log out" in begun.output
    assert not start_beside(place)
    # what is new needs no restart
    path.write_text(MORE)
    joined = opencluster(place, "up", str(path))
    assert joined.exit_code == 0, joined.output
    assert (
        "runs already, and takes over what is new: 2 of worker Nothing, not 1; worker "
        "Other is new; file other.py is new ("
    ) in joined.output
    with embedded.control_of(load(), place) as control:
        found = [e["name"] for e in control.factory("find", {"kind": "worker"})]
    assert sorted(found) == ["Nothing-1", "Nothing-2", "Other-1"]
    assert ": runs already (" in opencluster(place, "up", str(path)).output
    # what is not as it was is no reason to end what runs, without being told
    path.write_text(FILE.replace("NAME", "Nobody"))
    refused = opencluster(place, "up", str(path))
    assert refused.exit_code == 1
    assert (
        "another order runs here, as the cluster file was changed since (1 of worker "
        "Nothing, not 2; worker Nothing has other target; worker Other is gone; file "
        "other.py is gone): the same command with --restart ends that"
    ) in refused.output
    assert "1 host of 1 failed" in refused.output
    failed = opencluster(place, "up", str(path), "--restart")
    assert failed.exit_code == 1
    assert "the cluster runs, but Nothing-1 did not start" in failed.output
    assert "has no class 'Nobody'" in failed.output
    ended = opencluster(place, "down")
    assert (ended.exit_code, ended.output.count(": ended (")) == (0, 1)
    assert embedded.strays(place) == []
    again = opencluster(place, "down")
    assert again.exit_code == 0
    assert "nothing that was launched" in again.output


def test_stop_ends_what_looks_after_elastic_types(tmp_path: Path, place: Place) -> None:
    place.path.mkdir()
    # as `opencluster up` has started it, for whoever reads its command line
    (tmp_path / "opencluster").write_text("read line\n")
    words = ["python", "-m", "opencluster", *COMMANDS[0], "--dir", str(place.path)]
    with subprocess.Popen(
        words, executable="/bin/sh", stdin=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert opencluster(place, "stop").exit_code == 0
        assert process.wait(0) == -signal.SIGTERM


def test_hosts_that_are_gone_for_good_are_forgotten(
    tmp_path: Path, place: Place
) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("launcher: ssh\nssh: /nowhere/ssh\nhosts: [a]\n")
    place.path.mkdir()
    keep_record(place, load_cluster_file(path))
    for arguments in (["down"], ["down", "--forget"]):
        done = opencluster(place, *arguments)
        assert done.exit_code == 1
        assert "a: cannot run /nowhere/ssh" in done.output
        assert "1 host of 1 could not be ended" in done.output
    assert recorded(place) is None
    assert opencluster(place, "down").exit_code == 0


def test_a_batch_system_that_is_gone_for_good_is_forgotten(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("launcher: slurm\n")
    place.path.mkdir()
    keep_record(place, load_cluster_file(path))
    job = {"id": "7", "nodes": 1, "is_first": True, "submitted_at": 0.0}
    (place.path / "allocations.json").write_text(json.dumps([job]))
    monkeypatch.setenv("PATH", str(tmp_path))
    kept = opencluster(place, "down")
    assert kept.exit_code == 1
    assert "cannot run squeue" in kept.output
    assert recorded(place) is not None
    done = opencluster(place, "down", "--forget")
    assert done.exit_code == 1
    assert "could not be ended; nothing tries that any more" in done.output
    assert recorded(place) is None


def test_who_cannot_be_asked_what_runs_is_told(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FirewallBetween:
        def factory(self, operation: str) -> list[dict[str, str]]:
            return [{"kind": "workshop", "id": "1", "name": "node2"}]

        def workshop(self, *asked: object) -> None:
            raise FactoryUnreachable("node2 at tcp://10.1.0.2:9200 does not answer")

    control = nullcontext(FirewallBetween())
    monkeypatch.setattr(embedded, "control_of", lambda *_: control)
    monkeypatch.setattr(embedded, "READY_TIMEOUT_S", 0.0)
    with pytest.raises(StartFailed, match=r"and node2 at tcp://10\.1\.0\.2:9200 does"):
        embedded.await_processes(place, load())


def test_workers_are_waited_for_as_long_as_more_of_them_are_ready(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowDisk:
        ready = 0

        def factory(self, operation: str) -> list[dict[str, str]]:
            self.ready += self.ready < most
            shop = {"kind": "workshop", "id": "1", "name": "a", "workshop": ""}
            worker = {"kind": "worker", "workshop": "1"}
            names = [f"Image-{number}" for number in range(self.ready)]
            return [shop, *(worker | {"name": name} for name in names)]

        def workshop(self, *asked: object) -> dict[str, object]:
            entry = {"kind": "worker", "name": "Image", "count": 4}
            return {"is_drained": False, "catalogue": [entry]}

    monkeypatch.setattr(embedded, "control_of", lambda *_: nullcontext(SlowDisk()))
    monkeypatch.setattr(embedded, "READY_TIMEOUT_S", 0.0)
    most = 4
    embedded.await_processes(place, load())
    most = 3
    with pytest.raises(StartFailed, match="ready, and not all of Image were; see"):
        embedded.await_processes(place, load())


def test_mistakes_in_a_file_are_told_before_anything_is_done(
    tmp_path: Path, place: Place
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("launchr: ssh\nhosts: 3\n")
    done = opencluster(place, "up", str(path))
    assert done.exit_code == 1
    assert f"{path}:1: unknown key 'launchr', did you mean launcher?" in done.output
    assert not place.path.exists()


def test_a_record_that_is_torn_is_told(place: Place) -> None:
    place.path.mkdir()
    (place.path / "launch.json").write_text("{}")
    done = opencluster(place, "down")
    assert done.exit_code == 1
    assert "name the cluster file, as in `opencluster down cluster.yaml`" in done.output


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("launcher: ssh\nhosts: [a]\n")

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/launch.json")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Place, "make", full)
        done = opencluster(Place(tmp_path / "place"), "up", str(path))
    assert done.exit_code == 1
    assert "opencluster: /scratch/launch.json: No space left on device" in done.output
    assert "give the command again" in done.output


def test_what_was_launched_is_kept_for_its_owner(tmp_path: Path, place: Place) -> None:
    path = tmp_path / "n.yaml"
    path.write_text("launcher: ssh\nhosts: [a, b]\n")
    file = load_cluster_file(path)
    place.path.mkdir()
    assert recorded(place) is None
    keep_record(place, file)
    assert recorded(place) == file
    assert (place.path / "launch.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("launcher: ssh\nhosts: [a]\ndirectory: /scratch/n\n", "STATE/opencluster/n"),
        ("launcher: slurm\ndirectory: /scratch/n\n", "/scratch/n"),
        ("directory: ~/n\n", "HOME/n"),
        ("name: other\n", "STATE/opencluster/other"),
    ],
)
def test_a_cluster_is_controlled_from_a_place_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    path = tmp_path / "n.yaml"
    path.write_text(text)
    state = str(tmp_path / ".local/state")
    wanted = expected.replace("STATE", state).replace("HOME", str(tmp_path))
    assert place_of(load_cluster_file(path)).path == Path(wanted)
    monkeypatch.setenv("OPENCLUSTER_DIR", "/told")
    assert place_of(load_cluster_file(path)).path == Path("/told")
