"""Where a piece should run, given where its values are and how busy the workers are.

Rules that this module keeps:

1. The best worker is the one where the piece could begin soonest: its wait for the
   pieces before it, and then for its values to come.
2. A worker without room is waited for only as long as it remains the best, and never
   longer than the best of the others would have needed: no piece starves for the sake
   of its data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

FAR_BYTES_PER_S = 100e6
"""How fast values are assumed to come from another computer: a line of 1 Gbit/s."""
NEAR_BYTES_PER_S = 4e9
"""How fast they come from another process of the same computer."""
FETCH_S = 0.0005
"""What it takes to ask for a value, however small."""
MAX_WAIT_S = 60.0
"""Longest wait for one worker, when there are no others."""


class Need(NamedTuple):
    """A value that a piece needs.

    Attributes
    ----------
    nbytes : int
        Its size.
    workers : frozenset of str
        Who has it.
    hosts : frozenset of str
        On which computers those are.
    """

    nbytes: int
    workers: frozenset[str]
    hosts: frozenset[str]


class Candidate(NamedTuple):
    """A worker that could run a piece.

    Attributes
    ----------
    worker : str
        Who.
    host : str
        On which computer.
    wait_s : float
        How long it is busy with what it holds.
    has_room : bool
        It may be sent a piece now.
    """

    worker: str
    host: str
    wait_s: float
    has_room: bool


class Choice(NamedTuple):
    """Where a piece should run.

    Attributes
    ----------
    worker : str
        The best worker.
    is_now : bool
        It may be sent the piece now; otherwise the piece waits for it.
    wait_s : float
        How long it may take until the piece begins there: after that, it would have
        begun elsewhere.
    """

    worker: str
    is_now: bool
    wait_s: float


def transfer_s(needs: Iterable[Need], worker: str, host: str) -> float:
    """Return how long it takes until a worker has the values of a piece, in seconds."""
    total_s = 0.0
    for need in needs:
        if worker not in need.workers:
            is_near = host in need.hosts
            rate = NEAR_BYTES_PER_S if is_near else FAR_BYTES_PER_S
            total_s += FETCH_S + need.nbytes / rate
    return total_s


def choose(needs: Sequence[Need], candidates: Iterable[Candidate]) -> Choice | None:
    """Return where a piece should run, or ``None`` when there is nobody.

    Parameters
    ----------
    needs : sequence of Need
        Its values.
    candidates : iterable of Candidate
        Who could run it; of equal ones the first is taken.
    """
    best: Candidate | None = None
    best_s = others_s = float("inf")
    for candidate in candidates:
        cost_s = candidate.wait_s + transfer_s(needs, candidate.worker, candidate.host)
        if cost_s < best_s:
            best, best_s, cost_s = candidate, cost_s, best_s
        if cost_s < others_s:
            others_s = cost_s
    if best is None:
        return None
    return Choice(best.worker, best.has_room, min(others_s, MAX_WAIT_S))
