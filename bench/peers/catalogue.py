"""All that can be measured: what each is, what it needs, and where it is.

A peer's own library is imported in the process that drives it and nowhere else, so
that a list of what is here costs nothing and nothing is needed that is not measured.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from bench.peers.base import Peer

OURS = "opencluster"
EXTRAS = "pip install -e '.[bench]'"
MPI_INSTALL = (
    "apt-get install mpich libmpich-dev gcc libc6-dev && "
    "MPICC=mpicc.mpich pip install --no-binary=mpi4py mpi4py"
)


@dataclass(frozen=True)
class Listing:
    """One peer of the catalogue.

    Attributes
    ----------
    name : str
        By which it is asked for.
    home : str
        Its class: ``package.module:Class``.
    what : str
        What it is, in a line.
    module : str
        What has to be installed, as it is imported; empty for nothing.
    install : str
        The command that brings it.
    most_workers : int
        The number of workers it is meant for, 0 for any.
    """

    name: str
    home: str
    what: str
    module: str = ""
    install: str = EXTRAS
    most_workers: int = 0

    @property
    def family(self) -> str:
        """What it is a variant of: ``mpi`` of ``mpi-farm``."""
        return self.name.partition("-")[0]

    def load(self) -> type[Peer]:
        """Import the class."""
        return load(self.home)

    def lacking(self) -> str:
        """Return what keeps it from being measured, and the cure; empty for nothing."""
        if self.module and importlib.util.find_spec(self.module) is None:
            return f"{self.module} is not installed: {self.install}"
        if self.family == "mpi":
            return _lacking_of_mpi()
        return ""


PEERS = (
    Listing(OURS, "bench.peers.opencluster:OpenCluster", "a cluster of this project"),
    Listing(
        "opencluster-gather",
        "bench.peers.variants:Gathering",
        "the same, arrays gathered and summed by the manager",
    ),
    Listing(
        "opencluster-tcp",
        "bench.peers.variants:Tcp",
        "the same over TCP on loopback, without shared memory",
    ),
    Listing(
        "opencluster-curve",
        "bench.peers.variants:Curve",
        "the same over TCP with keys, encrypted",
    ),
    Listing(
        "mpi-static",
        "bench.peers.mpi:Static",
        "MPI, a fixed division of work, two sends in flight",
        "mpi4py",
        MPI_INSTALL,
    ),
    Listing(
        "mpi-farm",
        "bench.peers.mpi:Farm",
        "MPI, blocking sends to whoever is free",
        "mpi4py",
        MPI_INSTALL,
    ),
    Listing(
        "mpi-yield",
        "bench.peers.mpi:YieldingStatic",
        "mpi-static whose waiting ranks give their cores away",
        "mpi4py",
        MPI_INSTALL,
    ),
    Listing(
        "dask", "bench.peers.dask:Dask", "Dask distributed as it comes", "distributed"
    ),
    Listing(
        "dask-tuned",
        "bench.peers.dask:TunedDask",
        "Dask distributed with worker-saturation inf",
        "distributed",
    ),
    Listing(
        "dask-scatter",
        "bench.peers.dask:ScatteringDask",
        "dask-tuned, each block scattered to a worker first",
        "distributed",
    ),
    Listing("ray-tasks", "bench.peers.ray:RayTasks", "Ray, tasks without state", "ray"),
    Listing(
        "ray-actors",
        "bench.peers.ray:RayActors",
        "Ray, an actor for each worker",
        "ray",
    ),
    Listing(
        "ipyparallel",
        "bench.peers.ipyparallel:Ipyparallel",
        "ipyparallel, a load-balanced view",
        "ipyparallel",
    ),
    Listing(
        "pyro5", "bench.peers.pyro5:Pyro5", "Pyro5, a thread for each worker", "Pyro5"
    ),
    Listing("zmq", "bench.peers.zeromq:ZeroMQ", "a hand-written loop over ZeroMQ, ipc"),
    Listing(
        "limit-memcpy",
        "bench.peers.limits:Memcpy",
        "one process that copies each block once",
        most_workers=1,
    ),
    Listing(
        "limit-pipe",
        "bench.peers.limits:Pipe",
        "two pipes and a child, blocking",
        most_workers=1,
    ),
    Listing(
        "limit-unix",
        "bench.peers.limits:UnixSocket",
        "a unix socket and a child, blocking",
        most_workers=1,
    ),
    Listing(
        "limit-tcp",
        "bench.peers.limits:TcpSocket",
        "a TCP socket on loopback and a child, blocking",
        most_workers=1,
    ),
)
"""In the order in which tables show them."""

_BY_NAME = {listing.name: listing for listing in PEERS}
NAMES = tuple(_BY_NAME)
FAMILIES = tuple(dict.fromkeys(listing.family for listing in PEERS))


def load(home: str) -> type[Peer]:
    """Import a peer, given as ``package.module:Class``."""
    module, _, name = home.partition(":")
    return cast(type[Peer], getattr(importlib.import_module(module), name))


class UnknownPeer(Exception):
    """A name that is not in the catalogue."""


def find(name: str) -> Listing:
    """Return a peer by its name."""
    if name not in _BY_NAME:
        raise UnknownPeer(f"{name!r} is no peer; there are: {', '.join(NAMES)}")
    return _BY_NAME[name]


def choose(words: Iterable[str]) -> list[Listing]:
    """Return the peers that are meant by names and families, each once.

    Parameters
    ----------
    words : iterable of str
        ``dask-tuned``, or ``dask`` for both of its kinds, or ``all``.

    Raises
    ------
    UnknownPeer
        When a word means nothing.
    """
    wanted: set[str] = set()
    for word in words:
        meant = {x.name for x in PEERS if word in ("all", x.name, x.family)}
        if not meant:
            known = ", ".join(dict.fromkeys([*FAMILIES, *NAMES]))
            raise UnknownPeer(f"{word!r} is no peer; there are: {known}")
        wanted |= meant
    return [listing for listing in PEERS if listing.name in wanted]


def versions(listings: Sequence[Listing]) -> dict[str, str]:
    """Return the version of each library that is measured, the one of MPI too."""
    found = {}
    for module in dict.fromkeys(x.module for x in listings if x.module):
        found[module] = importlib.metadata.version(module)
    if "mpi4py" in found:
        found["mpi library"] = mpi_library()
    return found


@functools.cache
def mpi_library() -> str:
    """Return the name and version of the MPI library, empty when none can be loaded."""
    code = (
        "import mpi4py; mpi4py.rc.initialize = False\n"
        "from mpi4py import MPI; print(MPI.Get_library_version())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return " ".join(lines[0].rstrip("\0").split()) if lines else ""


def _lacking_of_mpi() -> str:
    from bench.peers.mpi import launcher

    library = mpi_library()
    if "MPICH" not in library:
        which = library or "none that can be loaded"
        return f"the MPI library is to be MPICH and is {which}: {MPI_INSTALL}"
    if launcher() is None:
        return f"there is no mpiexec: {MPI_INSTALL}"
    return ""
