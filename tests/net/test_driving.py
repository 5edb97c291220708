"""Threads that serve the reactor's sockets themselves while they wait."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from test_reactor import Failing

from opencluster.net.reactor import Reactor
from opencluster.net.transport import Peer, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport

DEADLINE_S = 20.0


class Counting(ZmqTransport):
    """Counts in which threads it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[int] = []

    def receive(self, ready: Any = None) -> list[TransportEvent]:
        self.readers.append(threading.get_ident())
        return super().receive(ready)


class Asker:
    """Sends messages to an `Echo`, and waits for them to come back."""

    def __init__(self, endpoint: str, **settings: Any) -> None:
        self.transport = Counting()
        self.reactor = Reactor(self.transport, self._event, **settings)
        self.peer: Peer = b""
        self.endpoint = endpoint
        self.answers: set[bytes] = set()
        self.reactor.post(self._connect)
        self.reactor.start()

    def _connect(self) -> None:
        self.peer = self.transport.connect(self.endpoint)

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, Received):
            self.answers.add(bytes(event.header))

    def ask(self, question: bytes) -> Callable[[], bool]:
        self.reactor.post(lambda: self._send(question))
        return lambda: question in self.answers

    def _send(self, question: bytes) -> None:
        assert self.transport.send(self.peer, question)


@contextlib.contextmanager
def running(reactor: Reactor) -> Iterator[Reactor]:
    try:
        yield reactor
    finally:
        reactor.stop()
        reactor.join(DEADLINE_S)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    """Where everything that comes is sent back."""
    transport = ZmqTransport()

    def send_back(event: TransportEvent) -> None:
        if isinstance(event, Received):
            transport.send(event.peer, bytes(event.header))

    where = transport.listen(f"ipc://{tmp_path}/echo")
    with running(Reactor(transport, send_back)) as echo:
        echo.start()
        yield where


@pytest.fixture
def asker(endpoint: str) -> Iterator[Asker]:
    asker = Asker(endpoint, handlers_return=True)
    with running(asker.reactor):
        yield asker


def test_a_thread_that_waits_reads_the_sockets_itself(asker: Asker) -> None:
    assert asker.reactor.wait_until(asker.ask(b"first"), DEADLINE_S)
    asker.transport.readers.clear()
    for number in range(1000):
        assert asker.reactor.wait_until(asker.ask(b"%d" % number), DEADLINE_S)
    others = [r for r in asker.transport.readers if r != threading.get_ident()]
    # one may have been under way; a busy machine may leave a gap or two
    assert len(others) < 100 < len(asker.transport.readers)


def test_the_background_thread_takes_over_when_nobody_drives(asker: Asker) -> None:
    assert asker.reactor.wait_until(asker.ask(b"driven"), DEADLINE_S)
    done, answered = threading.Event(), threading.Event()
    asker.reactor.post(done.set)
    assert done.wait(DEADLINE_S)
    asker.transport.readers.clear()

    def tell_when_there() -> None:
        if b"left alone" in asker.answers:
            answered.set()

    asker.reactor.post(lambda: asker.reactor.when_idle(tell_when_there))
    asker.ask(b"left alone")
    assert answered.wait(DEADLINE_S)
    assert set(asker.transport.readers) == {asker.reactor._thread.ident}


def test_who_looks_before_it_sleeps_is_woken_all_the_same(endpoint: str) -> None:
    asker = Asker(endpoint, handlers_return=True, spin_s=0.002)
    with running(asker.reactor):
        for number in range(50):
            assert asker.reactor.wait_until(asker.ask(b"%d" % number), DEADLINE_S)
        # what another thread posts counts as well, before the sleep and during it
        for delay_s in (0.0005, 0.05):
            posted = threading.Event()
            timer = threading.Timer(delay_s, asker.reactor.post, [posted.set])
            timer.start()
            assert asker.reactor.wait_until(posted.is_set, DEADLINE_S)
            timer.join()


def test_what_is_over_already_costs_no_turn(asker: Asker) -> None:
    assert asker.reactor.wait_until(asker.ask(b"first"), DEADLINE_S)
    turns: list[int] = []
    asker.reactor.post(lambda: asker.reactor.when_idle(lambda: turns.append(1)))
    assert asker.reactor.wait_until(asker.ask(b"second"), DEADLINE_S)
    seen = len(turns)
    assert asker.reactor.wait_until(lambda: True)
    assert len(turns) == seen > 0


def test_waits_that_are_over_at_once_do_not_keep_the_background_thread_away(
    endpoint: str,
) -> None:
    asker = Asker(endpoint, grace_s=0.05)
    with running(asker.reactor):
        assert asker.reactor.wait_until(asker.ask(b"driven"), DEADLINE_S)
        asker.ask(b"left alone")
        until = time.monotonic() + DEADLINE_S
        while b"left alone" not in asker.answers and time.monotonic() < until:
            assert asker.reactor.wait_until(lambda: True)
            time.sleep(0.001)
        assert b"left alone" in asker.answers


def test_time_is_up(asker: Asker) -> None:
    assert not asker.reactor.wait_until(lambda: False, 0.0)
    assert not asker.reactor.wait_until(lambda: False, 0.01)
    assert asker.reactor.wait_until(asker.ask(b"still works"), DEADLINE_S)


def test_nobody_waits_in_a_callback(asker: Asker) -> None:
    raised: SimpleQueue[Exception] = SimpleQueue()

    def wait() -> None:
        try:
            asker.reactor.wait_until(lambda: True)
        except RuntimeError as error:
            raised.put(error)

    asker.reactor.post(wait)
    assert "callback" in str(raised.get(timeout=DEADLINE_S))
    asker.reactor.post(wait)
    asker.reactor.wait_until(lambda: not raised.empty(), DEADLINE_S)
    assert "callback" in str(raised.get_nowait())


def test_what_the_condition_raises_is_raised_where_it_was_asked(asker: Asker) -> None:
    with pytest.raises(ZeroDivisionError):
        asker.reactor.wait_until(lambda: bool(1 / 0))
    assert asker.reactor.wait_until(asker.ask(b"still works"), DEADLINE_S)


def test_many_threads_wait_at_once_each_for_its_own(asker: Asker) -> None:
    wrong: list[bytes] = []

    def ask_many(name: bytes) -> None:
        for number in range(200):
            question = b"%s-%d" % (name, number)
            if not asker.reactor.wait_until(asker.ask(question), DEADLINE_S):
                wrong.append(question)

    threads = [
        threading.Thread(target=ask_many, args=(b"%d" % n,), daemon=True)
        for n in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not wrong
    assert len(asker.answers) == 1000


def test_a_condition_that_raises_hurts_only_who_asked(asker: Asker) -> None:
    is_let_go = threading.Event()
    is_driving = threading.Event()
    driver = threading.Thread(
        target=asker.reactor.wait_until, args=(is_let_go.is_set, DEADLINE_S)
    )
    driver.start()
    raised: SimpleQueue[BaseException] = SimpleQueue()
    looks: list[int] = []

    def look() -> bool:
        looks.append(1)
        raise ZeroDivisionError

    def wait() -> None:
        try:
            asker.reactor.wait_until(look, DEADLINE_S)
        except ZeroDivisionError as error:
            raised.put(error)

    is_driving.wait(0.05)
    second = threading.Thread(target=wait)
    second.start()
    assert isinstance(raised.get(timeout=DEADLINE_S), ZeroDivisionError)
    second.join(DEADLINE_S)
    assert driver.is_alive()
    asker.reactor.post(is_let_go.set)
    driver.join(DEADLINE_S)
    assert not driver.is_alive()


def test_when_the_driver_leaves_another_one_drives_at_once(asker: Asker) -> None:
    gone: SimpleQueue[str] = SimpleQueue()
    gates = {name: threading.Event() for name in ("first", "second", "third")}

    def wait(name: str) -> None:
        asker.reactor.wait_until(gates[name].is_set, DEADLINE_S)
        gone.put(name)

    threads = [threading.Thread(target=wait, args=(name,)) for name in gates]
    for thread in threads:
        thread.start()
    for name, gate in gates.items():
        asker.reactor.post(gate.set)
        assert gone.get(timeout=DEADLINE_S) == name
    for thread in threads:
        thread.join(DEADLINE_S)


def test_who_leaves_calls_the_next_without_help_of_the_background_thread() -> None:
    reactor = Reactor(ZmqTransport(), lambda event: None)
    gone: SimpleQueue[str] = SimpleQueue()
    gates = {name: threading.Event() for name in ("first", "second", "third")}

    def wait(name: str) -> None:
        reactor.wait_until(gates[name].is_set)
        gone.put(name)

    threads = [threading.Thread(target=wait, args=(n,), daemon=True) for n in gates]
    try:
        for thread in threads:
            thread.start()
        for name, gate in gates.items():
            reactor.post(gate.set)
            assert gone.get(timeout=DEADLINE_S) == name
    finally:
        # now there is one, which closes the transport
        with running(reactor):
            reactor.start()
    for thread in threads:
        thread.join(DEADLINE_S)


def test_the_background_thread_sleeps_while_one_thread_drives_for_long(
    asker: Asker,
) -> None:
    is_over = threading.Event()
    driver = threading.Thread(
        target=asker.reactor.wait_until, args=(is_over.is_set, DEADLINE_S)
    )
    driver.start()
    deadline = time.monotonic() + DEADLINE_S
    while not asker.reactor._is_parked:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    asker.reactor.post(is_over.set)
    driver.join(DEADLINE_S)
    # and it takes over when that one is gone
    served: SimpleQueue[str] = SimpleQueue()
    asker.reactor.post(lambda: served.put(threading.current_thread().name))
    assert served.get(timeout=DEADLINE_S) == "opencluster-io"


def test_the_end_of_the_reactor_ends_all_waits(endpoint: str) -> None:
    asker = Asker(endpoint)
    told: SimpleQueue[bool] = SimpleQueue()

    def wait() -> None:
        told.put(asker.reactor.wait_until(lambda: False))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    asker.reactor.stop()
    assert [told.get(timeout=DEADLINE_S) for _ in threads] == [False] * 3
    asker.reactor.join(DEADLINE_S)
    assert asker.transport._context.closed
    assert asker.reactor.wait_until(lambda: False) is False
    assert asker.reactor.serve_turn() is False


def test_an_error_of_the_transport_ends_all_waits() -> None:
    told: list[BaseException] = []
    reactor = Reactor(
        Failing(), lambda event: None, told.append, is_vital=False, handlers_return=True
    )
    # nobody else is there to meet the error
    assert reactor.wait_until(lambda: False, DEADLINE_S) is False
    assert [type(error) for error in told] == [MemoryError]
    reactor.start()
    reactor.join(DEADLINE_S)
    assert reactor.transport._context.closed
    assert len(told) == 1


def test_a_single_turn_sends_what_was_posted(asker: Asker) -> None:
    assert asker.reactor.wait_until(asker.ask(b"first"), DEADLINE_S)
    ran: list[int] = []
    while not asker.reactor.serve_turn(lambda: ran.append(threading.get_ident())):
        ran.clear()
    assert ran == [threading.get_ident()]


def test_what_was_prepared_is_done_by_whoever_waits(asker: Asker) -> None:
    assert asker.reactor.wait_until(asker.ask(b"first"), DEADLINE_S)
    for number in range(100):
        ran: list[int] = []
        asker.reactor.prepare(lambda ran=ran: ran.append(threading.get_ident()))
        assert asker.reactor.wait_until(lambda ran=ran: bool(ran), DEADLINE_S)
        question = b"%d" % number
        asker.reactor.prepare(lambda question=question: asker._send(question))
        asker.reactor.serve_turn()
        asker.reactor.wait_until(lambda q=question: q in asker.answers, DEADLINE_S)


def test_a_turn_that_another_thread_has_runs_what_was_handed_in(asker: Asker) -> None:
    is_let_go = threading.Event()
    is_driven = threading.Event()
    asker.reactor.post(is_driven.set)
    driver = threading.Thread(
        target=asker.reactor.wait_until, args=(is_let_go.is_set, DEADLINE_S)
    )
    driver.start()
    assert is_driven.wait(DEADLINE_S)
    while asker.reactor._holder != driver.ident:
        pass
    seen: SimpleQueue[int] = SimpleQueue()
    asker.reactor.serve_turn(lambda: seen.put(threading.get_ident()))
    assert seen.get(timeout=DEADLINE_S) == driver.ident
    asker.reactor.post(is_let_go.set)
    driver.join(DEADLINE_S)


def test_a_timer_set_by_a_visitor_is_on_time_for_the_sleeping_background_thread(
    asker: Asker,
) -> None:
    seen: SimpleQueue[int] = SimpleQueue()
    while asker.reactor._sleeps_until is None:
        pass
    while not asker.reactor.serve_turn(
        lambda: asker.reactor.after(0.01, lambda: seen.put(1)) and None
    ):
        pass
    # without being woken, the background thread would sleep for MAX_POLL_S
    assert seen.get(timeout=DEADLINE_S)


PROGRAM = """
import os, signal, sys, threading
sys.path.insert(0, {root!r})
from test_driving import Asker, running
asker = Asker(sys.argv[1])
main = threading.get_ident()
with running(asker.reactor):
    assert asker.reactor.wait_until(asker.ask(b"first"), 20)
    {body}
print("fine")
"""


def run_program(endpoint: str, body: str) -> None:
    """Run statements in the main thread of a process without handlers of pytest's."""
    root = str(Path(__file__).parent)
    body = textwrap.dedent(body).strip().replace("\n", "\n    ")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(root=root, body=body), endpoint],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (0, "fine\n"), ended.stderr


def test_ctrl_c_is_raised_where_the_main_thread_waits(endpoint: str) -> None:
    run_program(
        endpoint,
        """
        original = signal.getsignal(signal.SIGINT)
        for number in range(200):
            asker.reactor.post(lambda: os.kill(os.getpid(), signal.SIGINT))
            try:
                asker.reactor.wait_until(lambda: False, 20)
                raise SystemExit("not interrupted")
            except KeyboardInterrupt:
                pass
            assert signal.getsignal(signal.SIGINT) is original
            assert not asker.reactor.is_current
            assert asker.reactor.wait_until(asker.ask(b"%d" % number), 20)
        """,
    )


def test_ctrl_c_does_not_break_off_a_callback(endpoint: str) -> None:
    run_program(
        endpoint,
        """
        steps = []
        def long():
            os.kill(os.getpid(), signal.SIGINT)
            steps.extend([threading.get_ident()] * 1000)
        asker.reactor.post(long)
        try:
            asker.reactor.wait_until(lambda: False, 20)
        except KeyboardInterrupt:
            pass
        assert steps == [main] * 1000
        """,
    )


def test_a_handler_of_ctrl_c_that_returns_does_not_end_the_wait(endpoint: str) -> None:
    run_program(
        endpoint,
        """
        seen = []
        signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
        asker.reactor.post(lambda: os.kill(os.getpid(), signal.SIGINT))
        assert asker.reactor.wait_until(lambda: bool(seen), 20)
        assert seen == [signal.SIGINT]
        """,
    )


def test_a_handler_of_another_signal_may_raise_at_any_time(endpoint: str) -> None:
    run_program(
        endpoint,
        """
        class Alarm(Exception):
            pass
        armed = []
        def alarm(number, frame):
            if armed:
                armed.clear()
                raise Alarm
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        alarms = answers = 0
        while alarms < 20 or answers < 50:
            try:
                armed.append(True)
                question = b"%d-%d" % (alarms, answers)
                assert asker.reactor.wait_until(asker.ask(question), 20)
                armed.clear()
                answers += 1
            except Alarm:
                alarms += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert main not in asker.transport.readers[-50:]
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        assert asker.reactor.wait_until(asker.ask(b"driven again"), 20)
        """,
    )


def test_code_that_is_nested_deeply_leaves_the_sockets_alone(endpoint: str) -> None:
    run_program(
        endpoint,
        """
        def nested(frames):
            if frames:
                return nested(frames - 1)
            asker.transport.readers.clear()
            question = asker.ask(b"from down here")
            assert asker.reactor.wait_until(question, 20)
            assert asker.reactor.serve_turn() is False
            return set(asker.transport.readers)
        assert main not in nested(sys.getrecursionlimit() - 100)
        """,
    )


def test_a_handler_that_returns_ends_the_wait_by_what_it_posts(asker: Asker) -> None:
    seen: list[int] = []
    before = signal.signal(
        signal.SIGUSR1, lambda number, frame: asker.reactor.post(seen.append(1) or int)
    )
    try:
        killer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        killer.start()
        assert asker.reactor.wait_until(lambda: bool(seen), DEADLINE_S)
        killer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
