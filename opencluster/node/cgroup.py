"""Memory limits that hold: control groups of Linux, versions 1 and 2.

Owns the groups under ``opencluster-NAME`` in the group that this process runs in, and
touches no other. Where that group may not be changed (`Cgroups.detect` returns
``None``), limits fall back to RLIMIT_AS, the size of the address space; see
`opencluster.node.launch.Limits` for how that differs.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

log = logging.getLogger(__name__)

CPU_PERIOD_US = 100_000
"""Time over which the kernel accounts the CPU share of a group, in microseconds."""

_PREFIX = "opencluster-"
_LEAF = "opencluster.daemon"
_PROCS = "cgroup.procs"
_CONTROL = "cgroup.subtree_control"
_MEMORY_LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}
_MEMORY_PEAK = {1: "memory.max_usage_in_bytes", 2: "memory.peak"}
_MEMORY_EVENTS = {1: "memory.oom_control", 2: "memory.events"}


@dataclass(frozen=True)
class Group:
    """The control group of one process and what it forks."""

    path: Path
    version: int

    @property
    def procs_path(self) -> Path:
        """The file into which a process writes its pid to enter."""
        return self.path / _PROCS

    def oom_kills(self) -> int:
        """Return how many of its processes were killed for memory."""
        return _counter(self.path / _MEMORY_EVENTS[self.version], "oom_kill")

    def peak_bytes(self) -> int:
        """Return the most memory that it used, cached files included; 0 if unknown."""
        try:
            return int((self.path / _MEMORY_PEAK[self.version]).read_text())
        except (OSError, ValueError):
            return 0

    def remove(self) -> bool:
        """Kill what is left in it and remove it.

        Returns
        -------
        bool
            Whether it is gone. If not, killed processes are still ending: try again.
        """
        with contextlib.suppress(OSError):
            for pid in self.procs_path.read_text().split():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)
        return _rmdir(self.path)


@dataclass(frozen=True)
class Cgroups:
    """Where this workshop may make groups for its processes; make it with `detect`."""

    path: Path
    version: int
    _numbers: itertools.count[int] = field(default_factory=itertools.count, repr=False)

    @classmethod
    def detect(cls, name: str, proc: Path = Path("/proc/self")) -> Cgroups | None:
        """Return where groups can be made, or ``None`` when memory cannot be limited.

        A version 2 group can either hold processes or share out memory. If this
        process is alone in its group, as a service with ``Delegate=yes`` is, it moves
        itself one level down; with others there, the answer is ``None``.

        Parameters
        ----------
        name : str
            Tells workshops in one group apart.
        proc : Path
            Where the kernel describes this process.
        """
        try:
            found = _own_group(proc)
            if found is None:
                return None
            version, own = found
            groups = cls(own / f"{_PREFIX}{quote(name, safe='')}", version)
            groups._prepare()
        except OSError as error:
            log.debug("control groups cannot be used: %s", error)
            return None
        groups._remove_empty()
        return groups

    def create(
        self, child_name: str, memory_bytes: int, cpus: float | None = None
    ) -> Group | None:
        """Make a group, or return ``None`` after a warning when the kernel refuses.

        Parameters
        ----------
        child_name : str
            What it is for; groups of equal name are told apart.
        memory_bytes : int
            Memory, swap included, beyond which a process in it is killed; 0 for no
            limit.
        cpus : float, optional
            CPU seconds per second that it gets at most. Version 2 only, and only
            where the controller is there.
        """
        # Unique, so that no counter of an earlier process is taken for this one's.
        unique = f"{quote(child_name, safe='')}.{os.getpid()}.{next(self._numbers)}"
        group = Group(self.path / unique, self.version)
        try:
            self._prepare()
            group.path.mkdir()
            if memory_bytes:
                _limit_memory(group, memory_bytes)
            if cpus is not None and (group.path / "cpu.max").exists():
                quota_us = max(1000, round(cpus * CPU_PERIOD_US))
                _write(group.path / "cpu.max", f"{quota_us} {CPU_PERIOD_US}")
        except OSError as error:
            log.warning("no control group for %s: %s", child_name, error)
            _rmdir(group.path)
            return None
        return group

    def close(self) -> bool:
        """Remove what `detect` made; tell whether it is gone."""
        self._remove_empty()
        return _rmdir(self.path)

    def _prepare(self) -> None:
        own = self.path.parent
        if self.version == 2:
            _share_out(own)
        self.path.mkdir(exist_ok=True)
        if self.version == 2:
            _share_out(self.path)
        if not os.access(self.path / _PROCS, os.W_OK):
            raise PermissionError(f"{self.path} cannot be written")

    def _remove_empty(self) -> None:
        """Remove groups whose workshop ended before it could; busy ones stay."""
        with contextlib.suppress(OSError):
            for path in self.path.iterdir():
                if path.is_dir() and not _is_of_another(path):
                    _rmdir(path)


def oom_kills_of_machine() -> int:
    """Return how many processes the kernel killed for memory since it started.

    Control groups that met their limit are counted too. 0 where this is not known.
    """
    return _counter(Path("/proc/vmstat"), "oom_kill")


def _own_group(proc: Path) -> tuple[int, Path] | None:
    """Return version and directory of the group of memory that this process is in."""
    paths: dict[int, str] = {}
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            paths[1] = path
        elif not controllers:
            paths[2] = path
    # With both mounted, memory is a matter of version 1 if that knows it at all.
    version = min(paths, default=0)
    for line in (proc / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        is_v1 = kind == "cgroup" and "memory" in options.split(",")
        if (version == 1 and is_v1) or (version == 2 and kind == "cgroup2"):
            root, mountpoint = before.split(" ")[3:5]
            return _below(version, Path(mountpoint), Path(paths[version]), Path(root))
    return None


def _below(
    version: int, mountpoint: Path, path: Path, root: Path
) -> tuple[int, Path] | None:
    """Return where a group is, given which part of the tree is mounted."""
    if ".." in path.parts or not path.is_relative_to(root):
        return None
    own = mountpoint / path.relative_to(root)
    return version, own.parent if own.name == _LEAF else own


def _share_out(path: Path) -> None:
    """Have a version 2 group give memory, and CPU where it can, to those below it."""
    if "memory" in (path / _CONTROL).read_text().split():
        return
    offered = (path / "cgroup.controllers").read_text().split()
    if "memory" not in offered:
        raise PermissionError(f"{path} may not limit memory")
    if (path / _PROCS).read_text().split() == [str(os.getpid())]:
        leaf = path / _LEAF
        leaf.mkdir(exist_ok=True)
        _write(leaf / _PROCS, str(os.getpid()))
    _write(path / _CONTROL, "+memory")
    if "cpu" in offered:
        with contextlib.suppress(OSError):
            _write(path / _CONTROL, "+cpu")


def _limit_memory(group: Group, memory_bytes: int) -> None:
    _write(group.path / _MEMORY_LIMIT[group.version], str(memory_bytes))
    # Else the limit is met by swapping, and the computer crawls.
    if group.version == 1:
        swap, limit = group.path / "memory.memsw.limit_in_bytes", memory_bytes
    else:
        swap, limit = group.path / "memory.swap.max", 0
    if swap.exists():
        _write(swap, str(limit))


def _counter(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        return 0
    return 0


def _write(path: Path, text: str) -> None:
    """Write a control file, which is never made by writing."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _is_of_another(path: Path) -> bool:
    """Tell whether a workshop that lives may be about to use the group."""
    pid = path.name.split(".")[-2:][0]
    return pid != str(os.getpid()) and Path("/proc", pid).exists()


def _rmdir(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()
