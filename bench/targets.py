"""What OpenCluster sets out to reach, each a figure that is measured, and a bound.

Most are ratios against a peer in the same bout. Where a peer has several variants, the
one that does best against OpenCluster counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import number
from bench.outcome import Outcome, place_of
from bench.peers import catalogue
from bench.peers.catalogue import OURS
from bench.plan import Fixture, Place, fixtures
from bench.workloads import WORKLOADS, Workload, find

DASK = ("dask", "dask-tuned", "dask-scatter")
RAY = ("ray-tasks", "ray-actors")
MPI = ("mpi-static", "mpi-farm", "mpi-yield")
ONE_COPY = 1.1
"""The copy, and a tenth for all else that processes need meanwhile."""
IDLE_MIB = 28.6
"""30 MB."""


@dataclass(frozen=True)
class Target:
    """One bound on one figure of OpenCluster.

    Attributes
    ----------
    workload : str
        What is measured,
    workers : int
        with so many workers.
    bound : float
        What the figure is held against.
    is_at_most : bool
        Whether it has to be below.
    peers : sequence of str
        Against whom; with none, the figure of OpenCluster itself is meant.
    against_workers : int
        Its own figure with so many workers is what it is compared with; 0 for none.
    """

    workload: str
    workers: int
    bound: float
    is_at_most: bool = False
    peers: Sequence[str] = ()
    against_workers: int = 0

    @property
    def is_ratio(self) -> bool:
        """Whether a ratio is held against the bound."""
        return bool(self.peers or self.against_workers)

    @property
    def measure(self) -> str:
        """What is measured, in words."""
        return place_of(find(self.workload), self.workers)

    @property
    def unit(self) -> str:
        """The unit of the figure of OpenCluster."""
        return find(self.workload).unit

    @property
    def text(self) -> str:
        """The bound in words."""
        word = "at most" if self.is_at_most else "at least"
        return f"{word} {number(self.bound)} {'x' if self.is_ratio else self.unit}"


@dataclass(frozen=True)
class Verdict:
    """What became of a target.

    Attributes
    ----------
    target : Target
        Which one.
    ours : float or None
        The figure of OpenCluster.
    peer : str
        The one that it was held against.
    theirs : float or None
        The figure of that one.
    ratio : float or None
        Theirs to ours or ours to theirs, as the target is put.
    """

    target: Target
    ours: float | None = None
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; ``None`` when it was not measured."""
        figure = self.ratio if self.target.is_ratio else self.ours
        if figure is None:
            return None
        bound = self.target.bound
        return figure <= bound if self.target.is_at_most else figure >= bound

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of a table."""
        ours, theirs, ratio = (
            "" if x is None else number(x) for x in (self.ours, self.theirs, self.ratio)
        )
        met = {True: "met", False: "not met", None: "not measured"}[self.is_met]
        peer = f"{self.peer} {theirs}".strip()
        target = self.target
        return target.measure, ours, target.unit, peer, ratio, target.text, met

    def to_fields(self) -> dict[str, Any]:
        """Return the verdict as plain types."""
        return {
            "measure": self.target.measure,
            "unit": self.target.unit,
            "ours": self.ours,
            "peer": self.peer,
            "theirs": self.theirs,
            "ratio": self.ratio,
            "target": self.target.text,
            "is_met": self.is_met,
        }


HEADINGS = ("measure", "OpenCluster", "", "against", "ratio", "target", "")

TARGETS = (
    Target("roundtrip", 1, 1.2, True, ("zmq",)),
    Target("roundtrip", 1, 40, True),
    Target("roundtrip", 1, 6, peers=("ray-actors",)),
    Target("pieces", 2, 100_000),
    Target("pieces", 2, 60, peers=("dask-tuned",)),
    Target("pieces", 2, 40, peers=("ray-actors",)),
    Target("submits", 2, 40_000),
    Target("blocks-100k", 1, 1.0, peers=MPI),
    Target("blocks-5m", 1, 1.5, peers=MPI),
    Target("inplace-100k", 1, 1.5, peers=MPI),
    Target("inplace-5m", 1, 4, peers=MPI),
    Target("results-5m", 1, 1.4, peers=MPI),
    Target("inplace-results", 1, 4, peers=MPI),
    *(
        Target(workload, workers, 0.7, against_workers=2)
        for workload in ("pieces", "blocks-100k", "blocks-5m")
        for workers in (4, 16)
    ),
    *(
        Target(workload, workers, bound, peers=peers)
        for workload, peers, bound in (
            ("blocks-100k", DASK, 40),
            ("blocks-100k", RAY, 15),
            ("blocks-5m", DASK, 10),
            ("blocks-5m", RAY, 6),
        )
        for workers in (4, 16)
    ),
    Target("crowd", 1024, 0.8, against_workers=16),
    Target("copies", 16, ONE_COPY, True),
    Target("reduce", 2, 0.5, True, ("opencluster-gather",)),
    Target("reduce-memory", 2, 0.1, True, ("opencluster-gather",)),
    Target("memory", 1, IDLE_MIB, True),
)


Meeting = tuple[str, int, Sequence[str]]
"""A workload, how many workers, and against whom."""

BESIDE: tuple[Meeting, ...] = (
    ("startup", 1, ("zmq", "dask-tuned", "ray-actors")),
    ("figure8", 1, ("mpi-static", "mpi-yield", "limit-unix")),
    ("figure9", 1, ("mpi-static", "mpi-yield", "limit-unix")),
    *(
        (workload, 1, ("opencluster-tcp", "opencluster-curve", "limit-tcp"))
        for workload in ("roundtrip", "blocks-100k", "blocks-5m")
    ),
    ("broadcast", 16, ("dask-tuned", "ray-actors")),
    ("crowd", 64, ()),
    ("crowd", 256, ()),
)
"""What belongs beside the targets, though it has no bound."""


def places(
    targets: Sequence[Target], beside: Sequence[Meeting] = ()
) -> dict[Place, list[Fixture]]:
    """Return who has to meet whom, and where, to tell of all targets, and the rest."""
    meetings = [(t.workload, t.workers, t.peers) for t in targets]
    meetings += [(t.workload, t.against_workers, ()) for t in targets]
    wanted: dict[Place, dict[Workload, set[str]]] = {}
    for name, workers, peers in [*meetings, *beside]:
        workload = find(name)
        if workers:
            here = wanted.setdefault((workers, workload.is_packed), {})
            here.setdefault(workload, set()).update(peers)
    return {
        place: fixtures(
            place[0],
            sorted(here, key=WORKLOADS.index),
            {
                listing: [w for w, names in here.items() if listing.name in names]
                for listing in catalogue.PEERS
                if listing.name != OURS and not listing.lacking()
            },
        )
        for place, here in sorted(wanted.items(), key=lambda item: item[0])
    }


def judge(target: Target, outcome: Outcome) -> Verdict:
    """Hold what was measured against a target."""
    ours = list(outcome.values(OURS, target.workload, target.workers).values())
    if not ours:
        return Verdict(target)
    if target.against_workers:
        return _against_itself(target, outcome)
    if not target.peers:
        return Verdict(target, statistics.median(ours))
    return _against_best(target, outcome)


def _against_itself(target: Target, outcome: Outcome) -> Verdict:
    """Compare round by round with another number of workers."""
    here, there = (
        _by_round(outcome, target.workload, workers)
        for workers in (target.workers, target.against_workers)
    )
    ratios = [here[turn] / there[turn] for turn in here if turn in there]
    if not ratios:
        return Verdict(target, statistics.median(here.values()))
    return Verdict(
        target,
        statistics.median(here.values()),
        f"{target.against_workers} workers",
        statistics.median(there.values()),
        statistics.median(ratios),
    )


def _by_round(outcome: Outcome, workload: str, workers: int) -> dict[int, float]:
    """Return the median of OpenCluster in each round."""
    values: dict[int, list[float]] = {}
    for (turn, _), value in outcome.values(OURS, workload, workers).items():
        values.setdefault(turn, []).append(value)
    return {turn: statistics.median(found) for turn, found in values.items()}


def _against_best(target: Target, outcome: Outcome) -> Verdict:
    """Compare with the variant against which OpenCluster does worst."""
    where = target.workload, target.workers
    ratios = {peer: outcome.ratios(peer, *where) for peer in target.peers}
    medians = {peer: statistics.median(r) for peer, r in ratios.items() if r}
    if not medians:
        return Verdict(target)
    best = min(medians, key=lambda peer: medians[peer])
    ratio = 1 / medians[best] if target.is_at_most else medians[best]
    ours = outcome.values(OURS, *where, opponent=best)
    theirs = outcome.values(best, *where)
    return Verdict(
        target,
        statistics.median(ours.values()),
        best,
        statistics.median(theirs.values()),
        ratio,
    )
