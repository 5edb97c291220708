"""Asking daemons from a command: it never waits in vain."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from opencluster.config import load
from opencluster.errors import FactoryUnreachable, OpenClusterError
from opencluster.net import link
from opencluster.net.control import Control
from opencluster.net.zmq_transport import ZmqTransport

DEADLINE_S = 20.0


@pytest.fixture
def control() -> Iterator[Control]:
    with Control(load(files=[], environ={}), lambda: []) as made:
        yield made


def outcome(ask: Callable[[], Any]) -> Future[Any]:
    """Ask in a thread that is left alone should it wait for ever."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@pytest.mark.parametrize("endpoint", ["foo", "tcp://127.0.0.1:notaport"])
def test_a_workshop_at_no_endpoint_is_an_error(control: Control, endpoint: str) -> None:
    entry = {"name": "node7", "endpoints": [endpoint]}
    asked = outcome(lambda: control.workshop(entry, "logs", {}))
    with pytest.raises(OpenClusterError, match=endpoint):
        asked.result(DEADLINE_S)


def test_what_is_asked_when_the_transport_breaks_is_an_error(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = ZmqTransport()
    entry = {"name": "node7", "endpoints": [silent.listen("tcp://127.0.0.1:0")]}

    def receive(ready: object) -> None:
        raise MemoryError("no room for a header")

    monkeypatch.setattr(control._transport, "receive", receive)
    asked = outcome(lambda: control.workshop(entry, "logs", {}, timeout_s=3600.0))
    with pytest.raises(OpenClusterError, match="no room for a header"):
        asked.result(DEADLINE_S)
    late = outcome(lambda: control.factory("status"))
    with pytest.raises(OpenClusterError, match="no room for a header"):
        late.result(DEADLINE_S)
    silent.close()


def closed_endpoint() -> str:
    """Return an endpoint at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


def test_a_factory_that_is_not_reached_is_named_and_so_is_who_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "LOOK_AFTER_S", 0.0)
    endpoint = closed_endpoint()
    with Control(load(files=[], environ={}), lambda: [[endpoint]]) as control:
        asked = outcome(lambda: control.factory("status", timeout_s=1.0))
        with pytest.raises(FactoryUnreachable) as caught:
            asked.result(DEADLINE_S)
    here = f"{socket.gethostname()} (127.0.0.1)"
    assert f"{here} cannot reach {endpoint}: connection refused" in str(caught.value)


def test_a_workshop_that_is_not_reached_is_named_and_so_is_who_asks(
    control: Control,
) -> None:
    entry = {"name": "node7", "endpoints": [closed_endpoint()]}
    asked = outcome(lambda: control.workshop(entry, "logs", {}, timeout_s=0.5))
    with pytest.raises(FactoryUnreachable) as caught:
        asked.result(DEADLINE_S)
    here, there = f"{socket.gethostname()} (127.0.0.1)", entry["endpoints"][0]
    assert f"{here} cannot reach node7 at {there}: connection ref" in str(caught.value)
