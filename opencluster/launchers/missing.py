"""Which hosts a cluster lacks something of, as its factories tell.

Owns how it is seen. Asks no host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opencluster.core.roles import WORKSHOP
from opencluster.launchers.description import Host

ABSENT = "absent"
"""What a leader says of a factory that it has not heard."""


def missing_in(
    status: Mapping[str, Any], hosts: Sequence[Host], endpoints: Sequence[str]
) -> set[str]:
    """Return the names of hosts whose workshop or factory is not there.

    Parameters
    ----------
    status : mapping
        What a factory says to ``status``.
    hosts : sequence of Host
        Those of the cluster file.
    endpoints : sequence of str
        The endpoints of the factories, in the order of their hosts.
    """
    shops = {e["name"] for e in status["entries"] if e["kind"] == WORKSHOP}
    absent = {f["endpoint"] for f in status["factories"] if f["role"] == ABSENT}
    wanted = {host.name for host in hosts if WORKSHOP in host.roles}
    factories = [host.name for host in hosts if host.is_factory]
    # a cluster of one computer has no endpoint that is told
    places = zip(factories, endpoints, strict=False)
    return (wanted - shops) | {name for name, at in places if at in absent}
