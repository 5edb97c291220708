"""What has input, and how a thread that sleeps is woken."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
import zmq

from opencluster.net.polling import MISSES, Bell, Edge, Polling

DEADLINE_S = 20.0


@pytest.fixture
def ends() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """Two sockets of ZeroMQ that are connected."""
    with (
        zmq.Context() as context,
        context.socket(zmq.PAIR) as one,
        context.socket(zmq.PAIR) as other,
    ):
        one.bind("inproc://ends")
        other.connect("inproc://ends")
        yield one, other


def test_a_message_is_found_although_the_descriptor_does_not_tell(
    ends: tuple[zmq.Socket[bytes], zmq.Socket[bytes]],
) -> None:
    here, there = ends
    edge = Edge(here)
    polling = Polling([edge])
    assert polling.hidden() == []
    there.send(b"news")
    assert polling.wait(DEADLINE_S)
    # this is what sending may do
    assert here.get(zmq.EVENTS) & zmq.POLLIN
    assert polling.wait(0.0) == []
    # a socket that nobody used is not looked at
    assert polling.hidden() == []
    edge.is_used = True
    assert polling.hidden() == [edge]
    assert edge.has_more
    assert here.recv() == b"news"
    assert polling.hidden() == []
    assert not edge.is_used
    polling.close()


def test_of_several_sockets_those_with_input_are_found(
    ends: tuple[zmq.Socket[bytes], zmq.Socket[bytes]],
) -> None:
    here, there = map(Edge, ends)
    polling = Polling([here, there])
    here.sock.send(b"news")
    assert there.sock.poll(DEADLINE_S * 1000)
    here.is_used = there.is_used = True
    assert polling.hidden() == [there]
    assert not here.is_used
    assert there.is_used
    polling.close()


def test_what_is_no_socket_of_zeromq_tells_for_as_long_as_it_has_input() -> None:
    here, there = socket.socketpair()
    with here, there:
        polling = Polling([here])
        there.send(b"news")
        for _ in range(2):
            assert [fd for fd, _ in polling.wait(DEADLINE_S)] == [here.fileno()]
        assert polling.pollables[here.fileno()] is here
        assert polling.hidden() == []
        here.recv(100)
        assert polling.wait(0.0) == []
        polling.close()


def test_it_is_looked_for_input_before_a_sleep_if_that_is_wished() -> None:
    here, there = socket.socketpair()
    with here, there:
        polling = Polling([here], spin_s=0.01)
        looks: list[float] = []
        look = polling.wait

        def noted(limit_s: float) -> list[tuple[int, int]]:
            looks.append(limit_s)
            return look(limit_s)

        polling.wait = noted
        assert polling.sleep(0.02) == []
        assert len(looks) > 1 and set(looks[:-1]) == {0.0}
        assert looks[-1] == pytest.approx(0.01)
        looks.clear()
        # no longer than it may take
        assert polling.sleep(0.005) == []
        assert set(looks) == {0.0}
        there.send(b"news")
        looks.clear()
        assert [fd for fd, _ in polling.sleep(DEADLINE_S)] == [here.fileno()]
        assert looks == [0.0]
        polling.close()


def test_what_is_never_found_is_looked_for_ever_more_rarely() -> None:
    here, there = socket.socketpair()
    with here, there:
        polling = Polling([here], spin_s=1e-5)
        look = polling.wait
        looks: list[float] = []

        def noted(limit_s: float) -> list[tuple[int, int]]:
            looks.append(limit_s)
            return look(0.0)

        polling.wait = noted

        def spins() -> bool:
            looks.clear()
            polling.sleep(1.0)
            return len(looks) > 1

        tries = [spins() for _ in range(2000)]
        assert all(tries[:MISSES])
        assert 0 < sum(tries[1000:]) <= 4
        # and again as soon as it pays
        there.send(b"news")
        while not spins() and looks[0] != 0.0:
            pass
        here.recv(100)
        assert [spins() for _ in range(MISSES)] == [True] * MISSES
        polling.close()


def test_what_comes_after_the_looking_wakes_a_sleeper() -> None:
    here, there = socket.socketpair()
    with here, there:
        polling = Polling([here], spin_s=0.001)
        timer = threading.Timer(0.05, there.send, [b"news"])
        timer.start()
        assert [fd for fd, _ in polling.sleep(DEADLINE_S)] == [here.fileno()]
        timer.join()
        polling.close()


def test_a_file_that_was_closed_is_watched_no_longer() -> None:
    polling = Polling([])
    read_end, write_end = os.pipe()
    polling.watch(read_end)
    os.write(write_end, b"news")
    assert [fd for fd, _ in polling.wait(DEADLINE_S)] == [read_end]
    os.close(read_end)
    os.close(write_end)
    polling.unwatch(read_end)
    assert polling.wait(0.0) == []
    polling.close()


def test_a_bell_wakes_once_however_often_it_was_rung() -> None:
    bell = Bell()
    for _ in range(3):
        bell.ring()
    assert bell.wait(DEADLINE_S)
    assert not bell.wait(0.0)
    bell.ring()
    bell.hush()
    assert not bell.wait(0.0)
    bell.close()


def test_a_bell_wakes_a_thread_that_waits_for_a_file_too() -> None:
    bell = Bell()
    read_end, write_end = os.pipe()
    thread = threading.Thread(target=bell.wait_beside, args=(read_end, 2 * DEADLINE_S))
    thread.start()
    bell.ring()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    os.write(write_end, b"news")
    bell.wait_beside(read_end, DEADLINE_S)
    # only the bell is left to wake whoever waits for it alone
    assert not bell.wait(0.0)
    os.close(read_end)
    os.close(write_end)
    bell.close()


def test_a_closed_bell_writes_nothing_into_what_has_its_number_now() -> None:
    here, there = socket.socketpair()
    bell = Bell()
    with here, there:
        bell.close()
        os.dup2(there.fileno(), bell.fileno())
        bell.ring()
        os.close(bell.fileno())
        here.setblocking(False)
        with pytest.raises(BlockingIOError):
            here.recv(100)
