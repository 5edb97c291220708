"""What will be measured against what, in which order.

A bout is OpenCluster against one peer, both started anew for it and both alive
throughout, so that each workload is measured on the two within a second. A round has a
bout for each peer and number of workers. From bout to bout and from workload to
workload the two take turns in going first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.peers.catalogue import OURS, Listing
from bench.workloads import Workload

START_ESTIMATE_S = 3.0
SLICE_ESTIMATE = 2.0
"""What a slice takes in all, as a multiple of its budget."""


@dataclass(frozen=True)
class Bout:
    """OpenCluster against one peer.

    Attributes
    ----------
    round : int
        Which one, from 1.
    opponent : Listing or None
        The peer; ``None`` when none can do these workloads.
    workers : int
        How many each side has.
    is_packed : bool
        Whether they share few processes.
    workloads : tuple of Workload
        What is measured, in this order.
    is_ours_first : bool
        Who starts, and who begins with the first workload.
    """

    round: int
    opponent: Listing | None
    workers: int
    is_packed: bool
    workloads: tuple[Workload, ...]
    is_ours_first: bool

    @property
    def title(self) -> str:
        """What it is, for people."""
        name = OURS if self.opponent is None else self.opponent.name
        return f"round {self.round}: {name}, {of_workers(self.workers)}"


Place = tuple[int, bool]
"""How many workers, and whether they share few processes."""
Fixture = tuple[Listing | None, tuple[Workload, ...]]
"""Against whom, and at what."""


def every(
    peers: Iterable[Listing],
    workloads: Sequence[Workload],
    workers: Sequence[int],
    crowd: Sequence[int],
) -> dict[Place, list[Fixture]]:
    """Return all peers at all workloads that they can do.

    Parameters
    ----------
    peers : iterable of Listing
        Besides OpenCluster, which always takes part.
    workloads : sequence of Workload
        What is measured.
    workers, crowd : sequence of int
        Numbers of workers, each a process, and of those that share few processes.
    """
    places: list[Place] = [(count, False) for count in workers]
    places += [(count, True) for count in crowd]
    return {
        (count, is_packed): fixtures(
            count,
            [w for w in workloads if w.is_packed == is_packed],
            dict.fromkeys(peers, workloads),
        )
        for count, is_packed in places
    }


def fixtures(
    workers: int,
    workloads: Iterable[Workload],
    wanted: Mapping[Listing, Iterable[Workload]],
) -> list[Fixture]:
    """Return who meets whom with so many workers.

    Parameters
    ----------
    workers : int
        How many each side has.
    workloads : iterable of Workload
        What has to be measured; what no peer can do, OpenCluster does alone.
    wanted : mapping
        What to measure against each peer, if it can do it.
    """
    workloads = list(workloads)
    found: list[Fixture] = []
    for peer, names in wanted.items():
        both = tuple(w for w in workloads if w in names and _can(peer, w, workers))
        if both:
            found.append((peer, both))
    met = {workload for _, both in found for workload in both}
    if alone := tuple(w for w in workloads if w not in met):
        found.append((None, alone))
    return found


def bouts(places: Mapping[Place, Sequence[Fixture]], rounds: int) -> list[Bout]:
    """Return all bouts in the order in which they take place."""
    return [
        Bout(
            number,
            peer,
            workers,
            is_packed,
            workloads,
            is_ours_first=(number + index) % 2 == 1,
        )
        for number in range(1, rounds + 1)
        for (workers, is_packed), here in places.items()
        for index, (peer, workloads) in enumerate(here)
    ]


def estimate_s(bouts: Iterable[Bout], budget_s: float) -> float:
    """Return about how long bouts will take, in seconds."""
    total_s = 0.0
    for bout in bouts:
        slices = sum(workload.run is not None for workload in bout.workloads)
        sides = 1 if bout.opponent is None else 2
        total_s += sides * (START_ESTIMATE_S + slices * SLICE_ESTIMATE * budget_s)
    return total_s


def of_workers(count: int) -> str:
    """Return the number with its word: ``2 workers``."""
    return "1 worker" if count == 1 else f"{count:,} workers"


def _can(peer: Listing, workload: Workload, workers: int) -> bool:
    is_meant = not peer.most_workers or workers <= peer.most_workers
    return is_meant and peer.load().can(workload.asks)
