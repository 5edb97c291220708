"""The cluster file: which cluster runs where, and what can run in it.

Owns the meaning of ``cluster.yaml``. Starts nothing. Every mistake is named with its
file, line and key, all of them at once.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from opencluster.config.catalogue import KINDS, is_catalogue_section
from opencluster.config.elastic import PREFIX as ELASTIC_PREFIX
from opencluster.config.elastic import is_elastic_section
from opencluster.config.loading import problems_in, report
from opencluster.config.render import is_unquoted
from opencluster.config.settings import SECTIONS
from opencluster.config.sources import (
    Problem,
    RawSection,
    RawSections,
    RawValue,
    suggestion,
    written,
)
from opencluster.config.values import shown
from opencluster.core.roles import FACTORY, WORKSHOP
from opencluster.errors import ConfigError
from opencluster.launchers.batch.script import (
    problem_of_directory,
    problems_of,
    time_limit_s,
)
from opencluster.launchers.description import (
    BATCH_LAUNCHERS,
    DRAIN_BEFORE_S,
    ENOUGH_FACTORIES,
    FACTORY_PORT,
    Batch,
    ClusterFile,
    Host,
)
from opencluster.launchers.yaml_checks import Checker
from opencluster.launchers.yaml_lines import Item, parse_yaml, read_yaml

__all__ = ["Batch", "ClusterFile", "Host", "load_cluster_file", "read_cluster_file"]

LAUNCHERS = ("local", "ssh", *BATCH_LAUNCHERS)
HOST_ROLES = (FACTORY, WORKSHOP)
LIMITS = "limits"
"""What stands in place of a type where all elastic types are meant."""
MAX_FACTORIES = 9
MAX_NODES = 100_000
RESERVED_FILES = ("config.ini",)
"""What lies beside the files that are copied."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@%:-]{0,252}")
"""Never with a dash in front: ssh would take it for an option."""
_SET_BY_UP = {
    ("cluster", "factories"): "it follows from the hosts",
    ("cluster", "keys"): "`opencluster up` makes and sends the keys",
    ("factory", "host"): "write [network] bind",
    ("factory", "port"): "write factory_port, or port at a host",
    ("workshop", "name"): "each workshop is called as its host is here",
}
_KEYS = (
    *("name", "launcher", "directory", "python", "ssh", "factory_port", "hosts"),
    *("batch", "workers", "services", "files", "limits", "settings", "elastic"),
)
_HOST_KEYS = ("host", "roles", "address", "port", "python", "workers")
_SPECIAL_KEYS = ("env", "arg")


def load_cluster_file(path: Path) -> ClusterFile:
    """Read and check a cluster file.

    Raises
    ------
    ConfigError
        With every problem, each naming its file, line and key.
    """
    path = path.expanduser().absolute()
    return _checked(read_yaml(path), path)


def read_cluster_file(text: str, path: Path) -> ClusterFile:
    """Check the text of a cluster file that stands elsewhere, if anywhere.

    Parameters
    ----------
    text : str
        YAML.
    path : Path
        What it is called in messages; relative files count from its folder.

    Raises
    ------
    ConfigError
        With every problem, each naming its line and key.
    """
    return _checked(parse_yaml(text, str(path)), path)


def _checked(root: Item, path: Path) -> ClusterFile:
    reader = _Reader(path)
    file = reader.read(root)
    if reader.problems:
        in_order = sorted(reader.problems, key=lambda p: int(p.origin.split(":")[-1]))
        raise ConfigError(report(in_order, str(path)))
    return file


class _Reader(Checker):
    """One pass over a cluster file, which notes all problems."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._whereabouts: dict[tuple[str, str], str] = {}

    def read(self, root: Item) -> ClusterFile:
        top = self.mapping(root, "", _KEYS)
        name = self._name(top)
        launcher = self._launcher(top)
        python = self.text(top, "python") or sys.executable
        port = self.integer(top, "factory_port", "", FACTORY_PORT, 1, 65535)
        raw = self._sections(top)
        self._check_sections(raw)
        catalogue = [n.partition(":")[2] for n in raw if is_catalogue_section(n)]
        return ClusterFile(
            path=self.path,
            name=name,
            launcher=launcher,
            directory=self._directory(top, launcher),
            python=python,
            ssh=self.command(top, "ssh"),
            factory_port=port,
            hosts=self._hosts(top, launcher, python, port, catalogue),
            batch=self._batch(top, launcher),
            sections={
                section: {key: value.text for key, value in found.values.items()}
                for section, found in raw.items()
            },
            files=self._files(top, raw),
        )

    # --- the plain keys ------------------------------------------------------

    def _name(self, top: Mapping[str, Item]) -> str:
        name = self.text(top, "name")
        if not name:
            stem = re.sub(r"[^A-Za-z0-9._-]", "-", self.path.stem).lstrip("._-")[:64]
            # the directory of no name would be that of all clusters
            return stem or "cluster"
        if not _NAME.fullmatch(name):
            expected = "letters, digits, '.', '_' and '-', 64 at most"
            self.note(top["name"], "name", f"got {shown(name)}, expected {expected}")
        return name

    def _launcher(self, top: Mapping[str, Item]) -> str:
        launcher = self.text(top, "launcher") or "local"
        if launcher not in LAUNCHERS:
            message = f"got {shown(launcher)}{suggestion(launcher, LAUNCHERS)}"
            self.note(top["launcher"], "launcher", message)
        return launcher

    def _directory(self, top: Mapping[str, Item], launcher: str) -> str:
        directory = self.text(top, "directory")
        message = ""
        if directory and not directory.startswith(("/", "~/")):
            expected = "a path from / or ~/, the same on all hosts"
            message = f"got {shown(directory)}, expected {expected}"
        elif directory and launcher in BATCH_LAUNCHERS:
            # the home has yet to take the place of ~
            is_plain = not problem_of_directory(directory.removeprefix("~"))
            message = "" if is_plain else problem_of_directory(directory)
        if message:
            self.note(top["directory"], "directory", message)
        return directory

    # --- the hosts -----------------------------------------------------------

    def _hosts(
        self,
        top: Mapping[str, Item],
        launcher: str,
        python: str,
        port: int,
        catalogue: Sequence[str],
    ) -> tuple[Host, ...]:
        item = top.get("hosts", Item(1))
        if launcher != "ssh":
            if not item.is_empty:
                message = f"the launcher {launcher} takes no list of hosts, ssh does"
                self.note(item, "hosts", message)
            return ()
        if not item.items:
            self.note(item, "hosts", "expected a list of at least one host")
            return ()
        read = [
            self._host(each, f"hosts[{number}]", python, port, catalogue)
            for number, each in enumerate(item.items)
        ]
        hosts = self._with_roles(item, read)
        self._check_twins(item.items, hosts)
        return hosts

    def _host(
        self,
        item: Item,
        where: str,
        python: str,
        port: int,
        catalogue: Sequence[str],
    ) -> Host:
        """Return a host, without roles if it names none."""
        if item.entries is None and item.items is None:
            item = Item(item.line, entries={"host": item})
        found = self.mapping(item, where, _HOST_KEYS)
        name = self.text(found, "host", where)
        if not _HOST.fullmatch(name):
            seen = f"got {shown(name)}, " if name else ""
            message = f"{seen}expected the name of a host, as ssh takes it"
            self.note(found.get("host", item), f"{where}.host", message)
        address = self.text(found, "address", where)
        if address and not _HOST.fullmatch(address):
            message = f"got {shown(address)}, expected an address or a host's name"
            self.note(found["address"], f"{where}.address", message)
        return Host(
            name,
            self._roles(found, where),
            address,
            self.integer(found, "port", where, port, 1, 65535),
            self.text(found, "python", where) or python,
            self._counts(found, where, catalogue),
        )

    def _roles(self, found: Mapping[str, Item], where: str) -> tuple[str, ...]:
        roles = self.texts(found, "roles", where)
        for role in roles:
            if role not in HOST_ROLES:
                message = f"got {shown(role)}{suggestion(role, HOST_ROLES)}"
                self.note(found["roles"], f"{where}.roles", message)
        if "roles" in found and not roles:
            expected = f"expected a list of {' and '.join(HOST_ROLES)}"
            self.note(found["roles"], f"{where}.roles", expected)
        return tuple(role for role in HOST_ROLES if role in roles)

    def _counts(
        self, found: Mapping[str, Item], where: str, catalogue: Sequence[str]
    ) -> dict[str, int]:
        where = f"{where}.workers"
        counts = self.mapping(found.get("workers", Item(1)), where)
        for name, item in counts.items():
            if name not in catalogue:
                near = suggestion(name, catalogue) if catalogue else ""
                self.note(item, where, f"{name} is not in the catalogue{near}")
        return {n: self.integer(counts, n, where, 0, 0, 100_000) for n in counts}

    def _with_roles(self, item: Item, hosts: Sequence[Host]) -> tuple[Host, ...]:
        """Give roles to those hosts that name none."""
        silent = [host for host in hosts if not host.roles]
        chosen: list[Host] = []
        if not any(host.is_factory for host in hosts):
            number = ENOUGH_FACTORIES if len(silent) >= ENOUGH_FACTORIES else 1
            chosen = silent[:number]
            if not chosen:
                self.note(item, "hosts", "none of them is a factory: one must be")
        complete = tuple(
            host
            if host.roles
            else replace(host, roles=HOST_ROLES if host in chosen else (WORKSHOP,))
            for host in hosts
        )
        number = sum(host.is_factory for host in complete)
        if number > MAX_FACTORIES:
            message = f"{number} factories, expected at most {MAX_FACTORIES}"
            self.note(item, "hosts", message)
        return complete

    def _check_twins(self, items: Sequence[Item], hosts: Sequence[Host]) -> None:
        seen: dict[str, int] = {}
        for number, (item, host) in enumerate(zip(items, hosts, strict=True)):
            first = seen.setdefault(host.name, number)
            if first != number:
                message = f"{host.name} stands there before, as hosts[{first}]"
                self.note(item, f"hosts[{number}]", message)

    # --- batch systems -------------------------------------------------------

    def _batch(self, top: Mapping[str, Item], launcher: str) -> Batch:
        item = top.get("batch", Item(1))
        if launcher not in BATCH_LAUNCHERS:
            if not item.is_empty:
                message = f"the launcher {launcher} takes no batch, slurm and pbs do"
                self.note(item, "batch", message)
            return Batch()
        found = self.mapping(item, "batch", [*Batch.__dataclass_fields__])
        batch = Batch(
            nodes=self.integer(found, "nodes", "batch", 1, 1, MAX_NODES),
            time=self._time(found),
            gpus_per_node=self.integer(found, "gpus_per_node", "batch", 0, 0, 1000),
            cpus_per_node=self.integer(found, "cpus_per_node", "batch", 0, 0, 65536),
            partition=self.text(found, "partition", "batch"),
            account=self.text(found, "account", "batch"),
            queue=self.text(found, "queue", "batch"),
            options=tuple(self.texts(found, "options", "batch")),
            drain_before_s=self.number(
                found, "drain_before_s", "batch", DRAIN_BEFORE_S
            ),
        )
        for key, message in problems_of(launcher, batch):
            self.note(found.get(key, item), f"batch.{key}", message)
        return batch

    def _time(self, found: Mapping[str, Item]) -> str:
        """Return the time limit of a job, empty when it is none."""
        time = self.text(found, "time", "batch")
        try:
            time_limit_s(time or "0:00")
        except ConfigError as error:
            self.note(found["time"], "batch.time", str(error))
            return ""
        return time

    # --- what becomes config.ini ---------------------------------------------

    def _sections(self, top: Mapping[str, Item]) -> RawSections:
        raw: RawSections = {}
        for kind, key in zip(KINDS, ("workers", "services"), strict=True):
            entries = self.mapping(top.get(key, Item(1)), key)
            for name, item in entries.items():
                self._catalogue_entry(raw, kind, name, item, f"{key}.{name}")
        self._elastic(raw, self.mapping(top.get("elastic", Item(1)), "elastic"))
        limits = top.get("limits", Item(1))
        if not limits.is_empty:
            self._section(raw, "limits", limits, "limits")
        settings = self.mapping(top.get("settings", Item(1)), "settings")
        for section, item in settings.items():
            where = f"settings.{section}"
            if is_catalogue_section(section) or is_elastic_section(section):
                message = "write it under workers, services or elastic"
                self.note(item, where, message)
            elif section not in SECTIONS:
                message = f"there is no such section{suggestion(section, SECTIONS)}"
                self.note(item, where, message)
            else:
                self._section(raw, section, item, where)
        return raw

    def _elastic(self, raw: RawSections, found: Mapping[str, Item]) -> None:
        """Add the sections of elastic types, and of what holds for all of them."""
        types = [
            values.values["type"].text
            if "type" in values.values
            else name.partition(":")[2]
            for name, values in raw.items()
        ]
        for type, item in found.items():
            where = f"elastic.{type}"
            if type == LIMITS:
                self._section(raw, "elastic", item, where)
                continue
            if type not in types:
                near = suggestion(type, types) if types else ""
                self.note(item, where, f"it is not in the catalogue{near}")
            self._section(raw, f"{ELASTIC_PREFIX}{type}", item, where)

    def _catalogue_entry(
        self, raw: RawSections, kind: str, name: str, item: Item, where: str
    ) -> None:
        if item.entries is None and item.items is None and not item.is_empty:
            item = Item(item.line, entries={"target": item})
        section = f"{kind}:{name}"
        self._section(raw, section, item, where)
        for prefix in _SPECIAL_KEYS:
            special = (item.entries or {}).get(prefix)
            if special is None:
                continue
            found = self.mapping(special, f"{where}.{prefix}")
            for key, value in found.items():
                # an argument keeps its type, a variable is a text
                is_argument = prefix == "arg" and not (
                    isinstance(value.value, str) or value.is_empty
                )
                text = repr(value.plain()) if is_argument else value.text
                if prefix == "arg" and isinstance(value.value, str):
                    text = repr(value.value)
                self._set(raw, section, f"{prefix}.{key}", value, text, where)

    def _section(self, raw: RawSections, section: str, item: Item, where: str) -> None:
        found = self.mapping(item, where)
        raw.setdefault(section, RawSection(self.place(item)))
        self._whereabouts[section, ""] = where
        for key, value in found.items():
            if is_catalogue_section(section) and key in _SPECIAL_KEYS:
                continue
            if (section, key) in _SET_BY_UP:
                reason = _SET_BY_UP[section, key]
                self.note(value, f"{where}.{key}", f"it cannot be set here: {reason}")
                continue
            self._set(raw, section, key, value, self._joined(key, value, where), where)

    def _joined(self, key: str, item: Item, where: str) -> str:
        """Return the text of a setting; lists are one text in config.ini."""
        if item.entries is not None:
            self.note(item, f"{where}.{key}", "expected a value, not a mapping")
            return ""
        if item.items is None:
            text = item.text if item.value is not None else ""
            return self._rejoined(text) if key == "command" else text
        parts = [each.text for each in item.items]
        return shlex.join(parts) if key == "command" else ", ".join(parts)

    @staticmethod
    def _rejoined(command: str) -> str:
        """Return a command line without what would be a comment in config.ini."""
        try:
            return shlex.join(shlex.split(command))
        except ValueError:
            return command

    def _set(
        self,
        raw: RawSections,
        section: str,
        key: str,
        item: Item,
        text: str,
        where: str,
    ) -> None:
        self._whereabouts[section, key] = f"{where}.{key}"
        try:
            written(text, is_unquoted(section, key))
        except ValueError as error:
            self.note(item, f"{where}.{key}", str(error))
            return
        value = RawValue(text, self.place(item), self.path.parent)
        raw[section].values[key] = value

    def _check_sections(self, raw: RawSections) -> None:
        """Have all of it checked as the configuration of a host will be."""
        for problem in problems_in(raw):
            where = self._whereabouts.get((problem.section, problem.key))
            where = where or self._whereabouts.get((problem.section, ""), "")
            message = f"{where}: {problem.message}" if where else problem.message
            self.problems.append(Problem(problem.origin, message))

    # --- files ---------------------------------------------------------------

    def _files(self, top: Mapping[str, Item], raw: RawSections) -> dict[str, Path]:
        files: dict[str, Path] = {}
        item = top.get("files", Item(1))
        for number, text in enumerate(self.texts(top, "files")):
            each = item.items[number] if item.items else item
            self._file(files, text, each, f"files[{number}]")
        for section, found in raw.items():
            target = found.values.get("target")
            path, colon, _ = (target.text if target else "").rpartition(":")
            is_relative = path.endswith(".py") and not path.startswith(("/", "~"))
            if target and colon and is_relative and path not in files:
                line = int(target.origin.rpartition(":")[2])
                where = self._whereabouts[section, "target"]
                self._file(files, path, Item(line), where)
        return files

    def _file(self, files: dict[str, Path], text: str, item: Item, where: str) -> None:
        """Add a file, or all files of a folder."""
        pure = PurePosixPath(text)
        if pure.is_absolute() or ".." in pure.parts or str(pure) in RESERVED_FILES:
            expected = "a path inside the folder of the cluster file"
            if str(pure) in RESERVED_FILES:
                expected = f"another name than {pure}"
            self.note(item, where, f"got {shown(text)}, expected {expected}")
            return
        path = self.path.parent / pure
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            for each in inside:
                if "__pycache__" not in each.parts:
                    files[each.relative_to(self.path.parent).as_posix()] = each
        elif path.is_file():
            files[pure.as_posix()] = path
        else:
            self.note(item, where, f"there is no file {path}")
