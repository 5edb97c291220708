"""A process's certificate and roll: who it is, and who others are.

Secrets stand in no message, no log, no error and no ``repr``. Must not decide who may
say what: that stands in `core.roles`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from opencluster.core.roles import FACTORY, Credential
from opencluster.core.roll import Roll
from opencluster.errors import SecurityError
from opencluster.net.keyfiles import (
    ROLL,
    SUFFIX,
    Certificate,
    certificates,
    check_closed,
    locked,
    read_roll,
    save_roll,
)

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 1.0
"""How often a change of the roll's file is looked for, when there is traffic."""


class Keyring:
    """What a process needs to prove who it is, and to know who others are.

    For use by one thread.

    Parameters
    ----------
    own : Certificate
        Who this process is.
    roll : Roll
        Who is admitted.
    directory : Path, optional
        Where the roll lies, and is kept.
    """

    def __init__(
        self, own: Certificate, roll: Roll, directory: Path | None = None
    ) -> None:
        self.own = own
        self.roll = roll
        self._directory = directory
        self._look_at = 0.0
        # none yet: the file may have been replaced since it was read
        self._seen: tuple[int, int, int] | None = None
        self._factory = Credential(FACTORY, FACTORY)

    @classmethod
    def load(cls, directory: Path | None, *roles: str) -> Keyring | None:
        """Return the keys of a directory, or ``None`` without one.

        Parameters
        ----------
        directory : Path or None
            Where the keys are.
        *roles : str
            The roles that will do for this process, the best one first.

        Raises
        ------
        SecurityError
            When there is no certificate of these roles, or it cannot be read or lies
            open to others.
        """
        if directory is None:
            return None
        check_closed(directory)
        roll = _roll_or_none(directory)
        usable = [
            certificate
            for certificate in certificates(directory)
            if not _is_revoked(roll, certificate)
        ]
        for role in roles:
            mine = [c for c in usable if c.role == role]
            if mine:
                # the one that is named after its role, else the first by name
                own = min(mine, key=lambda c: (c.name != role, c.name))
                return cls(own, roll, directory)
        raise SecurityError(
            f"no certificate for a {' or '.join(roles)} in {directory}, or it is "
            "revoked: make one with `opencluster keys add NAME --role "
            f"{roles[0]}` where factory{SUFFIX} lies, and copy NAME{SUFFIX} here"
        )

    @property
    def version(self) -> int:
        """Of the roll."""
        return self.roll.version

    @property
    def factory_key(self) -> str:
        """The public key of the cluster's factories."""
        return self.own.factory_key

    def check_roll(self) -> None:
        """Say so when it is not known who is admitted: for who cannot ask anyone."""
        if not self.version:
            log.warning(
                "there is no %s in %s, so only factories are admitted until one tells "
                "who else is: copy it from where the keys were made",
                ROLL,
                self._directory,
            )

    def credential(self, public_key: str) -> Credential | None:
        """Return whose key it is, or ``None`` when it is not admitted.

        The factories are known before any roll is: it comes from them.
        """
        who = self.roll.credential(public_key)
        if who is None and not self.roll.version and public_key == self.factory_key:
            return self._factory
        return who

    def refresh(self) -> None:
        """Read the roll again when its file was replaced; looks once a second."""
        now = time.monotonic()
        if self._directory is None or now < self._look_at:
            return
        self._look_at = now + LOOK_INTERVAL_S
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._take(read_roll(self._directory))
        except SecurityError as error:
            log.error(
                "%s; what it said before, version %d, still holds", error, self.version
            )

    def accept(self, fields: Any) -> bool:
        """Take in a roll that a factory sent, and keep it in its file.

        Returns
        -------
        bool
            Whether it is newer than the one that was here.

        Raises
        ------
        SecurityError
            When it is none.
        """
        roll = Roll.from_fields(fields)
        if not self._take(roll):
            return False
        if self._directory is not None:
            try:
                with locked(self._directory):
                    save_roll(self._directory, roll)
            except OSError as error:
                log.warning(
                    "cannot keep the roll in %s: %s; this process goes by it anyway",
                    self._directory,
                    error.strerror,
                )
        return True

    def _take(self, roll: Roll) -> bool:
        if roll.version <= self.version:
            return False
        self.roll = roll
        log.info("who is admitted has changed: roll version %d", roll.version)
        if roll.credential(self.own.public_key) is None:
            log.error(
                "certificate %r of this process is admitted no more", self.own.name
            )
        return True

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes whenever the roll's file is replaced."""
        if self._directory is None:
            return None
        try:
            found = (self._directory / ROLL).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def _roll_or_none(directory: Path) -> Roll:
    """Return the roll, or the empty one: it comes from a factory then."""
    path = directory / ROLL
    if not path.exists():
        return Roll()
    try:
        return read_roll(directory)
    except SecurityError as error:
        log.error("%s; only factories are admitted until one tells who else is", error)
        return Roll()


def _is_revoked(roll: Roll, certificate: Certificate) -> bool:
    key = certificate.public_key
    return any(h.public_key == key and h.is_revoked for h in roll.holders)
