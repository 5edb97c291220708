"""Hand-written MPI programs over mpi4py: rank 0 has the pieces, the others work.

The static programs are what one writes when the division of the work is fixed: the
receiver knows what will come, and two sends are in flight to each rank. The farm sends
to whoever has answered. The one that yields gives the core away while it waits, which
costs a little on idle cores, and makes it the reference when there are more ranks than
cores: MPICH spins while it waits, and ranks that spin keep the others from working.

Only NumPy buffers travel, nothing is pickled. Between two measures all ranks sleep.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench.peers.base import Peer, Sums
from bench.peers.mpi_comm import (
    BLOCK,
    ECHO,
    HEAD,
    IN_FLIGHT,
    MAKE,
    PID,
    REST,
    STATIC_BLOCKS,
    STATIC_MAKES,
    STOP,
    WAKE,
    comm,
)
from bench.tasks import Make, Rooms, fresh_block, touch

LAUNCHERS = ("mpiexec.mpich", "mpiexec.hydra", "mpiexec")
ECHOES_AHEAD = 32
"""Trivial pieces on their way to each rank."""


def launcher() -> str | None:
    """Return the program that starts the ranks, if there is one."""
    return next(filter(None, map(shutil.which, LAUNCHERS)), None)


class Farm(Peer):
    """Blocking calls: to whoever is free, from whoever has answered."""

    note = "spins while it waits: fair only with as many ranks as cores"
    is_yielding = False

    @classmethod
    def command(cls, home: str, workers: int) -> list[str]:
        """Return the command that starts one rank more than there are workers."""
        ranks = [str(launcher()), "-n", str(workers + 1), "-launcher", "fork"]
        return [*ranks, sys.executable, "-m", "bench.peers.mpi_rank", home]

    def start(self, workers: int) -> None:
        """Meet the ranks that were started with this one."""
        self._comm = comm(self.is_yielding)
        self._ranks = range(1, workers + 1)
        self._head = np.zeros(HEAD, np.int64)
        self._rooms = Rooms(IN_FLIGHT * workers)

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Have the ranks wait in the way of MPI, and sleep afterwards."""
        self._tell(WAKE)
        for rank in self._ranks:
            self._comm.receive(self._head, rank, WAKE)
        try:
            yield
        finally:
            self._tell(REST)

    def noop(self) -> None:
        """Send a number to rank 1 and receive it."""
        self._comm.send(self._head, 1, ECHO)
        self._comm.receive(self._head, 1, ECHO)

    def noops(self, count: int) -> int:
        """Keep each rank a few numbers ahead."""
        comm, status = self._comm, self._comm.new_status()
        out, back = np.zeros(HEAD, np.int64), np.zeros(HEAD, np.int64)
        first = (list(self._ranks) * ECHOES_AHEAD)[:count]
        for rank in first:
            comm.send(out, rank, ECHO)
        for number in range(count):
            comm.receive(back, comm.source, ECHO, status)
            if number + len(first) < count:
                comm.send(out, status.Get_source(), ECHO)
        return count

    def blocks(self, count: int, size: int) -> Sums:
        """Send new blocks."""
        return self._send_blocks(count, size, fresh_block)

    def blocks_in_place(self, count: int, size: int) -> Sums:
        """Send blocks from buffers that are kept, and filled when they are free."""
        return self._send_blocks(count, size, self._rooms.block)

    def results(self, count: int, size: int) -> Sums:
        """Have the ranks make new blocks."""
        return self._take_results(count, size)

    def results_in_place(self, count: int, size: int) -> Sums:
        """Have the ranks fill buffers that they keep."""
        return self._take_results(count, size, is_in_place=True)

    def worker_pids(self) -> list[int]:
        """Ask each rank."""
        pids = []
        for rank in self._ranks:
            self._comm.send(self._head, rank, PID)
            self._comm.receive(self._head, rank, PID)
            pids.append(int(self._head[0]))
        return pids

    def close(self) -> None:
        """Let the ranks end."""
        self._tell(STOP)

    def _send_blocks(self, count: int, size: int, make: Make) -> Sums:
        """Send each block to a free rank, and wait for an answer when none is."""
        comm, status = self._comm, self._comm.new_status()
        free = list(self._ranks)
        back = np.zeros(HEAD, np.int64)
        sums: list[tuple[int, int]] = []

        def take() -> None:
            comm.receive(back, comm.source, BLOCK, status)
            free.append(status.Get_source())
            sums.append((int(back[0]), int(back[1])))

        for number in range(count):
            if not free:
                take()
            rank = free.pop(0)
            self._head[:] = number, size, 0, 0
            comm.send(self._head, rank, BLOCK)
            comm.send(make(number, size), rank, BLOCK)
        while len(sums) < count:
            take()
        return sums

    def _take_results(self, count: int, size: int, is_in_place: bool = False) -> Sums:
        """Ask each rank for a block, and for the next when it comes."""
        comm, status = self._comm, self._comm.new_status()
        asked: dict[int, int] = {}
        numbers = iter(range(count))
        sums = []

        def ask(rank: int) -> None:
            number = next(numbers, None)
            if number is not None:
                asked[rank] = number
                self._head[:] = number, size, 0, is_in_place
                comm.send(self._head, rank, MAKE)

        for rank in self._ranks:
            ask(rank)
        for _ in range(count):
            block = np.empty(size, np.uint8)
            comm.receive(block, comm.source, MAKE, status)
            number = asked[status.Get_source()]
            ask(status.Get_source())
            sums.append((number, touch(block)))
        return sums

    def _tell(self, tag: int) -> None:
        for rank in self._ranks:
            self._comm.send(self._head, rank, tag)


class Static(Farm):
    """Blocks are dealt out in turn, two in flight to each rank; no rank is asked."""

    def _send_blocks(self, count: int, size: int, make: Make) -> Sums:
        """Send on without waiting for answers, which are taken as they come."""
        comm, ranks = self._comm, self._ranks
        self._share(count, size, STATIC_BLOCKS)
        in_flight: list[list[tuple[Any, Any]]] = [[] for _ in ranks]
        sums: list[tuple[int, int]] = []
        back = np.zeros(HEAD, np.int64)

        def take() -> None:
            comm.receive(back, comm.source, BLOCK)
            sums.append((int(back[0]), int(back[1])))

        for number in range(count):
            turn = number % len(ranks)
            if len(in_flight[turn]) == IN_FLIGHT:
                comm.finish(in_flight[turn].pop(0)[0])
            block = make(number, size)
            request = comm.begin_send(block, ranks[turn], BLOCK)
            in_flight[turn].append((request, block))
            while comm.is_there(comm.source, BLOCK):
                take()
        while len(sums) < count:
            take()
        for request, _ in sum(in_flight, []):
            comm.finish(request)
        return sums

    def _take_results(self, count: int, size: int, is_in_place: bool = False) -> Sums:
        """Receive in turn from the ranks, into buffers that are kept."""
        comm, ranks = self._comm, self._ranks
        self._share(count, size, STATIC_MAKES, is_in_place)
        ahead = min(count, IN_FLIGHT * len(ranks))
        rooms = [np.zeros(size, np.uint8) for _ in range(ahead)]

        def expect(number: int) -> Any:
            rank = ranks[number % len(ranks)]
            return comm.begin_receive(rooms[number % ahead], rank, MAKE)

        requests = [expect(number) for number in range(ahead)]
        sums = []
        for number in range(count):
            comm.finish(requests[number % ahead])
            sums.append((number, touch(rooms[number % ahead])))
            if number + ahead < count:
                requests[number % ahead] = expect(number + ahead)
        return sums

    def _share(
        self, count: int, size: int, tag: int, is_in_place: bool = False
    ) -> None:
        """Tell each rank of all blocks which it has: every so many, of one size."""
        self._head[:] = count, size, len(self._ranks), is_in_place
        self._tell(tag)


class YieldingStatic(Static):
    """The static program, but who waits gives the core away."""

    note = ""
    is_yielding = True
