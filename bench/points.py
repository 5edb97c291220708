"""What one slice of a measure gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.peers.base import Peer


@dataclass(frozen=True)
class Point:
    """One figure that a slice gave.

    Attributes
    ----------
    value : float
        The figure, in the unit of the workload.
    count : int
        How much work it comes from: round trips, pieces or blocks.
    at : int
        Number of blocks that it stands for in a workload of several, else 0.
    extra : dict
        Further figures by name.
    """

    value: float
    count: int
    at: int = 0
    extra: dict[str, float] = field(default_factory=dict)


Run = Callable[[Peer, float, dict[str, int]], list[Point]]
"""Measures one slice: given a peer that runs, the seconds that it may take, and what is
known from earlier slices of the same process, returns figures."""
