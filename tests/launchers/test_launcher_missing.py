"""Hosts that a cluster misses, by what its factories tell."""

from __future__ import annotations

from opencluster.launchers.description import Host
from opencluster.launchers.missing import missing_in

HOSTS = (
    Host("a", ("factory", "workshop")),
    Host("b", ("factory",)),
    Host("c", ("workshop",)),
)
AT = ("tcp://a:1", "tcp://b:1")
SHOPS = [{"kind": "workshop", "name": name} for name in ("a", "c")]
WORKER = {"kind": "worker", "name": "c"}


def test_a_host_is_missed_whose_workshop_or_factory_is_not_there() -> None:
    leads = {"endpoint": AT[0], "role": "leader"}
    follows = {"endpoint": AT[1], "role": "follower"}
    status = {"entries": SHOPS, "factories": [leads, follows]}
    assert missing_in(status, HOSTS, AT) == set()
    status = {"entries": [SHOPS[0], WORKER], "factories": [leads, follows]}
    assert missing_in(status, HOSTS, AT) == {"c"}
    absent = follows | {"role": "absent"}
    status = {"entries": SHOPS, "factories": [leads, absent]}
    assert missing_in(status, HOSTS, AT) == {"b"}
    # that of this computer alone is not told where it is
    status = {
        "entries": SHOPS,
        "factories": [{"endpoint": "ipc://x", "role": "leader"}],
    }
    assert missing_in(status, HOSTS[:1], []) == set()
