"""What a cluster file says, once it is checked: hosts, batch jobs and settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from opencluster.config.catalogue import is_catalogue_section
from opencluster.config.elastic import is_elastic_section
from opencluster.core.roles import FACTORY

BATCH_LAUNCHERS = ("slurm", "pbs")
ENOUGH_FACTORIES = 3
"""So many survive the loss of any one; two would not agree more often than one."""
ELASTIC = "elastic"
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

    @property
    def is_factory(self) -> bool:
        """Whether a factory runs there."""
        return FACTORY in self.roles


@dataclass(frozen=True)
class Batch:
    """What is asked of a batch system.

    Attributes
    ----------
    nodes : int
        Computers of the first job.
    time : str
        Time limit as the batch system writes it; empty means its own default.
    gpus_per_node : int
        GPUs of each computer.
    cpus_per_node : int
        CPUs of each computer; 0 takes whole computers, which PBS cannot.
    partition, account, queue : str
        Where and for whom; empty means the batch system's default.
    options : tuple of str
        Further options, as they are written on the lines of a job script.
    drain_before_s : float
        Seconds before the end of a job at which its workers take nothing more.
    """

    nodes: int = 1
    time: str = ""
    gpus_per_node: int = 0
    cpus_per_node: int = 0
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
    ssh : tuple of str
        The command to use in place of ``ssh``; empty for that.
    factory_port : int
        Of factories that name none.
    hosts : tuple of Host
        For the ssh launcher.
    batch : Batch
        For the batch systems.
    sections : mapping of str to mapping of str to str
        As section, key and text: catalogue, limits and settings, which become the
        config.ini of the hosts, and which types are elastic.
    files : mapping of str to Path
        Files to copy: relative path on the host, and where it lies here.
    """

    path: Path
    name: str
    launcher: str = "local"
    directory: str = ""
    python: str = sys.executable
    ssh: tuple[str, ...] = ()
    factory_port: int = FACTORY_PORT
    hosts: tuple[Host, ...] = ()
    batch: Batch = Batch()
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the directory, which is named after the cluster."""
        if not self.directory:
            object.__setattr__(self, "directory", default_directory(self.name))

    @property
    def names(self) -> list[str]:
        """The catalogue's names."""
        return [s.partition(":")[2] for s in self.sections if is_catalogue_section(s)]

    def sections_for(self, counts: Mapping[str, int]) -> dict[str, dict[str, str]]:
        """Return the config.ini of a host that has counts of its own.

        What is elastic is no matter of the hosts.
        """
        sections = {
            name: dict(values)
            for name, values in self.sections.items()
            if not is_elastic(name)
        }
        for section, values in sections.items():
            name = section.partition(":")[2]
            if is_catalogue_section(section) and name in counts:
                values["count"] = str(counts[name])
        return sections

    def to_fields(self) -> dict[str, Any]:
        """Return it for `from_fields`, as plain data."""
        fields = asdict(self)
        files = {name: str(path) for name, path in self.files.items()}
        return fields | {"path": str(self.path), "files": files}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> ClusterFile:
        """Return what `to_fields` was made of."""
        hosts = [Host(**h | {"roles": tuple(h["roles"])}) for h in fields["hosts"]]
        batch = fields["batch"] | {"options": tuple(fields["batch"]["options"])}
        read = {
            "path": Path(fields["path"]),
            "ssh": tuple(fields["ssh"]),
            "hosts": tuple(hosts),
            "batch": Batch(**batch),
            "files": {name: Path(path) for name, path in fields["files"].items()},
        }
        return cls(**dict(fields) | read)


def is_elastic(section: str) -> bool:
    """Return whether a section says which types are elastic, or how."""
    return section == ELASTIC or is_elastic_section(section)


def default_directory(name: str) -> str:
    """Return where a cluster of a name keeps its files, on each host."""
    return f"~/.local/state/opencluster/{name}"
