"""A factory's connections to the others: who is heard, and over which of them."""

from __future__ import annotations

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
