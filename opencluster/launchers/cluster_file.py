"""The cluster file: which cluster runs where, and what can run in it.

Owns the meaning of ``cluster.yaml``. Starts nothing. Every mistake is named with its
file, line and key, all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

LAUNCHERS = ("local", "ssh", "slurm", "pbs")
FACTORY_PORT = 9100
DRAIN_BEFORE_S = 120.0


@dataclass(frozen=True)
class Host:
    """A computer on which daemons are to run.

    Attributes
    ----------
    name : str
        As ssh knows it.
    roles : tuple of str
        ``factory``, ``workshop`` or both.
    address : str
        At which other computers reach its factory; empty means what ssh calls it.
    port : int
        Of its factory.
    python : str
        The interpreter to use there.
    counts : mapping of str to int
        How many workers and services of catalogued names, where it is not as the
        catalogue says.
    """

    name: str
    roles: tuple[str, ...]
    address: str = ""
    port: int = FACTORY_PORT
    python: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """What is asked of a batch system.

    Attributes
    ----------
    nodes : int
        Computers of the first job.
    time : str
        Time limit as the batch system writes it; empty means its own default.
    cpus_per_node : int
        CPUs of each computer; 0 takes whole computers.
    gpus_per_node : int
        GPUs of each computer.
    partition, account, queue : str
        Where and for whom; empty means the batch system's default.
    options : tuple of str
        Further options, as they are written on the lines of a job script.
    drain_before_s : float
        Seconds before the end of a job at which its workers take nothing more.
    """

    nodes: int = 1
    time: str = ""
    cpus_per_node: int = 0
    gpus_per_node: int = 0
    partition: str = ""
    account: str = ""
    queue: str = ""
    options: tuple[str, ...] = ()
    drain_before_s: float = DRAIN_BEFORE_S


@dataclass(frozen=True)
class ClusterFile:
    """A checked cluster file.

    Attributes
    ----------
    path : Path
        Where it lies.
    name : str
        Of the cluster.
    launcher : str
        One of `LAUNCHERS`.
    directory : str
        Of the cluster on each host; ``~`` is the home there.
    python : str
        The interpreter on the hosts.
    factory_port : int
        Of factories that name none.
    hosts : tuple of Host
        For the ssh launcher.
    batch : Batch
        For the batch systems.
    sections : mapping of str to mapping of str to str
        What becomes the config.ini of the hosts: catalogue, limits and settings, as
        section, key and text.
    files : mapping of str to Path
        Files to copy: relative path on the host, and where it lies here.
    elastic : mapping of str to mapping of str to float
        Type, or ``limits``: key and value. Empty when nothing is elastic.
    """

    path: Path
    name: str
    launcher: str = "local"
    directory: str = ""
    python: str = ""
    factory_port: int = FACTORY_PORT
    hosts: tuple[Host, ...] = ()
    batch: Batch = Batch()
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    elastic: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def load_cluster_file(path: Path) -> ClusterFile:
    """Read and check a cluster file.

    Raises
    ------
    ConfigError
        With every problem, each naming its file, line and key.
    """
    raise NotImplementedError
