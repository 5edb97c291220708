"""One workshop at a time for a directory on a computer."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from opencluster.errors import OpenClusterError
from opencluster.node import claim as claim_module
from opencluster.node.claim import Claim

OTHER = """
import sys
from pathlib import Path
from opencluster.node.claim import Claim
claim = Claim(Path(sys.argv[1]), "1234567890")
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_second_claim_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    first = Claim(tmp_path, "a" * 32)
    with pytest.raises(OpenClusterError, match=rf"runs already .*pid {os.getpid()}\)"):
        Claim(tmp_path, "b" * 32)
    first.release()
    Claim(tmp_path, "c" * 32).release()


def test_computers_that_share_a_directory_have_a_claim_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Claim(tmp_path, "a" * 32)
    monkeypatch.setattr(claim_module, "host_name", lambda: "another")
    Claim(tmp_path, "b" * 32).release()
    first.release()


@pytest.mark.processes
def test_the_claim_of_a_killed_process_is_free_and_its_files_are_removed(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"taken\n"
        with pytest.raises(OpenClusterError, match=rf"pid {other.pid}\)"):
            Claim(tmp_path, "a" * 32)
        other.send_signal(signal.SIGKILL)
        other.wait()
    its = ["12345678-T-1.board", "12345678-T-1.entry", "w-12345678-99.sock"]
    others = ["87654321-T-1.board", "87654321-T-1.entry", "w-87654321-99.sock"]
    for name in its + others:
        (tmp_path / name).touch()
    claim = Claim(tmp_path, "a" * 32)
    claim.clear(tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"}
    assert left == set(others)
    claim.release()


def test_a_file_system_without_locks_keeps_nobody_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    Claim(tmp_path, "a" * 32).release()
    assert "would not notice each other" in caplog.text
