"""A factory's connections to the others: who is heard, and over which of them."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest

from opencluster.errors import RemoteProtocolError
from opencluster.net.fellows import MAX_NAME, MAX_NAMES, Fellows
from opencluster.net.zmq_transport import ZmqTransport

ME, OTHER = "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"


@pytest.fixture
def fellows() -> Any:
    transport = ZmqTransport()
    yield Fellows(transport, ME, [ME, OTHER])
    transport.close()


@pytest.mark.parametrize("name", ["", "x" * (MAX_NAME + 1), None, 7, b"x", [], ME])
def test_nobody_speaks_without_a_name_or_in_that_of_this_factory(
    fellows: Fellows, name: Any
) -> None:
    with pytest.raises(RemoteProtocolError):
        fellows.heard(b"<peer", name)
    assert not fellows._heard


def test_of_only_so_many_it_is_known_where_they_were_heard(fellows: Fellows) -> None:
    for number in range(2 * MAX_NAMES):
        name = f"tcp://guest:{number}"
        assert fellows.heard(b"<%d" % number, name) == name
    assert len(fellows._heard) == MAX_NAMES


def test_it_is_told_once_that_a_factory_is_not_reached_until_it_is(
    fellows: Fellows, caplog: pytest.LogCaptureFixture
) -> None:
    fellows.connect()
    assert fellows.missing() == [OTHER]
    peer = fellows._opened[OTHER]
    with caplog.at_level(logging.WARNING, "opencluster.net.fellows"):
        for _ in range(3):
            fellows.unreached(OTHER, "connection refused")
        assert fellows.connected(peer) == OTHER and not fellows.missing()
        fellows.unreached(OTHER, "it was too late to look")
        fellows.lost(peer)
        fellows.unreached(OTHER, "no answer")
    here = f"{socket.gethostname()} (127.0.0.1) cannot reach a factory at {OTHER}: "
    assert caplog.messages == [f"{here}connection refused", f"{here}no answer"]
