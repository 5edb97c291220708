"""A receiver whose connection is over: what it may still read, and what it may not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from arena_tools import MB, End, becomes, pattern, used

from opencluster.core.slots import PAGE_BYTES
from opencluster.net import arena as module
from opencluster.net.arena import Arena

SLOT_BYTES = 3 * PAGE_BYTES
"""What 10,000 bytes take."""


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(256 * MB)
    yield made
    made.close()


@pytest.fixture
def end(arena: Arena) -> End:
    return End(arena)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that runs until it is killed."""
    code = "import sys; sys.stdin.read()"
    started = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    yield started
    started.kill()
    started.communicate()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return our end of a connection and the other one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_dropped_receiver_has_no_lease_left_and_others_keep_theirs(
    arena: Arena, end: End
) -> None:
    kept = np.asarray(end.sent(pattern(1, 10_000)))
    for _ in range(5):
        arena.place(bytes(10_000), "lost")
    arena.drop("lost")
    arena.drop("never seen")
    assert used(arena) == SLOT_BYTES
    for _ in range(10):
        end.sent(bytes(10_000))
    assert (kept == pattern(1, 10_000)).all()


def test_process_that_runs_on_keeps_what_it_reads_and_nothing_else(
    arena: Arena, end: End, process: subprocess.Popen[bytes]
) -> None:
    arrays = [np.asarray(end.sent(pattern(n, 10_000))) for n in range(3)]
    arena.place(bytes(10_000), "end")
    arena.drop("end", process.pid)
    assert used(arena) == 3 * SLOT_BYTES
    others = [arena.place(bytes(10_000), "other") for _ in range(9)]
    assert all(others)
    assert all((it == pattern(n, 10_000)).all() for n, it in enumerate(arrays))
    arena.drop("other")
    arrays.pop()
    assert used(arena) == 2 * SLOT_BYTES
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert becomes(arena, 0)  # a process that nobody has reaped is gone, too


@pytest.mark.parametrize("is_reaped", [False, True])
def test_process_that_has_ended_keeps_nothing(
    arena: Arena, end: End, process: subprocess.Popen[bytes], is_reaped: bool
) -> None:
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    if is_reaped:
        process.wait()
    view = end.sent(bytes(10_000))
    arena.drop("end", process.pid)
    assert used(arena) == 0
    assert len(view) == 10_000


def test_what_waits_in_a_connection_is_kept_until_the_other_side_closes(
    arena: Arena,
    end: End,
    process: subprocess.Popen[bytes],
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    handles = [arena.place(pattern(n, 10_000), "end") for n in range(3)]
    ours.send(b"the handles")
    arena.drop("end", process.pid, ours)
    ours.close()
    arena.place(bytes(10_000), "other")
    assert theirs.recv(100) == b"the handles"
    array = np.asarray(end.view(handles[1]))
    assert (array == pattern(1, 10_000)).all()
    assert theirs.recv(100) == b""  # as if it were closed
    assert used(arena) == 4 * SLOT_BYTES
    theirs.close()
    assert becomes(arena, 2 * SLOT_BYTES)
    assert (array == pattern(1, 10_000)).all()
    del array
    assert used(arena) == SLOT_BYTES


def test_two_sides_that_part_do_not_wait_for_each_other(
    process: subprocess.Popen[bytes], pair: tuple[socket.socket, socket.socket]
) -> None:
    arenas = [Arena(MB), Arena(MB)]
    for arena, sock in zip(arenas, pair, strict=True):
        arena.place(bytes(10_000), "other")
        arena.drop("other", process.pid, sock)
        sock.close()
    assert all(becomes(arena, 0) for arena in arenas)


def test_side_that_was_left_first_knows_it_at_once(
    arena: Arena,
    process: subprocess.Popen[bytes],
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    arena.place(bytes(10_000), "other")
    theirs.close()
    arena.drop("other", process.pid, ours)
    assert used(arena) == 0


def test_process_that_cannot_be_seen_counts_as_ended_when_it_left(
    arena: Arena, end: End, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    view = end.sent(bytes(10_000))
    arena.drop("end", 0, ours)
    assert used(arena) == SLOT_BYTES
    theirs.close()
    assert becomes(arena, 0)
    assert len(view) == 10_000


def test_many_that_are_gone_are_not_looked_at_all_the_time(
    arena: Arena,
    end: End,
    process: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    class Counted(module.Orphan):
        def has_ended(self) -> bool:
            looks.append(self)
            return super().has_ended()

    monkeypatch.setattr(module, "Orphan", Counted)
    monkeypatch.setattr(module, "VISIT_AGAIN_AFTER_S", 3600.0)
    views = []
    for number in range(20):
        views.append(end.view(arena.place(bytes(10_000), number)))
        arena.drop(number, process.pid)
    assert len(looks) == 20 + 1
    assert used(arena) == 20 * SLOT_BYTES


def test_memory_of_ended_processes_is_found_when_room_is_needed(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VISIT_AGAIN_AFTER_S", 0.0)
    arena = Arena(MB)
    view = End(arena).sent(bytes(600_000))
    arena.drop("end", process.pid)
    assert arena.place(bytes(600_000), "r") is None
    process.kill()
    process.wait()
    assert arena.place(bytes(600_000), "r") is not None
    assert len(view) == 600_000


def test_closed_arena_lets_go_of_connections(
    arena: Arena, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    arena.place(bytes(10_000), "other")
    arena.drop("other", os.getpid(), ours)
    ours.close()
    theirs.send(b"still there")
    arena.close()
    with pytest.raises(ConnectionError):
        theirs.send(b"x")
