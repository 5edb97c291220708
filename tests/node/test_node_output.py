"""Log files of processes: rotated, bounded, and never in the way."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from opencluster.node import output
from opencluster.node.output import OutputLog, read_tail

MB = 1_000_000


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "w.log"


def make(path: Path, max_bytes: int = 1000, files: int = 3) -> OutputLog:
    return OutputLog(path, max_bytes, files)


def all_bytes(path: Path) -> bytes:
    """Return what all files of a log hold, oldest first."""
    files = sorted(path.parent.glob(f"{path.name}*"), reverse=True)
    return b"".join(file.read_bytes() for file in files)


# --- writing --------------------------------------------------------------------------


def test_output_is_kept_as_it_is(path):
    log = make(path)
    log.write(b"caf\xe9 \x00\xff\n")
    log.write(b"no newline")
    log.close()
    assert path.read_bytes() == b"caf\xe9 \x00\xff\nno newline"
    assert path.stat().st_mode & 0o777 == 0o600


def test_log_goes_on_after_a_restart(path):
    for text in (b"first\n", b"second\n"):
        log = make(path)
        log.write(text)
        log.close()
    assert path.read_bytes() == b"first\nsecond\n"


@pytest.mark.parametrize("files", [1, 2, 3])
def test_rotation_keeps_the_newest_and_no_more(path, files):
    log = make(path, max_bytes=100, files=files)
    whole = b"".join(b"%09d\n" % n for n in range(200))
    for start in range(0, len(whole), 70):
        log.write(whole[start : start + 70])
    log.close()
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == ["w.log", "w.log.1", "w.log.2"][:files]
    assert all(file.stat().st_size <= 100 for file in path.parent.iterdir())
    kept = all_bytes(path)
    assert whole.endswith(kept)
    assert len(kept) > 100 * (files - 1)


def test_one_write_larger_than_all_files(path):
    log = make(path, max_bytes=100, files=2)
    log.write(b"x" * 950 + b"y" * 150)
    log.close()
    assert all_bytes(path) == b"x" * 50 + b"y" * 150


def test_tail_is_bounded_in_lines_and_bytes(path):
    log = make(path, max_bytes=20 * MB)
    for number in range(100):
        log.write(b"line %d\n" % number)
    assert log.tail().splitlines() == [f"line {n}" for n in range(50, 100)]
    log.write(b"z" * 10 * MB)
    assert log.tail() == "z" * output.TAIL_BYTES
    log.write(b"\nlast \xff\n")
    log.close()
    assert log.tail().splitlines()[-1] == "last \ufffd"
    assert len(log.tail()) <= output.TAIL_BYTES


def test_tail_is_of_this_process_only(path):
    path.write_bytes(b"of the one before\n")
    log = make(path)
    assert log.tail() == ""
    log.close()


def test_full_disk_is_counted_and_reported_once(tmp_path, caplog):
    path = tmp_path / "full.log"
    path.symlink_to("/dev/full")
    log = OutputLog(path, 1000, 2)
    log.write(b"x" * 300)
    log.write(b"y" * 200)
    assert log.lost_bytes == 500
    assert log.tail().endswith("y" * 200)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"cannot write {path}: [Errno 28]" in caplog.text
    log.close()


def test_folder_that_cannot_be_written_and_then_can(tmp_path, caplog):
    folder = tmp_path / "logs"
    log = OutputLog(folder / "w.log", 10, 2)
    log.write(b"lost\n")
    assert (log.lost_bytes, log.tail()) == (5, "lost\n")
    folder.mkdir()
    log.write(b"kept\n")
    log.close()
    assert (folder / "w.log").read_bytes() == b"kept\n"
    assert len(caplog.records) == 1


def test_rotation_that_fails_loses_output_and_nothing_else(path):
    log = make(path, max_bytes=10, files=2)
    log.write(b"0123456789")
    path.with_name("w.log.1").mkdir()
    (path.with_name("w.log.1") / "in the way").touch()
    log.write(b"lost")
    assert log.lost_bytes == 4
    (path.with_name("w.log.1") / "in the way").unlink()
    path.with_name("w.log.1").rmdir()
    log.write(b"kept")
    log.close()
    assert path.read_bytes() == b"kept"


# --- the pipe -------------------------------------------------------------------------


def test_pump_reads_at_most_its_limit_and_tells_the_end(path):
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    log = make(path, max_bytes=MB)
    assert log.pump(reading, 100) == 0
    os.write(writing, b"a" * 250)
    assert log.pump(reading, 100) == 100
    assert log.pump(reading, 100) == 100
    os.close(writing)
    assert log.pump(reading, 100) == 50
    assert log.pump(reading, 100) is None
    os.close(reading)
    log.close()
    assert path.read_bytes() == b"a" * 250


_PRINTER = """
import os
for n in range(200):
    os.write(1, b"x" * 999_999 + b"\\n")
os.write(1, b"the end\\n")
"""


@pytest.mark.processes
def test_process_that_prints_a_lot_fills_neither_disk_nor_memory(path):
    log = make(path, max_bytes=MB, files=3)
    command = [sys.executable, "-c", _PRINTER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        fd = process.stdout.fileno()
        os.set_blocking(fd, False)
        total = 0
        while (moved := log.pump(fd, 256 * 1024)) is not None:
            assert moved <= 256 * 1024
            total += moved
            if not moved:
                assert select.select([fd], [], [], 30)[0]
    log.close()
    assert total == 200 * MB + len("the end\n")
    assert log.lost_bytes == 0
    assert len(all_bytes(path)) <= 3 * MB
    assert log.tail().endswith("x\nthe end\n")
    assert len(log.tail()) <= output.TAIL_BYTES


# --- reading --------------------------------------------------------------------------


def test_read_tail_goes_through_rotated_files(path):
    log = make(path, max_bytes=100, files=3)
    for number in range(40):
        log.write(b"line %2d\n" % number)
    log.close()
    expected = [f"line {n}" for n in range(20, 40)]
    assert read_tail(path, 20).splitlines() == expected
    assert read_tail(path, 1) == "line 39\n"
    assert read_tail(path, 0) == ""
    assert len(read_tail(path, 1000)) == len(all_bytes(path))


def test_read_tail_of_odd_files(path):
    assert read_tail(path, 5) == ""
    path.write_bytes(b"")
    assert read_tail(path, 5) == ""
    path.write_bytes(b"\xff\nno newline")
    assert read_tail(path, 5) == "\ufffd\nno newline"


def test_read_tail_looks_at_a_bounded_part(path, monkeypatch):
    monkeypatch.setattr(output, "READ_TAIL_BYTES", 1000)
    path.write_bytes(b"x" * 5000)
    path.with_name("w.log.1").write_bytes(b"y" * 5000)
    assert read_tail(path, 5) == "x" * 1000
