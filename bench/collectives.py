"""What all workers do together: they read one block, and join many arrays into one."""

from __future__ import annotations

import os
import statistics
import time

from bench import processes
from bench.peers.base import Peer
from bench.points import Point
from bench.tasks import SMALL, WrongAnswer, check_total, expected, fresh_block

HUGE = 100_000_000
"""Bytes of what is broadcast."""
ARRAYS, ARRAY = 64, 16 * 1024 * 1024
"""How many arrays are joined, and the bytes of each."""
SETTLE_S = 14.0
"""What was freed is given back to the system within this time, or not at all."""
LOOK_S = 0.5
SETTLED = 1.02
"""Copies from which it cannot become less: the workers have one."""
LEAST_RUNS = 3
"""Of something that takes long, in one slice."""


def copies_in_memory(peer: Peer, budget_s: float, known: dict[str, int]) -> list[Point]:
    """Return how much the memory of all processes grew, in units of what was spread.

    The block is the user's and there before. The first time in a process is the one
    that counts, as memory that was used before is used again. Memory that the block has
    passed through may take some time to be given back; as much as it was at first is
    told beside.
    """
    # imports take memory too
    _spread(peer, _next(known), SMALL)
    number = _next(known)
    block = fresh_block(number, HUGE)
    before = processes.all_proportional_mib()

    def copies() -> float:
        return (processes.all_proportional_mib() - before) * processes.MIB / HUGE

    with peer.spread(block) as answers:
        found = [copies()]
        until = time.monotonic() + SETTLE_S
        while found[-1] > SETTLED and time.monotonic() < until:
            time.sleep(LOOK_S)
            found.append(copies())
    _check_spread(answers, number, HUGE)
    return [Point(min(found), len(answers), extra={"at first": found[0]})]


def broadcast_time(peer: Peer, budget_s: float, known: dict[str, int]) -> list[Point]:
    """Return the median time until all workers have read what was spread."""
    if not known:
        _spread(peer, _next(known), HUGE)
    taken: list[float] = []
    while len(taken) < LEAST_RUNS or sum(taken) < budget_s:
        taken.append(_spread(peer, _next(known), HUGE))
    return [Point(statistics.median(taken), len(taken))]


def _spread(peer: Peer, number: int, size: int) -> float:
    """Return the seconds until all workers have read a block, and have let go of it."""
    block = fresh_block(number, size)
    started = time.perf_counter()
    with peer.spread(block) as answers:
        elapsed_s = time.perf_counter() - started
    _check_spread(answers, number, size)
    return elapsed_s


def _check_spread(answers: list[int], number: int, size: int) -> None:
    if set(answers) != {expected(number, size)}:
        raise WrongAnswer(f"not all workers read block {number} of {size} bytes")


def _next(known: dict[str, int]) -> int:
    known["number"] = known.get("number", 0) + 1
    return known["number"]


def join_memory(peer: Peer, budget_s: float, known: dict[str, int]) -> list[Point]:
    """Return by how much this process grows at most while arrays are joined."""
    # imports take memory too
    _join(peer, 2, SMALL)
    before = processes.resident_mib(os.getpid())
    arrays = peer.keep_arrays(ARRAYS, ARRAY)
    processes.forget_peak()
    joined = peer.joined(arrays)
    check_total(joined, ARRAYS, ARRAY)
    return [Point(processes.peak_mib() - before, ARRAYS)]


def join_time(peer: Peer, budget_s: float, known: dict[str, int]) -> list[Point]:
    """Return the median time from arrays that workers have to their sum here."""
    if not known:
        known["warm"] = 1
        _join(peer, ARRAYS, ARRAY)
    taken: list[float] = []
    while len(taken) < LEAST_RUNS or sum(taken) < budget_s:
        taken.append(_join(peer, ARRAYS, ARRAY))
    return [Point(statistics.median(taken), len(taken))]


def _join(peer: Peer, count: int, size: int) -> float:
    """Return the seconds that it takes to join so many arrays."""
    arrays = peer.keep_arrays(count, size)
    started = time.perf_counter()
    joined = peer.joined(arrays)
    elapsed_s = time.perf_counter() - started
    check_total(joined, count, size)
    return elapsed_s
