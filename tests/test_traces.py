"""The check at the end of a test run finds what a run leaves behind."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from traces import SHARED_MEMORY, VARIABLE, Traces

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


@pytest.fixture
def watch() -> Iterator[Traces]:
    """Stand in for the check of the whole run, which has another mark."""
    watch = Traces(uuid.uuid4().hex)
    yield watch
    watch.remove()


def test_a_run_that_leaves_nothing(watch: Traces) -> None:
    (watch.directory / "anything").touch()
    assert watch.left_at_last(30.0) == []


def test_processes_of_this_run_are_found_and_ended(watch: Traces) -> None:
    environment = os.environ | {VARIABLE: watch.mark}
    with (
        subprocess.Popen(SLEEP, env=environment, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as others,
    ):
        for process in (ours, others):
            assert process.stdout is not None
            process.stdout.readline()
        assert watch.processes() == [ours.pid]
        assert str(ours.pid) in watch.left()[0] and "sleep(600)" in watch.left()[0]
        watch.remove()
        assert ours.wait(30) == -9
        assert others.poll() is None
        others.kill()
    assert watch.left_at_last(30.0) == []


def test_what_vanishes_in_time_is_not_left(watch: Traces) -> None:
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {VARIABLE: watch.mark},
        stdin=subprocess.PIPE,
    ) as process:
        assert watch.left_at_last(0.0)
        assert process.stdin is not None
        process.stdin.close()
        assert watch.left_at_last(30.0) == []


def test_directories_and_sockets_are_found(watch: Traces) -> None:
    directory = watch.directory / "opencluster-abc" / "run"
    directory.mkdir(parents=True)
    path = directory / "w.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    assert watch.left()[:2] == [f"file {directory.parent}", f"socket {path}"]
    watch.remove()
    assert not watch.directory.exists()


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="hardware: no /dev/shm")
def test_shared_memory_is_found_unless_another_run_uses_it(watch: Traces) -> None:
    path = SHARED_MEMORY / f"trace-{uuid.uuid4().hex}"
    code = "import mmap, sys; file = open(sys.argv[1], 'r+b'); "
    code += "m = mmap.mmap(file.fileno(), 4096); print(flush=True); sys.stdin.read()"
    try:
        path.write_bytes(bytes(4096))
        assert f"shared memory {path}" in watch.left()
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
            assert f"shared memory {path}" in watch.left()
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            assert f"shared memory {path}" not in watch.left()
            other.communicate()
    finally:
        path.unlink()
    assert Path(path).name not in str(watch.left())
