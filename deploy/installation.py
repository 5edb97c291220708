"""What stands on a computer that has roles in a cluster.

`plan` says which files that are; nothing is touched before `Installation.write_files`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from opencluster.errors import ConfigError, SecurityError
from opencluster.net import keyfiles

USER = "opencluster"
CERTIFICATES = {
    "factory": "factory",
    "workshop": "workshop",
    "dispatcher": "manager",
    "ingest": "manager",
    "web": "observer",
}
"""Daemons that have a unit, in the order in which they are started, and the role of the
certificate that each holds."""
PROGRAM = "/usr/bin/opencluster"
"""What stands for the program in the units of this folder."""
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What the units see as empty, so that no program can lie there."""
CONFIG = "etc/opencluster/config.ini"
ENVIRONMENT = "etc/opencluster/environment"
SYSUSERS = "etc/sysusers.d/opencluster.conf"
KEYS = "etc/opencluster/keys"


@dataclass(frozen=True)
class File:
    """A file of an installation.

    Attributes
    ----------
    path : str
        Below the root of the installation.
    text : str
        What is in it.
    is_edited : bool
        People change it, so one that is there is left as it is.
    """

    path: str
    text: str
    is_edited: bool = False


@dataclass(frozen=True)
class Installation:
    """Files of one computer, and what is to be done besides.

    Attributes
    ----------
    root : Path
        ``/``, or where an image of a computer is made.
    roles : tuple of str
        What the computer does in the cluster.
    files : tuple of File
        What is written.
    keys_from : Path or None
        A folder with key files that are copied.
    makes_keys : bool
        The keys of the cluster are made here.
    """

    root: Path
    roles: tuple[str, ...]
    files: tuple[File, ...]
    keys_from: Path | None = None
    makes_keys: bool = False

    @property
    def units(self) -> list[str]:
        """Names of the units, in the order in which they are started."""
        return [f"opencluster-{role}.service" for role in self.roles]

    def steps(self) -> Iterator[str]:
        """Yield what would be done, in words."""
        for file in self.files:
            yield f"{self._verb(file)} {self.root / file.path}"
        keys = self.root / KEYS
        if self.makes_keys:
            yield f"make    {keys}, the keys of the cluster"
        for path in self._key_files():
            yield f"copy    {path} to {keys}"

    def missing_keys(self) -> list[str]:
        """Return roles of certificates that this computer has not, and will not get."""
        if self.makes_keys:
            return []
        found = {path.name for path in self._key_files()}
        with contextlib.suppress(OSError):
            found |= {path.name for path in (self.root / KEYS).iterdir()}
        wanted = {CERTIFICATES[role] for role in self.roles}
        if "workshop" in self.roles:
            wanted.add("worker")
        held = {name.removesuffix(keyfiles.SUFFIX) for name in found}
        return sorted(role for role in wanted if role not in held)

    def write_files(self) -> None:
        """Write configuration and units.

        Raises
        ------
        ConfigError
            When one cannot be written; what was written before stays.
        """
        with _told():
            for file in self.files:
                if self._verb(file) in ("write  ", "replace"):
                    _write(self.root / file.path, file.text)

    def _verb(self, file: File) -> str:
        path = self.root / file.path
        try:
            is_same = path.read_text() == file.text
        except OSError:
            return "write  "
        if is_same:
            return "keep   "
        return "leave  " if file.is_edited else "replace"

    def _key_files(self) -> list[Path]:
        if self.keys_from is None:
            return []
        return sorted(
            path
            for path in self.keys_from.iterdir()
            if path.suffix == keyfiles.SUFFIX or path.name == keyfiles.ROLL
        )

    def install_keys(self) -> None:
        """Make or copy keys, and give them to the user of the daemons if there is one.

        Raises
        ------
        ConfigError
            When they cannot be written.
        SecurityError
            When keys are to be made where there are some.
        """
        keys = self.root / KEYS
        with _told():
            if self.makes_keys:
                keyfiles.make_keys(keys)
            else:
                keys.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._key_files():
                target = keys / path.name
                target.touch(mode=0o600)
                shutil.copyfile(path, target)
            if os.getuid() == 0 and self.root == Path("/"):
                with contextlib.suppress(KeyError):
                    owner = pwd.getpwnam(USER)
                    for path in (keys, *keys.iterdir()):
                        os.chown(path, owner.pw_uid, owner.pw_gid)


def plan(
    roles: Sequence[str],
    factories: Sequence[str],
    *,
    root: Path = Path("/"),
    program: str = "",
    keys: str = "",
) -> Installation:
    """Return what an installation would write.

    Parameters
    ----------
    roles : sequence of str
        Of `CERTIFICATES`.
    factories : sequence of str
        ``HOST:PORT`` of all factories of the cluster, the same on each computer.
    root : Path
        Where the root of the computer's file system is.
    program : str
        How ``opencluster`` is started; by default with this interpreter.
    keys : str
        ``new`` to make the keys of the cluster, or a folder with those to copy.

    Raises
    ------
    ConfigError
        When the program lies where the daemons would not see it.
    SecurityError
        When the folder of keys is not there.
    """
    ordered = tuple(role for role in CERTIFICATES if role in roles)
    command = program or f"{sys.executable} -m opencluster"
    if command.startswith(tuple(f"{path}/" for path in HIDDEN)):
        raise ConfigError(
            f"{command.split()[0]} lies where daemons cannot see it: the units hide "
            f"{', '.join(HIDDEN)}. Make a virtual environment in /opt/opencluster, "
            "install OpenCluster there, and run its `opencluster deploy install`"
        )
    source = None if keys in ("", "new") else Path(keys)
    if source is not None and not source.is_dir():
        raise SecurityError(
            f"no folder of keys at {source}: copy it from the computer that made them"
        )
    files = [
        File(CONFIG, _config(factories), is_edited=True),
        File(ENVIRONMENT, _text("environment"), is_edited=True),
        File(SYSUSERS, _text("systemd/sysusers.conf")),
        File("etc/tmpfiles.d/opencluster.conf", _text("systemd/tmpfiles.conf")),
    ]
    for role in ordered:
        name = f"opencluster-{role}.service"
        unit = _text(f"systemd/{name}").replace(PROGRAM, command)
        files.append(File(f"etc/systemd/system/{name}", unit))
    return Installation(root, ordered, tuple(files), source, keys == "new")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Say what to do when something cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write {error.filename}: {error.strerror}; run this as root, or "
            "make an image with --root"
        ) from None


def _config(factories: Sequence[str]) -> str:
    return (
        "# Written by `opencluster deploy install`, and yours from then on.\n"
        "# All settings: docs/configuration.md, `opencluster config show`.\n\n"
        "[cluster]\n"
        f"factories = {', '.join(factories)}\n"
        f"keys = /{KEYS}\n\n"
        "[network]\n"
        "# the address of this computer at which the others reach it\n"
        f"bind = {_own_address(factories)}\n\n"
        "[metrics]\n"
        "# needs pip install 'opencluster[metrics]'; 0 shows none\n"
        "factory_port = 0\n"
        "workshop_port = 0\n"
        "dispatcher_port = 0\n"
        "ingest_port = 0\n"
    )


def _own_address(factories: Sequence[str]) -> str:
    """Return the address from which this computer would talk to the factories."""
    for factory in factories:
        host, _, port = factory.rpartition(":")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                # no packet is sent: the kernel chooses the way, and so the address
                probe.connect((host, int(port)))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"


def _text(name: str) -> str:
    return resources.files("opencluster_deploy").joinpath(name).read_text()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(text)
    draft.chmod(0o644)
    draft.replace(path)
