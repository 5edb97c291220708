"""The files of keys: certificates with their secrets, and the roll beside them.

A directory of keys is its owner's alone. ``NAME.key`` holds one certificate with its
secret, and the factory's public key, so that this file alone lets a process of another
computer in; ``roll`` says who is admitted. Both are JSON. Secrets stand in no log, no
error and no ``repr``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from opencluster.core.roles import FACTORY, ROLES
from opencluster.core.roll import Holder, Roll, check_name, is_key
from opencluster.errors import SecurityError

log = logging.getLogger(__name__)

ROLL = "roll"
"""The file that says who is admitted."""
SUFFIX = ".key"
"""How the file of a certificate with its secret ends."""
MAX_FILE_BYTES = 8 << 20
"""Largest file that is read as a roll or certificate: above a full roll."""


@dataclass(frozen=True)
class Certificate:
    """A certificate with its secret.

    Attributes
    ----------
    name, role, public_key : str
        As on the roll.
    secret_key : str
        In Z85; shown to nobody.
    factory_key : str
        The public key of the cluster's factories.
    """

    name: str
    role: str
    public_key: str
    secret_key: str = field(repr=False)
    factory_key: str

    @property
    def holder(self) -> Holder:
        """Its public part."""
        return Holder(self.name, self.role, self.public_key)


def check_closed(path: Path) -> None:
    """Refuse a file or directory of secrets that is another's, or open to others.

    Raises
    ------
    SecurityError
        When it is, or is not there.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise SecurityError(
            f"no keys at {path}: {error.strerror}; make them with `opencluster keys "
            "new`, or copy them from the computer that has them"
        ) from None
    _check_closed(path, found)


def _check_closed(path: Path, found: os.stat_result) -> None:
    mode = found.st_mode & 0o777
    if found.st_uid != os.getuid():
        raise SecurityError(
            f"{path} belongs to another user, who could look at the secrets in it and "
            "change them: copy it, and use the copy"
        )
    if mode & 0o077:
        wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
        raise SecurityError(
            f"{path} is open to others (mode {mode:03o}), and holds secrets: "
            f"run `chmod {wanted} {path}`"
        )


def certificates(directory: Path) -> list[Certificate]:
    """Return the certificates of a directory, with their secrets, by name.

    Raises
    ------
    SecurityError
        When one is open to others, or makes no sense.
    """
    return [read_certificate(p) for p in sorted(directory.glob(f"*{SUFFIX}"))]


def read_certificate(path: Path) -> Certificate:
    """Return the certificate of a file, with its secret.

    Raises
    ------
    SecurityError
        When the file is open to others, or makes no sense.
    """
    fields = _read(path, is_secret=True)
    name, role = fields.get("name"), fields.get("role")
    keys = [fields.get(key) for key in ("public", "secret", "factory")]
    is_whole = role in ROLES and all(map(is_key, keys)) and path.stem == name
    if not is_whole:
        raise SecurityError(
            f"{path} holds no certificate named {path.stem!r}: it is torn, or was "
            "renamed; copy it again from the computer that has it"
        )
    check_name(name)
    public, secret, factory = map(str, keys)
    return Certificate(str(name), str(role), public, secret, factory)


def write_certificate(directory: Path, certificate: Certificate) -> Path:
    """Write a certificate with its secret into a new file, and return its path.

    Raises
    ------
    SecurityError
        When there is one of that name.
    """
    path = directory / f"{certificate.name}{SUFFIX}"
    fields = {
        "name": certificate.name,
        "role": certificate.role,
        "public": certificate.public_key,
        "secret": certificate.secret_key,
        "factory": certificate.factory_key,
    }
    try:
        _write(path, fields)
    except FileExistsError:
        raise SecurityError(f"{path} is there already; choose another name") from None
    return path


def read_roll(directory: Path) -> Roll:
    """Return the roll of a directory.

    Raises
    ------
    SecurityError
        When there is none, or it makes no sense.
    """
    path = directory / ROLL
    try:
        return Roll.from_fields(_read(path))
    except SecurityError as error:
        raise SecurityError(f"{path}: {error}") from None


def save_roll(directory: Path, roll: Roll) -> None:
    """Replace the roll of a directory in one step, unless that is newer.

    Only while `locked`, or a newer one that comes meanwhile would be lost.
    """
    try:
        if read_roll(directory).version >= roll.version:
            return
    except SecurityError:
        log.info("there is no roll in %s that can be read; writing one", directory)
    path = directory / ROLL
    draft = directory / f"{ROLL}.new"
    draft.unlink(missing_ok=True)
    _write(draft, roll.to_fields())
    draft.replace(path)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let one process at a time change a directory of keys."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock(fd)
        yield
    finally:
        os.close(fd)


def lock(fd: int) -> None:
    """Wait for the lock of a file, and take it; do without where there are none."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        # as on some parallel file systems, where waiting in vain is of no use
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        log.warning("two commands at a time would not notice each other: %s", error)


def make_certificate(name: str, role: str, factory_key: str = "") -> Certificate:
    """Return a new certificate; without `factory_key` it is the factories' own.

    Raises
    ------
    SecurityError
        When the name cannot be one.
    """
    check_name(name)
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return Certificate(name, role, public, secret, factory_key or public)


# --- making and revoking ----------------------------------------------------


def make_keys(directory: Path) -> Roll:
    """Make a directory with one certificate of each role, and return its roll.

    Raises
    ------
    SecurityError
        When there are keys already, or the directory cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SecurityError(f"cannot make {directory}: {error.strerror}") from None
    check_closed(directory)
    with locked(directory):
        if any(directory.glob(f"*{SUFFIX}")) or (directory / ROLL).exists():
            raise SecurityError(
                f"there are keys in {directory} already: add to them with `opencluster "
                "keys add NAME --role ROLE`, or choose another directory with --keys"
            )
        factory = make_certificate(FACTORY, FACTORY)
        roll = Roll()
        for role in ROLES:
            certificate = (
                factory
                if role == FACTORY
                else make_certificate(role, role, factory.public_key)
            )
            write_certificate(directory, certificate)
            roll = roll.with_holder(certificate.holder)
        save_roll(directory, roll)
    return roll


def add_certificate(directory: Path, name: str, role: str) -> tuple[Path, Roll]:
    """Make a further certificate, and return its file and the new roll.

    Raises
    ------
    SecurityError
        When it is for a factory, the name is taken, or this is not where the keys of
        the cluster are made.
    """
    if role == FACTORY:
        raise SecurityError(
            f"all factories of a cluster share one certificate: copy {FACTORY}{SUFFIX} "
            "to the computer of the other factory"
        )
    factory = factory_certificate(directory)
    with locked(directory):
        certificate = make_certificate(name, role, factory.public_key)
        roll = read_roll(directory).with_holder(certificate.holder)
        path = write_certificate(directory, certificate)
        save_roll(directory, roll)
    return path, roll


def revoke_certificate(directory: Path, name: str) -> Roll:
    """Admit a certificate no more, and return the new roll.

    Raises
    ------
    SecurityError
        When there is none of that name, it is the factories' own, or this is not where
        the keys of the cluster are made.
    """
    factory = factory_certificate(directory)
    if name == factory.name:
        raise SecurityError(
            "everyone knows the cluster by the factories' certificate, so it cannot be "
            "revoked: make new keys for all in another directory"
        )
    with locked(directory):
        roll = read_roll(directory).without(name)
        save_roll(directory, roll)
    return roll


def factory_certificate(directory: Path) -> Certificate:
    """Return the factories' certificate.

    Raises
    ------
    SecurityError
        When it is not here: without it nobody can change who is admitted.
    """
    path = directory / f"{FACTORY}{SUFFIX}"
    check_closed(directory)
    if not path.exists():
        raise SecurityError(
            f"there is no {path.name} in {directory}: who is admitted is changed on "
            "the computer where the keys were made"
        )
    return read_certificate(path)


def _read(path: Path, is_secret: bool = False) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            if is_secret:
                _check_closed(path, os.fstat(file.fileno()))
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SecurityError(f"cannot read {path}: {error.strerror}") from None
    try:
        fields = json.loads(content) if len(content) <= MAX_FILE_BYTES else None
    except (ValueError, RecursionError):
        # without the cause: it would quote what may be a secret
        fields = None
    if not isinstance(fields, Mapping):
        raise SecurityError(f"{path} is torn: it holds no JSON object")
    return fields


def _write(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a file that must not be there yet, and that no other user may read."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(fields, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(fd)
