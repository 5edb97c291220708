"""What a test run must not leave behind: processes, temporary files, shared memory."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "PYTEST_OPENCLUSTER_RUN"
"""Marks every process that descends from this test process, by its environment."""
SHARED_MEMORY = Path("/dev/shm")
VANISH_S = 10.0
"""Time that what is ending at the end of the run has to be gone."""


class Traces:
    """Watches what this process and its descendants make, from now on.

    Parameters
    ----------
    mark : str
        Unique value of `VARIABLE`.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.directory = Path(tempfile.mkdtemp(prefix="oc-"))
        self._shared_before = _names(SHARED_MEMORY)

    def left(self) -> list[str]:
        """Return a line for each thing that is still there."""
        found = [f"process {pid}: {_command(pid)}" for pid in self.processes()]
        found += [f"file {p}" for p in self.directory.rglob("opencluster-*")]
        found += [f"socket {p}" for p in self.directory.rglob("*") if p.is_socket()]
        return found + [f"shared memory {p}" for p in self._shared()]

    def left_at_last(self, wait_s: float = VANISH_S) -> list[str]:
        """Return what is still there when everything had time to vanish."""
        deadline = time.monotonic() + wait_s
        while (found := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def remove(self) -> None:
        """End and remove what is left, so that one run does not harm the next."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def processes(self) -> list[int]:
        """Return the processes that carry the mark, this one excepted."""
        wanted = os.fsencode(f"{VARIABLE}={self.mark}")
        return [
            pid
            for pid in _pids()
            if pid != os.getpid()
            and wanted in _read(pid, "environ").split(b"\0")
            # helps this very process and ends with it
            and b"multiprocessing.resource_tracker" not in _read(pid, "cmdline")
        ]

    def _shared(self) -> list[Path]:
        paths = [SHARED_MEMORY / name for name in _names(SHARED_MEMORY)]
        new = [path for path in paths if path.name not in self._shared_before]
        ours = {os.getpid(), *self.processes()} if new else set()
        others = [_read(pid, "maps") for pid in _pids() if new and pid not in ours]
        # what a process of another run has mapped is none of our business
        return [p for p in new if not any(os.fsencode(p) in maps for maps in others)]


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()


def _pids() -> Iterator[int]:
    return (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended, or belongs to another user
        return b""


def _command(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
