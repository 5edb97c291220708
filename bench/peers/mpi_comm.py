"""What all ranks of an MPI program share: tags, and how they wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

WAKE, REST, ECHO, BLOCK, MAKE, STATIC_BLOCKS, STATIC_MAKES, PID, STOP = range(1, 10)
"""Tags: what a message asks for."""
HEAD = 4
"""Integers of a message that is no block: a number or how many there are, the size of
a block, how many ranks there are, and whether memory is used again."""
IN_FLIGHT = 2
"""Blocks on their way to, or from, each rank of the static program."""


class Comm:
    """The calls of a communicator that are used, blocking in the way of MPI.

    Attributes
    ----------
    source, tag : int
        Stand for any rank and for any tag.
    """

    def __init__(self) -> None:
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        self.source, self.tag = int(MPI.ANY_SOURCE), int(MPI.ANY_TAG)
        self.rank: int = world.Get_rank()
        self.new_status: Callable[[], Any] = MPI.Status
        self.is_there: Callable[..., bool] = world.Iprobe
        self.send: Callable[..., None] = world.Send
        self.receive: Callable[..., None] = world.Recv
        self.begin_send: Callable[..., Any] = world.Isend
        self.begin_receive: Callable[..., Any] = world.Irecv

    def finish(self, request: Any) -> None:
        """Return when what was begun is done."""
        request.Wait()


class YieldingComm(Comm):
    """Gives the core to whoever wants it while it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.send = self._send
        self.receive = self._receive

    def finish(self, request: Any, status: Any = None) -> None:
        """Return when what was begun is done."""
        while not request.Test(status):
            os.sched_yield()

    def _send(self, data: Any, rank: int, tag: int) -> None:
        self.finish(self.begin_send(data, rank, tag))

    def _receive(self, room: Any, rank: int, tag: int, status: Any = None) -> None:
        self.finish(self.begin_receive(room, rank, tag), status)


def comm(is_yielding: bool) -> Comm:
    """Return the communicator of all ranks."""
    return YieldingComm() if is_yielding else Comm()
