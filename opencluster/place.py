"""Where a cluster keeps its files on this computer, and how its members find it.

A cluster's directory is chosen by ``--dir``, else by ``OPENCLUSTER_DIR``, else by the
XDG convention; it holds the cluster file (who the factories are), the logs, the state
of the factory, and the local sockets. All of it is for the owner's eyes only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencluster.errors import ConfigError, SecurityError

if TYPE_CHECKING:
    from opencluster.config import Config

DIRECTORY_VARIABLE = "OPENCLUSTER_DIR"
FACTORIES_VARIABLE = "OPENCLUSTER_CLUSTER_FACTORIES"
"""Names the factories of a cluster; empty means the one of the cluster directory."""
KEYS_VARIABLE = "OPENCLUSTER_CLUSTER_KEYS"
"""Names the directory of keys; empty means the one in the cluster directory, if any."""
MAX_SOCKET_DIRECTORY = 60
"""Longest path, in bytes, that leaves room for a socket's name in it."""

SOCKETS = ("factory*.sock", "shop-*.sock", "w-*.sock", "w-*.lane")
NOTES = ("*.board", "*.entry", "workshop.*")
"""What stands in a cluster's folder of sockets, and is of no use once it has ended."""


@dataclass(frozen=True)
class Place:
    """A cluster's directory.

    Attributes
    ----------
    path : Path
        The directory.
    """

    path: Path

    @classmethod
    def find(cls, directory: str | Path | None = None) -> Place:
        """Return the place named by an option, the environment or the convention.

        Raises
        ------
        ConfigError
            When none is named, and this user has no home.
        """
        named = directory or os.environ.get(DIRECTORY_VARIABLE)
        if named:
            return cls(Path(named).expanduser().absolute())
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        try:
            path = Path(state).expanduser().absolute()
        except RuntimeError:
            # as somebody in a container may be who has no name
            raise ConfigError(
                "this user has no home directory, in which a cluster would keep its "
                f"files: set HOME, or name a directory with --dir or "
                f"{DIRECTORY_VARIABLE}"
            ) from None
        return cls(path / "opencluster" / "default")

    @property
    def cluster_file(self) -> Path:
        """Who the daemons of the embedded cluster are."""
        return self.path / "cluster.json"

    @property
    def logs(self) -> Path:
        """Where log files go."""
        return self.path / "logs"

    @property
    def jobs(self) -> Path:
        """Where the records of jobs are that ran on this computer."""
        return self.path / "jobs"

    @property
    def letters(self) -> Path:
        """Where pieces are kept that ended all their workers."""
        return self.path / "dead-letters"

    @property
    def drained(self) -> Path:
        """A file that is there while the workshop of this computer starts nothing."""
        return self.path / "drained"

    def factory_state(self, number: int = 1) -> Path:
        """Return what the factory of a number, counted from 1, keeps between runs."""
        return self.path / ("factory" if number == 1 else f"factory-{number}")

    @property
    def sockets(self) -> Path:
        """Where local sockets and scoreboards lie.

        A socket's path is limited to about a hundred bytes, so a long directory gets
        a short stand-in, named after it, in the temporary directory, or in the
        system's when that one is long as well.
        """
        path = self.path / "run"
        if not _is_long(path):
            return path
        import tempfile  # here, as a process with a short path is ready sooner

        stand_in = f"opencluster-{os.getuid()}-{self.digest}"
        path = Path(tempfile.gettempdir()) / stand_in
        return Path("/tmp") / stand_in if _is_long(path) else path

    @property
    def digest(self) -> str:
        """A short name for the place, the same in every process."""
        # no cryptography: hashlib would cost each idle worker megabytes
        path = os.fsencode(self.path)
        return f"{zlib.crc32(path):08x}{zlib.adler32(path):08x}"

    def make(self) -> None:
        """Make the directories, closed to others.

        Raises
        ------
        ConfigError
            When they cannot be made, or belong to somebody else.
        SecurityError
            When they were there already, and others can look into them.
        """
        for directory in (self.path, self.logs, self.sockets):
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                found = directory.stat()
                if found.st_uid != os.getuid():
                    raise PermissionError(0, "it belongs to another user")
            except OSError as error:
                raise ConfigError(
                    f"cannot use the cluster directory {directory}: {error.strerror}; "
                    f"choose another with --dir or {DIRECTORY_VARIABLE}, or on hosts "
                    "with `directory:` in the cluster file"
                ) from None
            # a project's folder may be read by others, but what is in it not replaced
            forbidden = 0o022 if directory == self.path else 0o077
            if found.st_mode & forbidden:
                raise SecurityError(
                    f"{directory} is open to others (mode {found.st_mode & 0o777:03o}):"
                    f" run `chmod 700 {directory}`, or choose another with --dir or "
                    f"{DIRECTORY_VARIABLE}"
                )

    def read(self) -> dict[str, Any]:
        """Return the cluster file's content, empty when there is no cluster."""
        try:
            content = json.loads(self.cluster_file.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace the cluster file in one step."""
        replace_file(self.cluster_file, json.dumps(content, indent=2) + "\n")

    def forget(self) -> None:
        """Remove what only a running cluster needs; logs and state stay.

        The sockets of programs that still listen stay too: a worker that was started
        by hand outlives the cluster, and joins the next one.
        """
        self.cluster_file.unlink(missing_ok=True)
        is_in_use = any(map(_is_listening, self.sockets.glob("shop-*.sock")))
        for pattern in SOCKETS if is_in_use else SOCKETS + NOTES:
            for path in self.sockets.glob(pattern):
                if not _is_listening(path):
                    path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.sockets.rmdir()


def replace_file(path: Path, text: str) -> None:
    """Write a file of a place in one step, for its owner alone."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _is_listening(path: Path) -> bool:
    """Return whether somebody takes connections at a socket's path."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        # a socket of the express lane says that it is of another type
        return probe.connect_ex(os.fspath(path)) in (0, errno.EPROTOTYPE)


def factories(config: Config, place: Place) -> Sequence[Sequence[str]]:
    """Return, for each factory, the endpoints at which it may be reached."""
    if config.cluster.factories:
        return [[endpoint] for endpoint in config.cluster.factories]
    return [f.get("endpoints", []) for f in place.read().get("factories", [])]


def factory_names(config: Config, place: Place) -> list[str]:
    """Return what the factories call each other, in order."""
    return [endpoints[0] for endpoints in factories(config, place) if endpoints]


def own_name(names: Sequence[str], port: int = 0) -> str:
    """Return which of some factories would be the one of this computer.

    Parameters
    ----------
    names : sequence of str
        The endpoints of all factories.
    port : int
        At which it listens, 0 if that is not told.

    Raises
    ------
    ConfigError
        When none of them, or more than one, is at an address of this computer.
    """
    found = [name for name in names if _is_here(name, port)]
    if len(found) == 1:
        return found[0]
    what = "none" if not found else "more than one"
    at = f" and port {port}" if port else ""
    raise ConfigError(
        f"{what} of the factories {', '.join(names)} ([cluster] factories) has an "
        f"address of this computer{at}: correct the list, or say with --number which "
        "one this is"
    )


def _is_here(name: str, port: int) -> bool:
    host, _, named_port = name.removeprefix("tcp://").rpartition(":")
    if not name.startswith("tcp://") or (port and str(port) != named_port):
        return False
    try:
        address = socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0]
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def keys_directory(config: Config, place: Place) -> Path | None:
    """Return where the keys of this computer's processes lie; ``None`` for no keys.

    That is ``[cluster] keys``, else ``keys`` in the cluster's directory if there is
    such a folder.
    """
    if config.cluster.keys:
        return Path(config.cluster.keys).expanduser().absolute()
    inside = place.path / "keys"
    return inside if inside.exists() else None


def is_loopback(host: str) -> bool:
    """Return whether an address is one that only this computer can reach."""
    parts = host.split(".")
    is_numeric = len(parts) == 4 and all(part.isdecimal() for part in parts)
    return host in ("localhost", "[::1]") or (is_numeric and parts[0] == "127")


def listening_endpoint(
    config: Config, host: str, port: int, has_keys: bool = False
) -> str:
    """Return the TCP endpoint at which to listen, as a transport takes it.

    Parameters
    ----------
    config : Config
        The settings.
    host : str
        An address; ``*`` and an empty text mean the setting ``[network] bind``.
    port : int
        The port, 0 for a free one, of those that ``[network] ports`` allows.
    has_keys : bool
        Only who holds a key of the cluster is let in.

    Raises
    ------
    SecurityError
        When strangers could reach it, there are no keys, and ``[cluster] insecure`` is
        not set.
    """
    address = config.network.bind if host in ("", "*") else host
    ports = "-".join(map(str, config.network.ports or [0])) if port == 0 else port
    endpoint = f"tcp://{address}:{ports}"
    check_listening(config, endpoint, has_keys)
    return endpoint


def check_listening(config: Config, endpoint: str, has_keys: bool) -> None:
    """Refuse to listen where strangers could come in.

    Parameters
    ----------
    config : Config
        The settings.
    endpoint : str
        Where to listen: ``tcp://address:port`` or ``ipc://path``.
    has_keys : bool
        Only who holds a key of the cluster is let in.

    Raises
    ------
    SecurityError
        When strangers could reach it, there are no keys, and ``[cluster] insecure`` is
        not set.
    """
    if has_keys or config.cluster.insecure or _is_private(endpoint):
        return
    raise SecurityError(
        f"refusing to listen at {endpoint.removeprefix('tcp://')} without keys: "
        "everyone who reaches this address could run code here. Make keys with "
        "`opencluster keys new` and set [cluster] keys on each computer "
        "(docs/security.md), listen at 127.0.0.1, or write `insecure = true` in "
        "[cluster] if the network is closed to strangers"
    )


def _is_long(path: Path) -> bool:
    return len(os.fsencode(path)) > MAX_SOCKET_DIRECTORY


def _is_private(endpoint: str) -> bool:
    """Return whether only this computer, or its files' owner, reaches an endpoint."""
    if endpoint.startswith("tcp://"):
        return is_loopback(endpoint.removeprefix("tcp://").rpartition(":")[0])
    # libzmq's "@name" is no file, so no permissions keep anyone out
    return endpoint.startswith("ipc://") and not endpoint.startswith("ipc://@")
