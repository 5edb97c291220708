"""The ranks of an MPI program: ``mpiexec -n 3 python -m bench.peers.mpi_rank HOME``.

Rank 0 drives the program, as `bench.driver` says; the others work until told to stop.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, cast

import numpy as np

from bench.driver import drive
from bench.peers.catalogue import load
from bench.peers.mpi import Farm
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
    Comm,
    comm,
)
from bench.tasks import Make, Rooms, echo, fresh_block, touch

NAP_S = 0.005
"""Ranks that rest look for a message this often."""


class Rank:
    """A rank that works.

    Parameters
    ----------
    comm : Comm
        By which it is reached.
    """

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._head = np.zeros(HEAD, np.int64)
        self._room = np.zeros(0, np.uint8)
        self._rooms = Rooms(IN_FLIGHT)
        self._handlers = {
            ECHO: self._echo,
            BLOCK: self._block,
            MAKE: self._make,
            STATIC_BLOCKS: self._static_blocks,
            STATIC_MAKES: self._static_makes,
            PID: self._pid,
        }

    def run(self) -> None:
        """Work until told to stop."""
        comm, status = self._comm, self._comm.new_status()
        is_resting = True
        while True:
            while is_resting and not comm.is_there(0):
                time.sleep(NAP_S)
            comm.receive(self._head, 0, comm.tag, status)
            tag = status.Get_tag()
            if tag == STOP:
                return
            if tag == REST:
                is_resting = True
            elif tag == WAKE:
                is_resting = False
                comm.send(self._head, 0, WAKE)
            else:
                self._handlers[tag]()

    def _echo(self) -> None:
        self._head[0] = echo(int(self._head[0]))
        self._comm.send(self._head, 0, ECHO)

    def _block(self) -> None:
        number, size = int(self._head[0]), int(self._head[1])
        room = self._room_for(size)
        self._comm.receive(room, 0, BLOCK)
        self._answer(number, touch(room))

    def _make(self) -> None:
        number, size = int(self._head[0]), int(self._head[1])
        self._comm.send(self._maker()(number, size), 0, MAKE)

    def _static_blocks(self) -> None:
        numbers, size = self._share()
        room = self._room_for(size)
        for number in numbers:
            self._comm.receive(room, 0, BLOCK)
            self._answer(number, touch(room))

    def _static_makes(self) -> None:
        numbers, size = self._share()
        make = self._maker()
        in_flight: list[tuple[Any, Any]] = []
        for number in numbers:
            if len(in_flight) == IN_FLIGHT:
                self._comm.finish(in_flight.pop(0)[0])
            block = make(number, size)
            in_flight.append((self._comm.begin_send(block, 0, MAKE), block))
        for request, _ in in_flight:
            self._comm.finish(request)

    def _pid(self) -> None:
        self._head[0] = os.getpid()
        self._comm.send(self._head, 0, PID)

    def _share(self) -> tuple[range, int]:
        count, size, ranks = map(int, self._head[:3])
        return range(self._comm.rank - 1, count, ranks), size

    def _answer(self, number: int, answer: int) -> None:
        self._head[0], self._head[1] = number, answer
        self._comm.send(self._head, 0, BLOCK)

    def _maker(self) -> Make:
        return self._rooms.block if self._head[3] else fresh_block

    def _room_for(self, size: int) -> Any:
        if len(self._room) < size:
            self._room = np.zeros(size, np.uint8)
        return self._room[:size]


def main() -> None:
    """Drive the program, or work in it."""
    home = sys.argv[1]
    ranks = comm(cast(type[Farm], load(home)).is_yielding)
    if ranks.rank:
        Rank(ranks).run()
    else:
        drive(home)


if __name__ == "__main__":
    main()
