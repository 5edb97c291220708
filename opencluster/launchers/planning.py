"""From a cluster file to the order of each host, with the keys that it needs.

Owns which secrets a host is given: those of the roles that it runs, and no others.
"""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from opencluster.core.roles import FACTORY, WORKER, WORKSHOP
from opencluster.errors import LaunchFailed
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.order import Order
from opencluster.net import keyfiles
from opencluster.place import Place

ANY_ADDRESS = "0.0.0.0"
"""Where daemons listen on hosts; what they announce is another matter."""
MAX_FILES_BYTES = 64 << 20
"""Most that is copied to a host: programs are small, and data has other ways."""
KEYS_OF_ROLES = {FACTORY: (FACTORY,), WORKSHOP: (WORKSHOP, WORKER)}
"""The certificates that a host of a role needs."""


def node_directory(file: ClusterFile, host: str) -> str:
    """Return where a host keeps what is its own; ``~`` is the home there."""
    return f"{file.directory.rstrip('/')}/nodes/{host}"


def cluster_keys(file: ClusterFile, place: Place) -> Path | None:
    """Return the keys of a cluster of several computers, made if there are none.

    Returns
    -------
    Path or None
        ``None`` when the cluster file says that it does without.

    Raises
    ------
    LaunchFailed
        When only some of them are there.
    SecurityError
        When they cannot be made, or are open to others.
    """
    directory = place.path / "keys"
    if (directory / f"{FACTORY}{keyfiles.SUFFIX}").exists():
        keyfiles.check_closed(directory)
        return directory
    if is_insecure(file):
        return None
    _make_keys(directory)
    return directory


def _make_keys(directory: Path) -> None:
    """Make all keys in one step: of half of them, nothing could be launched."""
    draft = directory.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    keyfiles.make_keys(draft)
    try:
        draft.rename(directory)
    except OSError as error:
        raise LaunchFailed(
            f"cannot make keys in {directory}: {error.strerror}; a cluster is launched "
            "from where the keys of all roles lie: copy the missing ones there, or "
            "move that folder away to have new ones made"
        ) from None


def is_insecure(file: ClusterFile) -> bool:
    """Return whether a cluster file asks for a cluster without keys."""
    text = file.sections.get("cluster", {}).get("insecure", "")
    return text.lower() in ("true", "yes", "on", "1")


def keys_of_roles(roles: Sequence[str], directory: Path | None) -> dict[str, str]:
    """Return the files of keys that a host of some roles needs, by name.

    Raises
    ------
    LaunchFailed
        When one is missing.
    """
    if directory is None:
        return {}
    names = [name for role in roles for name in KEYS_OF_ROLES[role]]
    files = [f"{name}{keyfiles.SUFFIX}" for name in names]
    if FACTORY in roles:
        files.append(keyfiles.ROLL)
    try:
        return {name: (directory / name).read_text() for name in files}
    except OSError as error:
        raise LaunchFailed(
            f"cannot read {error.filename}: {error.strerror}; the place from which a "
            "cluster is launched needs the keys of all roles, as `opencluster keys "
            "new` makes them"
        ) from None


def programs(file: ClusterFile) -> dict[str, str]:
    """Return the files that every host is given, by relative path and in base 64.

    Raises
    ------
    LaunchFailed
        When one cannot be read, or all are too large.
    """
    found: dict[str, str] = {}
    left = MAX_FILES_BYTES
    for name, path in file.files.items():
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LaunchFailed(f"cannot read {path}: {error.strerror}") from None
        left -= len(content)
        if left < 0:
            raise LaunchFailed(
                f"the files of {file.path} are larger than {MAX_FILES_BYTES} bytes: "
                "put data where the hosts reach it, and only programs into the list"
            )
        found[name] = base64.b64encode(content).decode()
    return found


def executables(file: ClusterFile) -> tuple[str, ...]:
    """Return which of these files may be run as commands."""
    return tuple(n for n, path in file.files.items() if os.access(path, os.X_OK))


def sections_of(
    file: ClusterFile, host: Host, factories: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Return the config.ini of a host.

    Parameters
    ----------
    file : ClusterFile
        What all hosts have in common.
    host : Host
        The host.
    factories : sequence of str
        The endpoints of all factories; none for a cluster of one computer.
    """
    sections = file.sections_for(host.counts)
    if factories:
        sections.setdefault("cluster", {})["factories"] = ", ".join(factories)
        sections.setdefault("network", {}).setdefault("bind", ANY_ADDRESS)
        sections.setdefault("workshop", {})["name"] = host.name
    return sections


def orders_of(
    file: ClusterFile,
    factories: Sequence[str],
    keys: Path | None,
    is_restart: bool = False,
) -> dict[str, Order]:
    """Return the order of each host of a cluster file, by the host's name.

    Parameters
    ----------
    file : ClusterFile
        The cluster file.
    factories : sequence of str
        The endpoints of the factories, in the order of their hosts.
    keys : Path, optional
        The directory of all keys.
    is_restart : bool
        End what runs with other orders.

    Raises
    ------
    LaunchFailed
        When files or keys cannot be read.
    """
    files = programs(file)
    orders: dict[str, Order] = {}
    number = 0
    for host in file.hosts:
        number += host.is_factory
        orders[host.name] = Order(
            host.name,
            node_directory(file, host.name),
            host.roles,
            number if host.is_factory and factories else 0,
            sections_of(file, host, factories),
            keys_of_roles(host.roles, keys),
            files,
            executables(file),
            is_restart,
        )
    return orders
