"""Launch on this computer alone: as ssh would, without ssh."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from opencluster.core.roles import FACTORY, WORKSHOP
from opencluster.launchers.commands import Ran
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.hosts import Cause, HostsLauncher
from opencluster.node.host import host_name
from opencluster.place import Place


def launcher(file: ClusterFile, place: Place) -> ThisComputer:
    """Return the launcher of a cluster file for this computer."""
    return ThisComputer(file, place)


class ThisComputer(HostsLauncher):
    """Runs a factory and the workshop in the place itself, as `opencluster start` does.

    Parameters
    ----------
    file : ClusterFile
        The cluster file.
    place : Place
        The cluster's directory.
    """

    def __init__(self, file: ClusterFile, place: Place) -> None:
        host = Host(host_name(), (FACTORY, WORKSHOP), python=file.python)
        super().__init__(replace(file, hosts=(host,)), place)

    def command(self, host: Host, deed: str) -> list[str]:
        """Return the command that carries out a deed of ``launchers.node``."""
        return [host.python or sys.executable, "-m", "opencluster.launchers.node", deed]

    def endpoint(self, host: Host) -> str:
        """Return nothing: the factory has a local socket."""
        return ""

    def directory(self, host: Host) -> str:
        """Return the place itself."""
        return str(self.place.path)

    def explain(self, host: Host, ran: Ran) -> Cause:
        """Return why there was no answer."""
        said = ran.errors.strip()
        return Cause(f"`{host.python}` ended with status {ran.code}: {said}")

    def _keys(self) -> Path | None:
        return None

    def _check_alone(self) -> None:
        """Leave that to the order, which sees whether the same runs already."""

    def _write_cluster_file(self) -> None:
        """Leave that to the order, which is carried out in the place itself."""
