"""How busy this computer is, and what single processes use.

Owns the numbers of a heartbeat: plain types with their units in their names. Must not
judge them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

PROCESSES_KEPT = 1024
"""Processes whose CPU time is remembered from one call to the next."""
DESCENDANTS_MAX = 1000
"""Forked processes that are looked at for one worker."""

SHORTEST_INTERVAL_S = 0.001
"""Least time that a rate is taken over, as clocks may stand still."""

_LOOPBACKS = ("lo", "lo0")


class Measurer:
    """Measures the computer; rates count from the sample before.

    Parameters
    ----------
    interval_s : float
        Seconds in which a further call gets the same sample, as rates over very short
        times say little.
    path : Path
        Whose disk is measured.
    """

    def __init__(self, interval_s: float = 1.0, path: Path = Path("/")) -> None:
        import psutil

        self._psutil = psutil
        self._interval_s = interval_s
        self._path = path
        self._sample: dict[str, float] = {}
        self._counters: dict[str, int] = {}
        self._sampled_at = time.monotonic()
        psutil.cpu_percent()  # its first answer means nothing

    def sample(self) -> dict[str, float]:
        """Return how busy the computer is.

        Returns
        -------
        dict
            ``cpu_percent`` (of all CPUs together), ``cpu_count`` (CPUs that this
            process may use), ``load_1``, ``load_5``, ``load_15``,
            ``memory_{total,used,available}_bytes``, ``swap_{total,used}_bytes``,
            ``disk_{total,used}_bytes``, ``disk_{read,write}_bytes_per_s``,
            ``network_{received,sent}_bytes_per_s`` (without loopback) and
            ``uptime_s``. What the system does not tell is 0.
        """
        now = time.monotonic()
        elapsed_s = now - self._sampled_at
        if not self._sample or elapsed_s >= self._interval_s:
            self._sample = self._levels() | self._rates(elapsed_s)
            self._sampled_at = now
        return dict(self._sample)

    def _levels(self) -> dict[str, float]:
        psutil = self._psutil
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        load_1, load_5, load_15 = psutil.getloadavg()
        try:
            disk = psutil.disk_usage(str(self._path))
            disk_total, disk_used = disk.total, disk.used
        except OSError:
            disk_total = disk_used = 0
        return {
            "cpu_percent": psutil.cpu_percent(),
            "cpu_count": _usable_cpus(),
            "load_1": load_1,
            "load_5": load_5,
            "load_15": load_15,
            "memory_total_bytes": memory.total,
            "memory_used_bytes": memory.used,
            "memory_available_bytes": memory.available,
            "swap_total_bytes": swap.total,
            "swap_used_bytes": swap.used,
            "disk_total_bytes": disk_total,
            "disk_used_bytes": disk_used,
            "uptime_s": time.time() - psutil.boot_time(),
        }

    def _rates(self, elapsed_s: float) -> dict[str, float]:
        before, self._counters = self._counters, self._read_counters()
        elapsed_s = max(elapsed_s, SHORTEST_INTERVAL_S)
        return {
            f"{name}_per_s": max(0, count - before.get(name, count)) / elapsed_s
            for name, count in self._counters.items()
        }

    def _read_counters(self) -> dict[str, int]:
        disk = self._psutil.disk_io_counters()
        networks = [
            counters
            for name, counters in self._psutil.net_io_counters(pernic=True).items()
            if name not in _LOOPBACKS
        ]
        return {
            "disk_read_bytes": disk.read_bytes if disk else 0,
            "disk_write_bytes": disk.write_bytes if disk else 0,
            "network_received_bytes": sum(n.bytes_recv for n in networks),
            "network_sent_bytes": sum(n.bytes_sent for n in networks),
        }


def process_sample(pid: int) -> dict[str, int | float | bool]:
    """Return what a process uses; empty when it is gone.

    Returns
    -------
    dict
        ``rss_bytes``, ``cpu_percent`` (of one CPU, since the call before, which must
        have been in the same process), ``threads``, ``is_stopped`` (by a signal such
        as SIGSTOP), and of all that it forked ``children`` (how many) and
        ``children_rss_bytes``.
    """
    import psutil

    try:
        process = _first_seen(psutil.Process(pid))
        with process.oneshot():
            sample = {
                "rss_bytes": process.memory_info().rss,
                "cpu_percent": process.cpu_percent(),
                "threads": process.num_threads(),
                "is_stopped": process.status() == psutil.STATUS_STOPPED,
            }
    except psutil.Error:
        return {}
    sizes = list(_sizes(_descendants(process)))
    return sample | {"children": len(sizes), "children_rss_bytes": sum(sizes)}


@lru_cache(maxsize=PROCESSES_KEPT)
def _first_seen(process: Any) -> Any:
    """Return the equal object of an earlier call, which knows the CPU time of then.

    Equal means the same pid and start, so a pid that is given out again is not mixed
    up with the process before.
    """
    return process


def _descendants(process: Any) -> list[Any]:
    import psutil

    found: list[Any] = []
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        with contextlib.suppress(psutil.Error):
            found = process.children(recursive=True)
        return found
    left = [process.pid]
    while left and len(found) < DESCENDANTS_MAX:
        for pid in _children(left.pop()):
            left.append(pid)
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
    return found


def _children(pid: int) -> list[int]:
    """Ask the kernel for the children of one process.

    psutil looks through all processes of the computer for them, which takes
    milliseconds for each worker.
    """
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _sizes(processes: Iterable[Any]) -> Iterator[int]:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            yield process.memory_info().rss


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
