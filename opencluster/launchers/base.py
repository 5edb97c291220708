"""What all launchers have in common: how they are asked, and what they answer.

A launcher brings the daemons of one cluster file onto computers, and ends them. It
decides nothing else: who is in the cluster, and who is alive, the factories know.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from opencluster.errors import LaunchFailed
from opencluster.launchers.cluster_file import ClusterFile
from opencluster.place import Place

PENDING = "pending"
RUNNING = "running"
ENDED = "ended"


@dataclass(frozen=True)
class Outcome:
    """What became of one host, or of one job of a batch system.

    Attributes
    ----------
    host : str
        Its name.
    is_done : bool
        Whether what was asked for was done there.
    message : str
        One line for people: what was done, or why not and what to do next.
    detail : str
        What commands said, when something failed.
    """

    host: str
    is_done: bool
    message: str
    detail: str = ""


@dataclass(frozen=True)
class Allocation:
    """A job of a batch system: computers for some time.

    Attributes
    ----------
    id : str
        As the batch system calls it.
    state : str
        `PENDING`, `RUNNING` or `ENDED`; a hint alone, as who is there the factories
        know.
    nodes : int
        How many computers it is for.
    ends_at : float
        When it must have ended, in seconds since 1970; 0 for never, and when that is
        not known.
    reason : str
        Why it waits or has ended, in the words of the batch system.
    """

    id: str
    state: str
    nodes: int
    ends_at: float = 0.0
    reason: str = ""


Tell = Callable[[Outcome], None]
"""Is called with each outcome as soon as it is known, by any thread."""


class Launcher(Protocol):
    """Brings the daemons of a cluster file onto computers, and ends them."""

    def describe(self) -> str:
        """Return what `launch` would do: commands, and the files that it writes."""

    def launch(self, tell: Tell) -> list[Outcome]:
        """Start what the file asks for and does not run yet.

        Raises
        ------
        LaunchFailed
            When nothing could be tried. A host that fails is an outcome.
        """

    def take_down(self, tell: Tell) -> list[Outcome]:
        """End everything that was launched from this place."""

    def allocations(self) -> list[Allocation]:
        """Return the jobs of the batch system; none for fixed hosts."""

    def add(self, nodes: int) -> list[str]:
        """Ask for so many more computers, and return the jobs' names.

        Raises
        ------
        LaunchFailed
            When the hosts are fixed, or the batch system refuses.
        """

    def remove(self, id: str) -> None:
        """Give back the computers of a job.

        Raises
        ------
        LaunchFailed
            When the hosts are fixed, or the batch system refuses.
        """


class FixedHosts:
    """What launchers say whose hosts are told by the file, and none other."""

    def allocations(self) -> list[Allocation]:
        """Return nothing: there are no jobs."""
        return []

    def add(self, nodes: int) -> list[str]:
        """Refuse."""
        raise LaunchFailed(
            "this cluster has the hosts that its file names: add some there, and run "
            "`opencluster up` again"
        )

    def remove(self, id: str) -> None:
        """Refuse."""
        raise LaunchFailed(
            "this cluster has the hosts that its file names: take some out there, "
            "after `opencluster drain`"
        )


def launcher_of(file: ClusterFile, place: Place) -> Launcher:
    """Return the launcher that a cluster file asks for.

    Parameters
    ----------
    file : ClusterFile
        What is to run, and where.
    place : Place
        The directory from which the cluster is controlled.
    """
    module = importlib.import_module(f"opencluster.launchers.{file.launcher}")
    return cast(Launcher, module.launcher(file, place))


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return those outcomes that are none of success."""
    return [outcome for outcome in outcomes if not outcome.is_done]
