"""OpenCluster used in other ways, each to be held against how it is used best."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

from bench.machine import ROOT
from bench.peers.opencluster import OpenCluster
from bench.tasks import total
from bench.workers import TARGET
from opencluster import DataRef
from opencluster.config import load
from opencluster.errors import FactoryUnreachable
from opencluster.launchers.embedded import control_of
from opencluster.net.control import Control
from opencluster.place import Place

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
COMMAND = (sys.executable, "-m", "opencluster")


class Gathering(OpenCluster):
    """All arrays come to this process, which sums them."""

    only = ("keep_arrays", "joined")

    def joined(self, arrays: list[DataRef]) -> Any:
        """Gather, and sum."""
        import numpy as np

        found = [result["block"] for result in self._manager.gather(arrays)]
        return total(found, np.empty_like(found[0]))


class Tcp(OpenCluster):
    """A cluster as one of several computers is, over TCP on loopback.

    Nothing but TCP is left: no express lane, no shared memory, and no local sockets,
    whose files are removed before this process looks for the workers.
    """

    only = ("noop", "noops", "blocks", "results")
    has_keys = False

    def start(self, workers: int) -> None:
        """Start a factory and a workshop by their commands, as on two computers."""
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        port = _free_port()
        # this process is of that cluster too, until it ends
        os.environ |= {
            "OPENCLUSTER_DIR": self._folder.name,
            "OPENCLUSTER_ENGINE": "cluster",
            "OPENCLUSTER_CLUSTER_FACTORIES": f"{HOST}:{port}",
            "OPENCLUSTER_NETWORK_EXPRESS_LANE": "false",
        }
        if self.has_keys:
            command = [*COMMAND, "keys", "new"]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        self._begin("factory", "--port", str(port))
        self._begin("workshop", "--only", "--workers", f"{TARGET}={workers}")
        self._leave_only_tcp(workers)
        self._join(workers)

    def close(self) -> None:
        """End the daemons, the workshop first."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(END_TIMEOUT_S)
        self._folder.cleanup()

    def _begin(self, *arguments: str) -> None:
        self._daemons.append(subprocess.Popen([*COMMAND, *arguments], cwd=ROOT))

    def _leave_only_tcp(self, workers: int) -> None:
        """Remove the socket of each worker, which listens there and at a port."""
        deadline = time.monotonic() + START_TIMEOUT_S
        place = Place.find()
        with control_of(load(), place) as control:
            while (found := _workers_at(control)) < workers:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"only {found} of {workers} workers came")
                time.sleep(0.02)
        for path in place.sockets.glob("w-*.sock"):
            path.unlink()


class Curve(Tcp):
    """The same with keys: every message is encrypted."""

    has_keys = True


def _workers_at(control: Control) -> int:
    """Return how many workers the factory knows; none while it starts."""
    try:
        return len(control.factory("find", {"kind": "worker"}))
    except FactoryUnreachable:
        return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
