"""Several computers, in network namespaces, of several addresses each.

A factory is on one, workshops are on two, and managers run on a fourth one and on that
of a workshop. All listen at all of their addresses.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from chaos_cluster import EYE, ChaosCluster, chaos_cluster, wait_until
from chaos_net import Network, network
from several_programs import BLOCK, PROGRAM, TARGET

from opencluster.config import load
from opencluster.errors import FactoryUnreachable
from opencluster.net.control import Control
from opencluster.node.host import host_id
from opencluster.observe.status import status_of

pytestmark = pytest.mark.processes

EVERYWHERE = {"OPENCLUSTER_NETWORK_BIND": "0.0.0.0"}
SECOND = "10.98.0"
"""A network by which computers reach each other too."""
LONE = "10.99.0"
"""One by which they reach nobody."""
WAIT_S = 6


@pytest.fixture(scope="module")
def site() -> Iterator[ChaosCluster]:
    """Yield a cluster on four computers."""
    settings = {"manager.worker_wait_s": WAIT_S}
    with (
        network("f1", "node2", "node3", EYE) as net,
        tempfile.TemporaryDirectory() as folder,
        chaos_cluster(net, Path(folder), settings) as cluster,
    ):
        add_addresses(net)
        factory = ["-m", "opencluster", "factory", "--host", "0.0.0.0"]
        cluster.start_python("f1", "f1", *factory, "--port", "9100")
        cluster.start_workshop("node2", TARGET, 1, **EVERYWHERE)
        announce = {"OPENCLUSTER_NETWORK_ANNOUNCE": f"{SECOND}.0/24"}
        cluster.start_workshop("node3", TARGET, 1, **EVERYWHERE, **announce)
        cluster.await_workers(2, "Lab")
        yield cluster


def add_addresses(net: Network) -> None:
    for host in net.hosts.values():
        lines = f"""
            link add name alone0 type veth peer name alone1
            link set alone1 up
            link set alone0 up
            address add {LONE}.{host.number}/24 dev alone0
            address add {SECOND}.{host.number}/24 dev eth0
        """
        command = ["ip", "-netns", host.space, "-batch", "-"]
        subprocess.run(command, input=lines.encode(), check=True, timeout=20)


def found_by(site: ChaosCluster, name: str) -> dict[str, Any]:
    """Return what a program printed last, once it has."""

    def printed() -> str:
        lines = site.programs[name].said().splitlines()
        return next((line for line in lines[::-1] if line.startswith("{")), "")

    found: dict[str, Any] = json.loads(wait_until(printed, f"{name} prints"))
    return found


def tcp_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return at which address each computer of entries is reached."""
    return {
        entry["workshop"] or entry["id"]: endpoint.rpartition(":")[0]
        for entry in entries
        for endpoint in entry["endpoints"]
        if endpoint.startswith("tcp://")
    }


def test_addresses_are_announced_by_which_others_are_reached(
    site: ChaosCluster,
) -> None:
    shops = {shop["id"]: shop["name"] for shop in site.registered("workshop")}
    for kind in ("workshop", "worker"):
        announced = tcp_of(site.registered(kind))
        assert {shops[shop]: way for shop, way in announced.items()} == {
            # by which it reaches the factory, and which was asked for
            "node2": f"tcp://{site.net.host('node2').address}",
            "node3": f"tcp://{SECOND}.3",
        }
    said = site.hello("f1")
    assert said is not None
    assert said["endpoints"] == [f"tcp://{site.net.host('f1').address}:9100"]


def test_work_goes_over_the_network_and_memory_is_shared_on_one_computer_alone(
    site: ChaosCluster,
) -> None:
    site.start_python("manager", EYE, PROGRAM, "work")
    site.start_python("near manager", "node2", PROGRAM, "work")
    far, near = found_by(site, "manager"), found_by(site, "near manager")
    for found in (far, near):
        assert found["words"]["the"] == 2 * sum(range(1, 21))
        numbers = [range(n, BLOCK + n) for n in range(8)]
        assert found["sums"] == [2.0 * sum(each) for each in numbers]
    # the two workshops, and for the second manager one of them is where it is itself
    assert len(far["places"]) == 2 and far["here"] not in far["places"]
    assert near["here"] in near["places"] == far["places"]
    assert near["shares"] and not far["shares"]
    assert not near["far_shares"]
    assert len({far["here"], near["here"], host_id()}) == 3


def test_a_firewall_that_lets_one_direction_through_is_told_of_with_both_ends(
    site: ChaosCluster,
) -> None:
    # what they send does not arrive, and they hear all that is sent to them
    site.net.deafen([EYE], ["node2", "node3"])
    try:
        healed = site.path / "healed"
        site.start_python("cut off", EYE, PROGRAM, "wait", str(healed))
        here = f"{socket.gethostname()} ({site.net.host(EYE).address})"
        there = f"tcp://{site.net.host('node2').address}:"

        def reported() -> list[str]:
            status = status_of(site.client.factory("status"))
            found = [text for job in status["jobs"] for text in job["unreached"]]
            return found if len(found) == 2 else []

        texts = wait_until(reported, "the job's report says who is not reached")
        (node2,) = (text for text in texts if there in text)
        assert node2.startswith(f"{here} cannot reach Lab-1")
        assert "no answer within 2 s" in node2 and "firewall" in node2

        eye = site.net.host(EYE)
        config = load(files=[], environ={})
        control = eye.call(lambda: Control(config, lambda: [], here=host_id()))
        (shop,) = (s for s in site.registered("workshop") if s["name"] == "node2")
        with control, pytest.raises(FactoryUnreachable) as caught:
            # its local socket lies on the same disk, and leads nowhere from there
            control.workshop(shop, "status", {}, 1.0)
        assert f"{here} cannot reach node2 at {there}" in str(caught.value)

        error = found_by(site, "cut off")["error"]
        assert "Not reached, of those in the registry: 2" in error
        assert all(text in error for text in texts)
        log = site.programs["cut off"].said()
        assert f"{texts[0]}; no pieces go to it meanwhile" in log
    finally:
        site.net.heal()
    healed.touch()
    wait_until(lambda: "words" in found_by(site, "cut off"), "it is reached again")
    assert found_by(site, "cut off")["words"]["the"] == 2


NOBODY: dict[str, Callable[[ChaosCluster], tuple[str, str]]] = {
    "a name that does not resolve": lambda site: (
        "tcp://no-such-computer.invalid:9100",
        "'no-such-computer.invalid' has no address here",
    ),
    "a port at which nobody listens": lambda site: (
        f"tcp://{site.net.host('f1').address}:9101",
        "connection refused: nothing listens there",
    ),
    "a network without a way": lambda site: ("tcp://10.97.0.1:9100", "unreachable"),
    "an address that nobody has": lambda site: (
        f"tcp://{LONE}.77:9100",
        "no route to host",
    ),
}


def test_a_factory_that_is_not_reached_is_told_of_with_both_ends(
    site: ChaosCluster,
) -> None:
    asked = {what: make(site) for what, make in NOBODY.items()}
    config = load(files=[], environ={})
    eye = site.net.host(EYE)

    def ask(endpoint: str) -> Callable[[], Any]:
        control = eye.call(lambda: Control(config, lambda: [[endpoint]]))
        answer = control._link.request("status", timeout_s=6.0)

        def result() -> Any:
            with control:
                return answer.result(20)

        return result

    # all at a time, as each takes its time
    answers = {what: ask(endpoint) for what, (endpoint, _) in asked.items()}
    for what, (endpoint, why) in asked.items():
        with pytest.raises(FactoryUnreachable) as caught:
            answers[what]()
        text = str(caught.value)
        assert f"cannot reach {endpoint}: " in text and why in text, what
        assert f"no factory answered: {socket.gethostname()} (10." in text, what
