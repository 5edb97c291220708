"""Records of jobs: written by a manager that may be killed, read from everywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from opencluster.cli import main
from opencluster.config import load
from opencluster.core.timeline import summary
from opencluster.errors import RecordError
from opencluster.launchers.connection import connect
from opencluster.observe.job_records import find_record, list_records
from opencluster.place import Place
from opencluster.store.job_records import RecordWriter, jobs, path_of, read, read_file
from opencluster.testing import LocalCluster

DEADLINE_S = 60.0
HERE = Path(__file__).parent
PROGRAM = HERE / "record_program.py"
ID = "0123456789ab"
JOB = {"id": ID, "name": "Test", "started_at": 1.0, "state": "running"}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {"cluster.heartbeat_interval_s": 0.2}
    with LocalCluster({f"{PROGRAM}:RecordedWorker": 2}, settings) as started:
        yield started


def run(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=DEADLINE_S,
    )


def test_a_job_leaves_what_became_of_its_pieces(cluster: LocalCluster) -> None:
    run(cluster, "mixed")
    timeline = find_record(cluster.place, "last")
    assert timeline.job["name"] == "RecordedManager"
    assert timeline.job["state"] == "done" and timeline.job["program"] == PROGRAM.name
    assert timeline.job["pieces_done"] == 3 and timeline.job["pieces_failed"] == 2
    figures = summary(timeline)
    assert figures["pieces"] == 7
    outcomes = [timeline.outcome.count(place) for place in range(4)]
    # two failed, and one of them was tried three times
    assert outcomes == [3, 2, 2, 0]
    (group,) = figures["errors"]
    assert group["kind"] == "ValueError" and group["count"] == 2
    assert "no antennas" in group["message"] and "perform" in group["traceback"]
    failed = [timeline.error[i] for i, o in enumerate(timeline.outcome) if o == 1]
    assert failed == [0, 0]
    assert all(start_s >= 0.0 for start_s in timeline.start_s)
    assert 0.1 <= max(timeline.duration_s) <= timeline.length_s


def test_pieces_that_outlive_their_job_have_their_own_lanes(
    cluster: LocalCluster,
) -> None:
    run(cluster, "late")
    timeline = find_record(cluster.place, "last")
    assert timeline.job["state"] == "done" and timeline.job["pieces_done"] == 8
    assert sorted(timeline.workers) == ["Recorded-1", "Recorded-2"]
    # each has one of the last two, which run at the same time
    late = {n: timeline.worker[i] for i, n in enumerate(timeline.number) if n > 6}
    assert len(late) == 2 and set(late.values()) == {0, 1}


def test_a_run_that_is_lost_with_its_worker_is_recorded(cluster: LocalCluster) -> None:
    run(cluster, "deadly")
    timeline = find_record(cluster.place, "last")
    told = list(zip(timeline.outcome, timeline.error, strict=True))
    # run again once, and then given up
    assert told == [(2, -1), (1, 0)]
    assert timeline.errors[0]["kind"] == "WorkerDied"
    assert all(0.1 <= duration_s < DEADLINE_S for duration_s in timeline.duration_s)


def test_short_pieces_are_recorded_in_bundles(cluster: LocalCluster) -> None:
    run(cluster, "many")
    timeline = find_record(cluster.place, "last")
    assert sum(timeline.pieces) == timeline.job["pieces_done"] == 5000
    assert len(timeline) < 5000


def test_a_killed_script_leaves_what_it_had(cluster: LocalCluster) -> None:
    before = {job["id"] for job in list_records(cluster.place)}
    script = subprocess.Popen([sys.executable, str(PROGRAM), "endless"])

    def new() -> list[str]:
        return [j["id"] for j in list_records(cluster.place) if j["id"] not in before]

    try:
        wait_for(new)
        (id,) = new()
        wait_for(lambda: len(find_record(cluster.place, id)) > 5)
    finally:
        script.send_signal(signal.SIGKILL)
        script.wait()
    timeline = find_record(cluster.place, id)
    assert timeline.job["state"] == "running" and timeline.job["pid"] == script.pid
    assert sum(timeline.pieces) > 5


def test_a_record_is_read_through_a_workshop(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    run(cluster, "mixed")
    elsewhere = Place(tmp_path)
    with connect(load(), cluster.place) as control:
        found = find_record(elsewhere, "last", control)
        assert found == find_record(cluster.place, "last")
        assert list_records(elsewhere, control) == list_records(cluster.place)
        with pytest.raises(RecordError, match="no job 'ffff' is recorded"):
            find_record(elsewhere, "ffff", control)


def test_reports_are_written_without_a_browser(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    run(cluster, "mixed")
    files = [tmp_path / name for name in ("job.html", "job.json", "job.csv")]
    argv = ["job", "report", "last", "--html", str(files[0])]
    argv += ["--json", str(files[1]), "--csv", str(files[2])]
    done = CliRunner().invoke(main, argv, standalone_mode=False)
    assert done.exception is None, done.output
    page, told, table = (path.read_text() for path in files)
    assert "RecordedManager" in page and "https://" not in page.split("<script")[0]
    assert '"outcome": [' in told
    lines = table.splitlines()
    assert lines[0].startswith("piece,pieces,type,worker,host,start_s")
    assert len(lines) == 8 and sum("no antennas" in line for line in lines) == 2
    shown = CliRunner().invoke(main, ["job", "show", "last"], standalone_mode=False)
    assert "7 pieces in" in shown.output
    assert "2 x ValueError: no antennas" in shown.output
    bad = CliRunner().invoke(
        main, ["job", "report", "last", "--csv", "/nowhere/x"], standalone_mode=False
    )
    assert "cannot write /nowhere/x: No such file" in bad.output
    listed = CliRunner().invoke(main, ["job", "list"], standalone_mode=False)
    assert listed.output.count("RecordedManager") >= 1


# --- files -------------------------------------------------------------------


def test_a_record_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, ID, 10)
    writer.append({"job": JOB})
    span = [0.0, 1.0, 0, 0, 1, 0, 1]
    writer.append({"lanes": [["A-1", "h1"]], "types": ["A"], "spans": [span]})
    writer.append({"spans": [span]})
    data = path_of(tmp_path, ID).read_bytes()
    assert len(read(data)) == 2 and len(read(data[:-3])) == 1
    with pytest.raises(RecordError, match="cut off"):
        read(data[:10])
    for junk in (b"\xc1\xc1", b"\x05", b"\x81\xa5spans\x91\x05", os.urandom(200)):
        with pytest.raises(RecordError):
            read(junk)


def test_old_records_make_room(tmp_path: Path) -> None:
    for number in range(6):
        writer = RecordWriter(tmp_path, f"{number:012x}", 3)
        writer.append({"job": JOB | {"id": f"{number:012x}"}})
        os.utime(writer.path, (number, number))
    (tmp_path / "notes.txt").touch()
    assert [job["id"][-1] for job in jobs(tmp_path, 10)] == ["5", "4", "3"]


def test_no_other_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret.job").write_bytes(b"x")
    for id in ("../secret", "secret", "", "0123456789ab"):
        with pytest.raises(RecordError, match="no record"):
            path_of(tmp_path, id)
    with pytest.raises(RecordError, match="no record in"):
        read_file(tmp_path / "0123456789ab.job")


def test_a_record_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs").touch()
    with pytest.raises(RecordError, match="no record of the job"):
        RecordWriter(tmp_path / "jobs", ID, 3)
