"""Who else used the machine while a slice was measured."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from bench.processes import cpu_seconds, marked

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """What went on besides, in percent of all cores.

    Attributes
    ----------
    others_percent : float
        What all other processes used, those of the waiting peer too.
    steal_percent : float
        What the hypervisor gave to other machines.
    """

    others_percent: float
    steal_percent: float


class LoadMeter:
    """Compares the machine with the processes of one mark, from now on.

    Parameters
    ----------
    mark : str
        Of the processes whose turn it is.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._started = time.monotonic()
        self._own_s = cpu_seconds(marked(mark))
        self._busy_s, self._steal_s = _machine()

    def read(self) -> Load:
        """Return the load since the start."""
        busy_s, steal_s = _machine()
        own_s = cpu_seconds(marked(self._mark))
        elapsed_s = time.monotonic() - self._started
        whole_s = max(_TICK_S, elapsed_s * (os.cpu_count() or 1))
        others_s = (busy_s - self._busy_s) - (own_s - self._own_s)
        return Load(
            100 * min(1.0, max(0.0, others_s) / whole_s),
            100 * min(1.0, (steal_s - self._steal_s) / whole_s),
        )


def _machine() -> tuple[float, float]:
    """Return the seconds in which cores worked, and in which they were taken away."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq) * _TICK_S, steal * _TICK_S
