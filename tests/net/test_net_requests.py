"""Requests and their answers, over real sockets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from opencluster.core.roles import TRUSTED, Credential
from opencluster.errors import (
    FactoryUnreachable,
    LocalProtocolError,
    RequestRefused,
)
from opencluster.net.reactor import Reactor
from opencluster.net.requests import Caller, Requests, answer
from opencluster.net.transport import Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.wire import frames

DEADLINE_S = 20.0


def failed() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(OSError("no such file"))
    return future


def cancelled() -> Future[Any]:
    future: Future[Any] = Future()
    future.cancel()
    future.set_running_or_notify_cancel()
    return future


def finished(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def raising(caller: Caller, arguments: Mapping[str, Any]) -> Any:
    raise OSError("no such file")


HANDLERS = {
    "echo": lambda caller, arguments: arguments["text"],
    "later": lambda caller, arguments: finished(arguments["text"]),
    "raises": raising,
    "unsendable": lambda caller, arguments: object(),
    "fails later": lambda caller, arguments: failed(),
    "cancelled later": lambda caller, arguments: cancelled(),
    "unsendable later": lambda caller, arguments: finished(object()),
    "silent": lambda caller, arguments: Future(),
    "start": lambda caller, arguments: caller.who.name,
}


class Two:
    """One who asks and one who answers, in a reactor each."""

    def __init__(self) -> None:
        self.who = TRUSTED
        self.answering = Reactor(ZmqTransport(), self._asked)
        self.asking = Reactor(ZmqTransport(), self._answered)
        endpoint = self.answering.transport.listen("tcp://127.0.0.1:0")
        self.peer = self.asking.transport.connect(endpoint)
        self.requests = Requests(self.asking)
        self.answering.start()
        self.asking.start()

    def ask(
        self, operation: str, timeout_s: float = DEADLINE_S, **arguments: Any
    ) -> Any:
        given: Future[Future[Any]] = Future()
        self.asking.post(
            lambda: given.set_result(
                self.requests.ask(self.peer, operation, arguments, timeout_s)
            )
        )
        return given.result(DEADLINE_S).result(DEADLINE_S)

    def close(self) -> None:
        for reactor in (self.asking, self.answering):
            reactor.stop()
            reactor.join(DEADLINE_S)

    def _asked(self, event: TransportEvent) -> None:
        if isinstance(event, Received):
            fields = frames.unpack(event.header)
            caller = Caller(event.peer, self.who)
            answer(self.answering, "workshop", caller, fields, HANDLERS)

    def _answered(self, event: TransportEvent) -> None:
        if isinstance(event, Received):
            self.requests.replied(event.peer, *frames.unpack(event.header)[1:4])


@pytest.fixture
def two() -> Iterator[Two]:
    made = Two()
    yield made
    made.close()


@pytest.mark.parametrize("operation", ["echo", "later"])
def test_a_request_is_answered(two: Two, operation: str) -> None:
    assert two.ask(operation, text="hello") == "hello"


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("raises", "failed .OSError: no such file"),
        ("fails later", "failed .OSError: no such file"),
        ("cancelled later", "failed .CancelledError"),
        ("unsendable", "cannot send"),
        ("unsendable later", "cannot send"),
    ],
)
def test_an_error_of_a_handler_is_answered_and_logged(
    two: Two, operation: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RequestRefused, match=message):
        two.ask(operation)
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert operation in record.getMessage()
    assert record.exc_info


def test_a_malformed_request_is_answered_and_fills_no_log(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RequestRefused, match="malformed request .KeyError: 'text'"):
        two.ask("echo")
    assert not [r for r in caplog.records if r.levelno > logging.DEBUG]


def test_arguments_that_cannot_be_sent_fail_at_once(two: Two) -> None:
    with pytest.raises(LocalProtocolError):
        two.ask("echo", text=object())


def test_no_answer_in_time_is_an_error(two: Two) -> None:
    with pytest.raises(FactoryUnreachable, match="silent: no answer"):
        two.ask("silent", timeout_s=0.01)


def test_the_timers_of_answered_requests_do_not_pile_up(two: Two) -> None:
    for _ in range(300):
        two.ask("echo", timeout_s=3600.0, text="")
    assert len(two.asking._timers) < 150


def test_who_may_not_ask_is_told_so_and_the_handler_never_runs(two: Two) -> None:
    two.who = Credential("eve", "observer")
    with pytest.raises(RequestRefused, match="an observer may not .* start workers"):
        two.ask("start")
    assert two.answering.transport.counts.rejected_credentials == 1
    two.who = Credential("ann", "manager")
    assert two.ask("start") == "ann"


def test_with_keys_an_operation_without_a_rule_is_refused_to_everyone(two: Two) -> None:
    two.who = Credential("ann", "manager")
    with pytest.raises(RequestRefused, match="nobody may say 'echo'"):
        two.ask("echo", text="hello")
