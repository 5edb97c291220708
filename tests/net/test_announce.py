"""At which of its addresses a process says that it is reached."""

from __future__ import annotations

import pytest

from opencluster.cli.daemons import factory_endpoint
from opencluster.config import load
from opencluster.errors import ConfigError
from opencluster.net import announce as module
from opencluster.net.announce import announced, stands_for_loopback, way_out
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


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the name of this computer stand for the loopback, here alone."""
    known = {"node1": "127.0.1.1", "node2": "198.51.100.2", "localhost": "127.0.0.1"}
    monkeypatch.setattr(module, "address_of", lambda host: known.get(host, host))


def test_a_name_that_means_the_loopback_is_no_way_to_a_factory(debian: None) -> None:
    assert stands_for_loopback("node1")
    for name in ("node2", "localhost", "127.0.1.1", "no-such-name"):
        assert not stands_for_loopback(name)
    elsewhere = way_out()
    assert way_out(["tcp://node1:9100"]) == elsewhere
    assert way_out(["tcp://node1:9100", "tcp://127.0.0.1:9100"]) == "127.0.0.1"
    assert way_out(["tcp://localhost:9100", "tcp://node1:9100"]) == "127.0.0.1"


def test_who_is_told_to_be_where_nobody_reaches_them_is_warned_of(
    debian: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as on a computer with a network
    monkeypatch.setattr(module, "way_out", lambda known: "198.51.100.1")
    near = "tcp://127.0.0.1:1234"
    assert announced(near, "", [["tcp://node2:9100"]]) == near
    (message,) = caplog.messages
    assert "at 127.0.0.1:1234, where no other computer" in message
    assert "[network] bind" in message
    announced("tcp://198.51.100.1:1234", "", [["tcp://node2:9100"]])
    announced(near)
    announced(near, "", [["ipc:///tmp/factory.sock"]])
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("0.0.0.0", "tcp://0.0.0.0:9100"),
        ("198.51.100.1", "tcp://198.51.100.1:9100"),
        # the cluster of one computer, where the name leads to itself
        ("127.0.0.1", "tcp://node1:9100"),
    ],
)
def test_a_factory_does_not_listen_where_its_name_leads_to_here_alone(
    debian: None, bind: str, expected: str
) -> None:
    settings = {("network", "bind"): bind, ("cluster", "insecure"): "true"}
    config = load(files=[], environ={}, overrides=settings)
    assert factory_endpoint(config, "", None, "tcp://node1:9100", False) == expected
    named = factory_endpoint(config, "", None, "tcp://node2:9100", False)
    assert named == "tcp://node2:9100"
