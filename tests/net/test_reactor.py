"""The reactor: posts, timers and file descriptors, in one thread."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from opencluster.net import reactor as module
from opencluster.net.reactor import Reactor
from opencluster.net.transport import TransportEvent
from opencluster.net.zmq_transport import ZmqTransport

DEADLINE_S = 20.0


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    running = Reactor(ZmqTransport(), lambda event: None)
    running.start()
    yield running
    running.stop()
    running.join(DEADLINE_S)


def test_posts_run_in_order_in_the_reactors_thread(reactor: Reactor) -> None:
    seen: SimpleQueue[tuple[int, str]] = SimpleQueue()
    for number in range(100):
        reactor.post(lambda n=number: seen.put((n, threading.current_thread().name)))
    got = [seen.get(timeout=DEADLINE_S) for _ in range(100)]
    assert [number for number, _ in got] == list(range(100))
    assert {name for _, name in got} == {"opencluster-io"}


def test_a_post_wakes_a_reactor_that_sleeps_without_timers(reactor: Reactor) -> None:
    for _ in range(50):
        done = threading.Event()
        reactor.post(done.set)
        assert done.wait(DEADLINE_S)


def test_posts_of_many_threads_all_arrive(reactor: Reactor) -> None:
    seen: SimpleQueue[int] = SimpleQueue()

    def post_many() -> None:
        for number in range(500):
            reactor.post(lambda n=number: seen.put(n))

    threads = [threading.Thread(target=post_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = sorted(seen.get(timeout=DEADLINE_S) for _ in range(2000))
    assert got == sorted(list(range(500)) * 4)


def test_timers_run_in_the_order_of_their_times(reactor: Reactor) -> None:
    seen: SimpleQueue[str] = SimpleQueue()
    reactor.post(lambda: reactor.after(0.05, lambda: seen.put("late")) and None)
    reactor.post(lambda: reactor.after(0.01, lambda: seen.put("early")) and None)
    assert [seen.get(timeout=DEADLINE_S) for _ in range(2)] == ["early", "late"]


def test_a_repeating_timer_runs_until_it_is_cancelled(reactor: Reactor) -> None:
    seen: SimpleQueue[int] = SimpleQueue()
    timers = []
    ticks: list[int] = []

    def tick() -> None:
        seen.put(1)
        ticks.append(1)
        if len(ticks) == 3:
            timers[0].cancel()
            reactor.after(0.05, lambda: seen.put(-1))

    reactor.post(lambda: timers.append(reactor.every(0.005, tick)))
    got = []
    while not got or got[-1] != -1:
        got.append(seen.get(timeout=DEADLINE_S))
    assert got == [1, 1, 1, -1]


def test_a_cancelled_timer_does_not_run(reactor: Reactor) -> None:
    seen: SimpleQueue[str] = SimpleQueue()

    def plan() -> None:
        reactor.after(0.01, lambda: seen.put("cancelled")).cancel()
        reactor.after(0.05, lambda: seen.put("end"))

    reactor.post(plan)
    assert seen.get(timeout=DEADLINE_S) == "end"


def test_a_watched_descriptor_is_read_until_it_is_unwatched(reactor: Reactor) -> None:
    read_end, write_end = os.pipe()
    seen: SimpleQueue[bytes] = SimpleQueue()

    def readable() -> None:
        data = os.read(read_end, 100)
        seen.put(data)
        if not data:
            reactor.unwatch(read_end)
            os.close(read_end)

    reactor.post(lambda: reactor.watch(read_end, readable))
    os.write(write_end, b"hello")
    assert seen.get(timeout=DEADLINE_S) == b"hello"
    os.close(write_end)
    assert seen.get(timeout=DEADLINE_S) == b""


def test_an_error_in_a_callback_is_logged_and_the_reactor_goes_on(
    reactor: Reactor, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()
    with caplog.at_level(logging.ERROR, "opencluster.net.reactor"):
        reactor.post(lambda: 1 / 0)
        reactor.post(done.set)
        assert done.wait(DEADLINE_S)
    assert "ZeroDivisionError" in caplog.text


class Failing(ZmqTransport):
    """Fails at the first event, that of a connection to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.connect(self.listen("tcp://127.0.0.1:0"))

    def receive(self, ready: object = None) -> list[TransportEvent]:
        raise MemoryError("no room for a header")


VITAL = f"""
import sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from {Path(__file__).stem} import Failing, Reactor
Reactor(Failing(), print).start()
threading.Event().wait()
"""


def test_an_error_of_a_vital_transport_ends_the_process_loudly() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", VITAL], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == module.FATAL_STATUS
    assert "Traceback" in ended.stderr
    assert "MemoryError: no room for a header" in ended.stderr


def test_an_error_of_another_transport_is_told_and_ends_the_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: SimpleQueue[BaseException] = SimpleQueue()
    reactor = Reactor(Failing(), lambda event: None, told.put, is_vital=False)
    reactor.start()
    assert isinstance(told.get(timeout=DEADLINE_S), MemoryError)
    reactor.join(DEADLINE_S)
    assert reactor.transport._context.closed
    assert "no room for a header" in caplog.text


def test_in_the_thread_of_the_caller_the_error_is_raised_too() -> None:
    told: list[BaseException] = []
    reactor = Reactor(Failing(), lambda event: None, told.append, is_vital=False)
    with pytest.raises(MemoryError):
        reactor.run()
    assert len(told) == 1


def test_an_exit_in_a_callback_is_no_silent_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: SimpleQueue[BaseException] = SimpleQueue()
    reactor = Reactor(ZmqTransport(), lambda event: None, told.put, is_vital=False)
    reactor.start()
    reactor.post(sys.exit)
    assert isinstance(told.get(timeout=DEADLINE_S), SystemExit)
    reactor.join(DEADLINE_S)


def test_cancelled_timers_do_not_pile_up(reactor: Reactor) -> None:
    counts: SimpleQueue[int] = SimpleQueue()
    seen: SimpleQueue[str] = SimpleQueue()

    def plan() -> None:
        for _ in range(100):
            reactor.after(0.05, lambda: seen.put("kept"))
        for _ in range(10_000):
            reactor.after(3600.0, lambda: None).cancel()
        counts.put(len(reactor._timers))

    reactor.post(plan)
    assert counts.get(timeout=DEADLINE_S) < 500
    assert [seen.get(timeout=DEADLINE_S) for _ in range(100)] == ["kept"] * 100


def test_posting_after_the_end_is_harmless() -> None:
    reactor = Reactor(ZmqTransport(), lambda event: None)
    reactor.start()
    reactor.stop()
    reactor.join(DEADLINE_S)
    reactor.post(lambda: None)


def test_what_is_posted_in_a_callback_waits_for_the_next_turn(
    reactor: Reactor,
) -> None:
    seen: SimpleQueue[str] = SimpleQueue()

    def first() -> None:
        reactor.post(lambda: seen.put("inner"))
        seen.put("outer")

    reactor.post(first)
    assert [seen.get(timeout=DEADLINE_S) for _ in range(2)] == ["outer", "inner"]


def test_the_idle_callback_comes_after_the_posts_of_a_turn(reactor: Reactor) -> None:
    seen: SimpleQueue[str] = SimpleQueue()
    reactor.post(lambda: reactor.when_idle(lambda: seen.put("idle")))
    assert seen.get(timeout=DEADLINE_S) == "idle"
    started = time.monotonic()
    reactor.post(lambda: seen.put("post"))
    got = []
    while "post" not in got or got[-1] != "idle":
        got.append(seen.get(timeout=DEADLINE_S))
        assert time.monotonic() - started < DEADLINE_S
