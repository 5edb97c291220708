"""At which of its addresses a process says that it is reached."""

from __future__ import annotations

import pytest

from opencluster.errors import ConfigError
from opencluster.net.announce import announced, way_out
from opencluster.net.zmq_transport import ZmqTransport

NEAR = [["tcp://127.0.0.1:9100"]]
ALL = "tcp://0.0.0.0:1234"


def test_what_listens_at_one_address_announces_it() -> None:
    for endpoint in ("tcp://127.3.4.5:1234", "ipc:///tmp/w.sock", "unix:///tmp/w.lane"):
        assert announced(endpoint, "", NEAR) == endpoint


@pytest.mark.parametrize("bind", ["0.0.0.0", "*"])
def test_what_listens_at_all_announces_the_way_to_the_factories(bind: str) -> None:
    transport = ZmqTransport()
    try:
        bound = transport.listen(f"tcp://{bind}:0")
        told = announced(bound, "", NEAR)
    finally:
        transport.close()
    port = bound.rpartition(":")[2]
    assert told == f"tcp://127.0.0.1:{port}" != bound


def test_factories_to_which_there_is_no_way_do_not_matter() -> None:
    known = [["ipc:///tmp/f.sock"], [""], ["tcp://no.such.invalid:9100"], *NEAR]
    assert announced(ALL, "", known) == "tcp://127.0.0.1:1234"
    # without any, it is still an address at which somebody could be reached
    assert not announced(ALL).startswith("tcp://0.")
    assert way_out(["tcp://127.0.0.1:no"]) == way_out()


@pytest.mark.parametrize("wanted", ["lo", "127.0.0.0/8", "127.0.0.1/32", "127.0.0.1"])
def test_an_interface_a_network_or_an_address_may_be_named(wanted: str) -> None:
    assert announced(ALL, wanted) == "tcp://127.0.0.1:1234"
    assert announced("tcp://127.0.0.1:1", wanted) == "tcp://127.0.0.1:1"
    assert announced("ipc:///tmp/w.sock", wanted) == "ipc:///tmp/w.sock"


def test_an_address_of_a_router_is_announced_as_it_is() -> None:
    assert announced(ALL, "192.0.2.7") == "tcp://192.0.2.7:1234"
    assert announced("tcp://127.0.0.1:1", "192.0.2.7") == "tcp://192.0.2.7:1"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("0.0.0.0", "nobody can be reached there"),
        ("224.0.0.1", "nobody can be reached there"),
        ("255.255.255.255", "nobody can be reached there"),
        ("ib77", "127.0.0.1 (lo)"),
        ("loo", "did you mean lo?"),
        ("198.51.100.0/24", "no such address or interface"),
        ("10.1.0.0/99", "give a network such as"),
        ("fe80::/64", "give a network such as"),
        ("fe80::1", "no such address or interface"),
    ],
)
def test_what_cannot_be_announced_is_refused(wanted: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        announced(ALL, wanted, NEAR)
    said = str(caught.value)
    assert said.startswith(f"[network] announce = {wanted}: ") and expected in said


def test_an_interface_at_which_nobody_listens_is_refused() -> None:
    with pytest.raises(ConfigError, match="listens at 127.0.0.9 alone.* bind to"):
        announced("tcp://127.0.0.9:1", "lo")
