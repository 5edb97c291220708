"""Real processes at both ends: killed, forked and limited, and nothing is left."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arena_programs import receive, send
from arena_tools import DEADLINE_S, MB, End, allocated, becomes, pattern, used

from opencluster.core.slots import PAGE_BYTES
from opencluster.net.arena import Arena, Handle, Mapping

PROGRAMS = Path(__file__).with_name("arena_programs.py")


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena(256 * MB)
    yield made
    made.close()


@pytest.fixture
def end(arena: Arena) -> End:
    return End(arena)


class Program:
    """One of the programs, and the socket to it."""

    def __init__(self, name: str) -> None:
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(DEADLINE_S)
        with theirs:
            fd = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAMS), name, str(fd)],
                pass_fds=[fd],
                stderr=subprocess.PIPE,
                text=True,
            )

    def ask(self, message: Any, fd: int | None = None) -> Any:
        send(self.link, message, fd)
        return self.answer()

    def answer(self) -> Any:
        message, fd = receive(self.link)
        return message if fd is None else (message, fd)

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> str:
        """Hang up, and return what it wrote to its standard error."""
        self.link.close()
        return self.process.communicate(timeout=DEADLINE_S)[1]


@pytest.fixture
def start() -> Iterator[Callable[[str], Program]]:
    started: list[Program] = []

    def start(name: str) -> Program:
        started.append(Program(name))
        return started[-1]

    yield start
    for program in started:
        program.kill()


def inode(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def is_mapped(segment: tuple[int, int]) -> bool:
    """Return whether a process has a segment, mapped or as a descriptor."""
    number = f" {segment[1]} "
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:
            continue
        if any("memfd:opencluster" in line and number in line for line in lines):
            return True
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            status = link.stat()
        except OSError:
            continue
        if (status.st_dev, status.st_ino) == segment:
            return True
    return False


def is_in_dev_shm(segment: tuple[int, int]) -> bool:
    return segment[0] == Path("/dev/shm").stat().st_dev


def test_another_process_reads_and_gives_back(
    arena: Arena, start: Callable[[str], Program]
) -> None:
    reader = start("read")
    block = pattern(6, 200_000)
    handle = arena.place(block, "reader")
    seen = reader.ask({"segment": 1, "view": {"a": handle}}, arena.segment_fd(1))
    assert seen == {"a": int(block.sum())}
    array = np.frombuffer(allocated(arena, 300_000), np.uint8)
    array[:] = pattern(7, 300_000)
    seen = reader.ask({"view": {"b": arena.place(array[5:], "reader")}})
    assert seen["b"] == int(array[5:].sum())
    del array
    assert used(arena) == (224 + 320) << 10
    reader.ask({"forget": ["b"]})
    assert used(arena) == 224 << 10
    reader.ask({"forget": ["a"]})
    assert used(arena) == 0
    assert reader.end() == ""


def test_reader_that_writes_is_ended_by_the_kernel(
    arena: Arena, start: Callable[[str], Program]
) -> None:
    reader = start("read")
    handle = arena.place(bytes(10_000), "reader")
    reader.ask({"segment": 1, "view": {"a": handle}}, arena.segment_fd(1))
    send(reader.link, {"write": "a"})
    assert reader.process.wait(DEADLINE_S) == -signal.SIGSEGV


def test_readers_that_are_killed_leave_nothing(
    start: Callable[[str], Program],
) -> None:
    arena = Arena(64 * MB)
    segments = set()
    for turn in range(4):
        reader = start("read")
        handles = {str(n): arena.place(pattern(n, 5 * MB), turn) for n in range(8)}
        assert all(handles.values())
        fds = {h.segment: arena.segment_fd(h.segment) for h in handles.values() if h}
        segments |= {inode(fd) for fd in fds.values()}
        for segment, fd in fds.items():
            reader.ask({"segment": segment}, fd)
        assert len(reader.ask({"view": handles})) == 8
        assert used(arena) == 8 * 5 * MB
        reader.process.send_signal(signal.SIGKILL)
        assert reader.link.recv(1) == b""
        arena.drop(turn, reader.process.pid, reader.link)
        assert becomes(arena, 0)
    assert arena.counts.mapped_bytes <= 64 * MB
    arena.close()
    gc.collect()
    assert not any(map(is_in_dev_shm, segments))
    assert not any(map(is_mapped, segments))


def test_writers_that_are_killed_leave_what_is_read_and_nothing_else(
    start: Callable[[str], Program],
) -> None:
    for _ in range(3):
        writer, mapping = start("write"), Mapping()
        handles, fd = writer.ask({"count": 3, "nbytes": 4 * MB})
        segment = inode(fd)
        mapping.add(1, fd)
        arrays = [np.asarray(mapping.view(Handle(*handle))) for handle in handles]
        writer.kill()
        mapping.close()
        assert is_mapped(segment)
        for number in (2, 1, 0):
            assert (arrays.pop() == pattern(number, 4 * MB)).all()
        assert not is_mapped(segment)


def test_limits_of_the_process_mean_no_room(start: Callable[[str], Program]) -> None:
    program = start("limited")
    for name in ("RLIMIT_FSIZE", "RLIMIT_AS", "RLIMIT_NOFILE"):
        assert program.answer() == [name, None, 0]
    program.process.wait(DEADLINE_S)
    assert program.process.returncode == 0


def test_interpreter_ends_in_silence(start: Callable[[str], Program]) -> None:
    program = start("leave")
    assert program.answer() == "over"
    assert program.process.wait(DEADLINE_S) == 0
    assert program.end() == ""


def in_child(act: Callable[[], bool]) -> bool:
    """Return what a function returns in a child that is forked off."""
    pid = os.fork()
    if not pid:
        code = 2
        try:
            code = 0 if act() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_child_ends_no_lease_and_takes_no_memory(arena: Arena, end: End) -> None:
    held = [np.asarray(end.sent(pattern(1, 10_000))), allocated(arena, 10_000)]

    def act() -> bool:
        held.clear()
        gc.collect()
        return arena.place(bytes(10), "r") is None and arena.allocate(10) is None

    assert in_child(act)
    assert used(arena) == 6 * PAGE_BYTES
    held.clear()
    assert used(arena) == 0
