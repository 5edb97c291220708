"""The processes that a measure started, whoever their parent is, and what they use.

They carry a mark in their environment, which their children inherit: some peers start
daemons that leave their parent, and those have to be found, counted and ended as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil

MARK_VARIABLE = "BENCH_MARK"
MIB = 1 << 20
END_TIMEOUT_S = 10.0
"""How long processes that were asked to end may take before they are killed."""
GRACE_S = 3.0
"""Time that those which are about to end by themselves have for it."""
_HELPER = b"multiprocessing.resource_tracker"
"""Command of a process that ends when those that use it have ended."""


def marked(mark: str) -> list[int]:
    """Return the processes that carry a mark."""
    wanted = os.fsencode(f"{MARK_VARIABLE}={mark}")
    return [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and wanted in _read(path / "environ").split(b"\0")
    ]


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor time that these processes have used, of all that live."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def private_mib(pid: int) -> float:
    """Return the memory that would be free if only this process ended, in MiB."""
    return float(psutil.Process(pid).memory_full_info().uss) / MIB


def all_proportional_mib() -> float:
    """Return the memory of all processes of this mark, in MiB.

    What several share counts once among all of them (PSS). Memory that nobody has
    mapped any more does not count.
    """
    pids = marked(os.environ.get(MARK_VARIABLE, ""))
    return sum(map(proportional_mib, pids))


def proportional_mib(pid: int) -> float:
    """Return the memory of a process, of what it shares its part, in MiB."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024 / MIB
    return 0.0


def peak_mib() -> float:
    """Return the most resident memory that this process had, in MiB."""
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024 / MIB
    raise RuntimeError("this system does not tell the peak of resident memory")


def forget_peak() -> None:
    """Let `peak_mib` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_mib(pid: int) -> float:
    """Return the memory of a process with what it shares, in MiB."""
    return float(psutil.Process(pid).memory_info().rss) / MIB


def end(mark: str, timeout_s: float = END_TIMEOUT_S) -> int:
    """End all processes that carry a mark, and return when they are gone.

    Returns
    -------
    int
        How many there were: what a peer left behind.
    """
    left = _await_end(mark, GRACE_S if timeout_s else 0.0)
    count = len(left)
    for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 5.0)):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        left = _await_end(mark, patience_s) if left else []
    return count


def _await_end(mark: str, patience_s: float) -> list[int]:
    """Return what is left when all are gone, or when patience is over."""
    deadline = time.monotonic() + patience_s
    while (left := _wanted(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _wanted(mark: str) -> list[int]:
    return [
        pid
        for pid in marked(mark)
        if _HELPER not in _read(Path(f"/proc/{pid}/cmdline")) and not _is_dead(pid)
    ]


def _is_dead(pid: int) -> bool:
    """Return whether a process has ended and nobody has asked how."""
    text = _read(Path(f"/proc/{pid}/stat"))
    return text.rpartition(b")")[2].split()[:1] in ([b"Z"], [])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
