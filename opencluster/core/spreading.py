"""How many processes of a type each computer runs, when so many are wanted in all.

Rules that this module keeps:

1. The counts add up to what is wanted.
2. No more is changed than need be: with more wanted no computer loses any, with fewer
   none gets any.
3. What comes goes where there are fewest for the CPUs, what goes leaves where there are
   most; of equals the first by name gets one, and the last one loses one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Computer:
    """A computer that may run a type.

    Attributes
    ----------
    count : int
        How many are wanted there now.
    cpus : float
        How much it can do; of no weight by itself, only beside the others'.
    """

    count: int
    cpus: float = 1.0

    @property
    def weight(self) -> float:
        """How much of the work is its share."""
        return max(self.cpus, 1.0)


def spread(wanted: int, computers: Mapping[str, Computer]) -> dict[str, int]:
    """Return how many each computer should run.

    Parameters
    ----------
    wanted : int
        How many in all, 0 or more.
    computers : mapping of str to Computer
        By name; not empty.

    Raises
    ------
    ValueError
        When there is no computer.
    """
    if not computers:
        raise ValueError("there is no computer to run anything on")
    counts = {name: each.count for name, each in computers.items()}
    while (missing := wanted - sum(counts.values())) != 0:
        if missing > 0:
            counts[_emptiest(counts, computers)] += 1
        else:
            counts[_fullest(counts, computers)] -= 1
    return counts


def _emptiest(counts: Mapping[str, int], computers: Mapping[str, Computer]) -> str:
    return min(
        counts, key=lambda name: ((counts[name] + 1) / computers[name].weight, name)
    )


def _fullest(counts: Mapping[str, int], computers: Mapping[str, Computer]) -> str:
    return max(
        (name for name in counts if counts[name]),
        key=lambda name: (counts[name] / computers[name].weight, name),
    )
