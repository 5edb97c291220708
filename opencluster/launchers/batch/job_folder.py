"""The folder of a batch job in the cluster's directory, which its computers share.

Owns what stands there: the job's computers, the factories, and when it ends. Starts
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opencluster.errors import LaunchFailed
from opencluster.launchers.batch.script import (
    END_FILE,
    ENDS_AT_FILE,
    JOBS_FILE,
    LAUNCH_FOLDER,
    NODES_FILE,
)
from opencluster.launchers.description import ENOUGH_FACTORIES
from opencluster.launchers.order import Order
from opencluster.place import Place, replace_file

FIRST_PORT = 20_000
PORTS = 10_000
"""Factories listen at one of these, below those that systems give to clients."""
END_MARGIN_S = 15.0
"""Before the end of a job its daemons end, so that none of them is killed."""
ORDER_FILE = "order.json"
FACTORIES_FILE = "factories"
ANSWERS_FOLDER = "answers"


@dataclass(frozen=True)
class Job:
    """The folder of a job, which all its computers share.

    Attributes
    ----------
    folder : Path
        In the cluster's directory, named after the job.
    """

    folder: Path

    @property
    def id(self) -> str:
        """The job's number or name."""
        return self.folder.name

    @property
    def shared(self) -> Place:
        """The cluster's directory."""
        return Place(self.folder.parent.parent)

    @property
    def is_noted(self) -> bool:
        """Whether whoever submitted it has noted it, so that it can be ended."""
        try:
            rows = json.loads((self.shared.path / JOBS_FILE).read_text())
            return any(row["id"] == self.id for row in rows)
        except (OSError, ValueError, TypeError, KeyError):
            return False

    @property
    def nodes(self) -> list[str]:
        """Its computers."""
        return (self.folder / NODES_FILE).read_text().split()

    @property
    def factories(self) -> list[str]:
        """The endpoints of the cluster's factories."""
        return (self.folder / FACTORIES_FILE).read_text().split()

    @property
    def ends_at(self) -> float:
        """When it must have ended, in seconds since 1970; 0 when nobody knows."""
        try:
            return float((self.folder / ENDS_AT_FILE).read_text())
        except (OSError, ValueError):
            return 0.0

    def note_end(self, ends_at: float) -> None:
        """Tell all its computers when it must have ended."""
        replace_file(self.folder / ENDS_AT_FILE, f"{ends_at:.0f}\n")

    @property
    def is_to_end(self) -> bool:
        """Whether somebody has asked its computers to end."""
        return (self.folder / END_FILE).exists()

    def ask_to_end(self) -> None:
        """Tell all its computers to end."""
        (self.folder / END_FILE).touch()

    def order(self) -> tuple[Order, Mapping[str, Any]]:
        """Return what is to run on each, and how the job is to be followed."""
        path = self.shared.path / LAUNCH_FOLDER / ORDER_FILE
        content = json.loads(path.read_text())
        return Order.from_json(json.dumps(content["order"])), content["follow"]


def factory_endpoints(
    nodes: Sequence[str], id: str, address_of: Callable[[str], str]
) -> list[str]:
    """Return where the factories of a job listen: on its first computers.

    Parameters
    ----------
    nodes : sequence of str
        The job's computers.
    id : str
        The job's number or name.
    address_of : callable
        Returns the address of a computer, or nothing when its name will do.
    """
    number = ENOUGH_FACTORIES if len(nodes) >= ENOUGH_FACTORIES else 1
    return [
        f"tcp://{address_of(name) or name}:{port_of(id, index)}"
        for index, name in enumerate(nodes[:number])
    ]


def port_of(id: str, index: int) -> int:
    """Return the port of a job's factory; jobs that share a computer differ in it."""
    digits = "".join(filter(str.isdecimal, id.partition(".")[0])) or "0"
    return FIRST_PORT + (int(digits) * ENOUGH_FACTORIES + index) % PORTS


def workshop_name(node: str, id: str) -> str:
    """Return what the workshop of a job's computer is called: ``node.job``."""
    return f"{node.partition('.')[0]}.{id}"


def own_name(nodes: Sequence[str], environ: Mapping[str, str], host: str) -> str:
    """Return which of a job's computers this one is.

    Parameters
    ----------
    nodes : sequence of str
        The job's computers.
    environ : mapping of str to str
        The environment, in which Slurm says so.
    host : str
        What this computer is called.

    Raises
    ------
    LaunchFailed
        When it is none of them.
    """
    told = environ.get("SLURMD_NODENAME", host)
    for name in nodes:
        if told in (name, name.partition(".")[0]) or told.partition(".")[0] == name:
            return name
    raise LaunchFailed(f"{told} is none of the job's computers ({', '.join(nodes)})")
