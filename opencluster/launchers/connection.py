"""How a program reaches the cluster; without one it fails at once and says so."""

from __future__ import annotations

from opencluster.config import Config
from opencluster.errors import FactoryUnreachable
from opencluster.launchers import embedded
from opencluster.net.control import Control
from opencluster.place import Place


def connect(config: Config, place: Place) -> Control:
    """Return a connection to the daemons of the cluster, a context manager.

    Parameters
    ----------
    config : Config
        The settings, which may name the factories.
    place : Place
        The cluster's directory, when they do not.

    Raises
    ------
    FactoryUnreachable
        When no cluster is known there, or its factory has ended.
    """
    missing = why_unreachable(config, place)
    if missing:
        raise FactoryUnreachable(missing)
    return embedded.control_of(config, place)


def why_unreachable(config: Config, place: Place) -> str:
    """Return why there can be no cluster, as far as this computer knows, or nothing."""
    if config.cluster.factories:
        return ""
    daemons = place.read().get("factories", [])
    if any(embedded.is_alive(d) or embedded.is_elsewhere(d) for d in daemons):
        return ""
    if daemons:
        return (
            f"the factory of the cluster in {place.path} has ended, although nobody "
            "stopped it: see `opencluster logs factory`, then `opencluster start`"
        )
    return (
        f"no cluster is running in {place.path}: start one with `opencluster start`, "
        "or name another with --dir, OPENCLUSTER_DIR or [cluster] factories"
    )
