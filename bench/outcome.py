"""What came out: every sample, and what is made of them.

A ratio is only ever taken between two figures of the same bout, in which both sides
had the same machine; the median of those ratios is not the ratio of the medians.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.peers.catalogue import OURS
from bench.peers.catalogue import find as find_peer
from bench.plan import Bout, of_workers
from bench.points import Point
from bench.workloads import WORKLOADS, Workload
from bench.workloads import find as find_workload


@dataclass(frozen=True)
class Sample:
    """One figure of one side in one bout.

    Attributes
    ----------
    peer, workload : str
        Whose it is, and of what.
    workers : int
        How many there were.
    round : int
        Of the bout.
    opponent : str
        Against whom OpenCluster was measured in it; empty for nobody.
    value : float
        In the unit of the workload.
    count : int
        How much work it comes from.
    at : int
        Number of blocks, for a workload that has several.
    extra : dict
        Further figures.
    others_percent, steal_percent : float
        Who else used the machine meanwhile; see `load.Load`.
    """

    peer: str
    workload: str
    workers: int
    round: int
    opponent: str
    value: float
    count: int = 1
    at: int = 0
    extra: dict[str, float] = field(default_factory=dict)
    others_percent: float = 0.0
    steal_percent: float = 0.0


@dataclass(frozen=True)
class LeftOut:
    """Something that could not be measured, and why."""

    peer: str
    what: str
    why: str


@dataclass(frozen=True)
class Row:
    """A peer at a workload, all rounds of it.

    Attributes
    ----------
    workload : Workload
        What was measured.
    workers, at : int
        With how many workers and, for some, how many blocks.
    peer : str
        Of whom.
    values : sequence of float
        One for each bout.
    ratios : sequence of float
        How many times better OpenCluster was, for each bout that has both figures;
        empty for OpenCluster itself.
    """

    workload: Workload
    workers: int
    at: int
    peer: str
    values: Sequence[float]
    ratios: Sequence[float]

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """The median of the ratios."""
        return statistics.median(self.ratios) if self.ratios else None


class Outcome:
    """Collects samples while they come, so that it is of use at any time."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.left_out: list[LeftOut] = []

    def add(
        self, bout: Bout, peer: str, workload: str, point: Point, **load: float
    ) -> None:
        """Take in a figure."""
        opponent = "" if bout.opponent is None else bout.opponent.name
        self.samples.append(
            Sample(
                peer,
                workload,
                bout.workers,
                bout.round,
                opponent,
                point.value,
                point.count,
                point.at,
                point.extra,
                **load,
            )
        )

    def leave_out(self, peer: str, what: str, why: str) -> None:
        """Take note of what could not be measured; once for each thing."""
        if not any((x.peer, x.what) == (peer, what) for x in self.left_out):
            self.left_out.append(LeftOut(peer, what, why))

    def values(
        self, peer: str, workload: str, workers: int, at: int = 0, opponent: str = ""
    ) -> dict[tuple[int, str], float]:
        """Return the figures of a peer by round and opponent.

        Parameters
        ----------
        opponent : str
            Only those of bouts with it; empty for all.
        """
        return {
            (s.round, s.opponent): s.value
            for s in self.samples
            if (s.peer, s.workload, s.workers, s.at) == (peer, workload, workers, at)
            and opponent in ("", s.opponent)
        }

    def ratios(
        self, peer: str, workload: str, workers: int, at: int = 0
    ) -> list[float]:
        """Return how many times better OpenCluster was than a peer, bout by bout."""
        ours = self.values(OURS, workload, workers, at)
        theirs = self.values(peer, workload, workers, at)
        is_time = find_workload(workload).is_time
        return [
            theirs[bout] / ours[bout] if is_time else ours[bout] / theirs[bout]
            for bout in theirs
            if bout in ours and ours[bout] and theirs[bout]
        ]

    def rows(self) -> Iterator[Row]:
        """Yield what tables show: of each workload the best first."""
        for workload in WORKLOADS:
            places = {
                (s.workers, s.at) for s in self.samples if s.workload == workload.name
            }
            for workers, at in sorted(places):
                rows = self._rows_at(workload, workers, at)
                yield from sorted(
                    rows, key=lambda row: row.median, reverse=not workload.is_time
                )

    def _rows_at(self, workload: Workload, workers: int, at: int) -> Iterator[Row]:
        peers = dict.fromkeys(s.peer for s in self.samples)
        for peer in peers:
            values = self.values(peer, workload.name, workers, at)
            if not values:
                continue
            ratios = (
                [] if peer == OURS else self.ratios(peer, workload.name, workers, at)
            )
            yield Row(workload, workers, at, peer, list(values.values()), ratios)

    def notes(self, cores: int) -> list[str]:
        """Return what a reader of the figures has to know of the peers."""
        notes = []
        for peer in dict.fromkeys(s.peer for s in self.samples):
            note = find_peer(peer).load().note
            if note:
                notes.append(f"{peer}: {note}")
        crowded = sorted(
            {s.workers for s in self.samples if s.peer in SPINNING} - set(range(cores))
        )
        if crowded:
            counts = ", ".join(map(str, crowded[:-1]))
            which = f"{counts} and {crowded[-1]}" if counts else str(crowded[0])
            notes.append(
                f"{' and '.join(SPINNING)} with {which} workers have more ranks than "
                f"the {cores} cores here: those figures tell what it costs that MPICH "
                "spins while it waits, and nothing of MPI; there mpi-yield is the one "
                "to compare with"
            )
        return notes

    def loads(self) -> dict[str, float]:
        """Return how busy the machine was with other things, in percent of it."""
        timed = [s for s in self.samples if find_workload(s.workload).run is not None]
        if not timed:
            return {}
        others = [s.others_percent for s in timed]
        steal = [s.steal_percent for s in timed]
        return {
            "others_percent_median": round(statistics.median(others), 1),
            "others_percent_max": round(max(others), 1),
            "steal_percent_median": round(statistics.median(steal), 1),
            "steal_percent_max": round(max(steal), 1),
        }

    def to_fields(self) -> dict[str, Any]:
        """Return everything as plain types."""
        return {
            "samples": [asdict(sample) for sample in self.samples],
            "left_out": [asdict(one) for one in self.left_out],
            "rows": [
                {
                    "workload": row.workload.name,
                    "unit": row.workload.unit,
                    "workers": row.workers,
                    "at": row.at,
                    "peer": row.peer,
                    "median": row.median,
                    "min": min(row.values),
                    "max": max(row.values),
                    "times_better": row.ratio,
                    "ratios": list(row.ratios),
                }
                for row in self.rows()
            ],
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Outcome:
        """Return what `to_fields` wrote."""
        outcome = cls()
        outcome.samples = [Sample(**sample) for sample in fields["samples"]]
        outcome.left_out = [LeftOut(**one) for one in fields["left_out"]]
        return outcome


SPINNING = ("mpi-static", "mpi-farm")


def place_of(workload: Workload, workers: int) -> str:
    """Return what was measured with how many workers, for people."""
    return f"{workload.title}, {of_workers(workers)}"
