"""What can be seen of another process from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from opencluster.net.onlooker import GONE, RUNNING, STOPPED, UNKNOWN, Onlooker

DEADLINE_S = 20.0


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps, whose name is made to mislead."""
    code = (
        "import pathlib, time; pathlib.Path('/proc/self/comm').write_text(') T 1 (');"
        "print(flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def wait_until_it_is(process: Onlooker, state: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while process.look() != state:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_process_runs_stands_still_goes_on_and_ends(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process = Onlooker(sleeper.pid)
    assert process.look() == RUNNING
    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_until_it_is(process, STOPPED)
    os.kill(sleeper.pid, signal.SIGCONT)
    wait_until_it_is(process, RUNNING)
    sleeper.kill()
    # not yet waited for, and then not there any more
    wait_until_it_is(process, GONE)
    sleeper.wait()
    assert process.look() == GONE


def test_of_a_process_that_cannot_be_seen_nothing_is_known() -> None:
    assert Onlooker(0).look() == UNKNOWN
    assert Onlooker(1 << 30).look() == UNKNOWN


def test_another_process_of_the_same_number_is_not_taken_for_it(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Onlooker(sleeper.pid)
    other = Onlooker(os.getpid())
    monkeypatch.setattr(process, "_path", other._path)
    assert process.look() == GONE


def test_without_a_descriptor_left_nobody_is_taken_for_gone(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Onlooker(sleeper.pid)

    def fail() -> tuple[str, str]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(process, "_read", fail)
    assert process.look() == UNKNOWN
