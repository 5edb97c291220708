"""The roll: the certificates that a cluster admits, and those that it does no more.

Rules that this module keeps:

1. A roll is never changed: a change makes another of the next version. Of two rolls
   that of the higher version holds, whoever brings it.
2. Names and public keys are unique. A revoked certificate stays on the roll, so that
   its name is never given to another key.
3. Of rolls that were changed apart from each other, nothing is lost when they are
   joined: what one of them revokes stays revoked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opencluster.core.roles import ROLES, Credential
from opencluster.errors import SecurityError

MAX_HOLDERS = 10_000
"""Certificates on a roll, revoked ones included: one for each process of a large
cluster, in a message of 2 MB."""
MAX_VERSION = 2**53
"""Above what a person changes in a lifetime, and exact in every language."""
MAX_NAME = 64
"""Longest name, in characters: a host name, with room for what runs there."""
KEY_CHARACTERS = 40
"""Length of a public key, 32 bytes, in Z85."""

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_Z85 = frozenset(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)


@dataclass(frozen=True, slots=True)
class Holder:
    """The public part of a certificate.

    Attributes
    ----------
    name : str
        The certificate's name.
    role : str
        What it is for.
    public_key : str
        In Z85, 40 characters.
    is_revoked : bool
        It is admitted no more.
    """

    name: str
    role: str
    public_key: str
    is_revoked: bool = False

    @property
    def credential(self) -> Credential:
        """Who holds it."""
        return Credential(self.name, self.role)

    def to_fields(self) -> dict[str, Any]:
        """Return it as plain types."""
        return {
            "name": self.name,
            "role": self.role,
            "public": self.public_key,
            "revoked": self.is_revoked,
        }

    @classmethod
    def from_fields(cls, fields: Any) -> Holder:
        """Build it from plain types.

        Raises
        ------
        SecurityError
            When they are no public part of a certificate.
        """
        if not isinstance(fields, Mapping):
            raise SecurityError("a certificate on the roll is no mapping")
        name, role, public_key, is_revoked = (
            fields.get(key) for key in ("name", "role", "public", "revoked")
        )
        check_name(name)
        if role not in ROLES:
            raise SecurityError(f"certificate {name!r} has no role out of {ROLES}")
        if not is_key(public_key):
            raise SecurityError(f"certificate {name!r} has no public key")
        if type(is_revoked) is not bool:
            raise SecurityError(f"certificate {name!r} lacks whether it is revoked")
        return cls(str(name), str(role), str(public_key), is_revoked)


@dataclass(frozen=True)
class Roll:
    """Who is admitted.

    Attributes
    ----------
    version : int
        Grows with every change; 0 is the empty roll of one that knows none yet.
    holders : tuple of Holder
        In the order in which they were added.
    """

    version: int = 0
    holders: tuple[Holder, ...] = ()
    _admitted: Mapping[str, Credential] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the index of those that are admitted."""
        admitted = {
            h.public_key: h.credential for h in self.holders if not h.is_revoked
        }
        object.__setattr__(self, "_admitted", admitted)

    def credential(self, public_key: str) -> Credential | None:
        """Return whose key it is, or ``None`` when it is not admitted."""
        return self._admitted.get(public_key)

    def holder(self, name: str) -> Holder | None:
        """Return the certificate of a name, or ``None``."""
        return next((h for h in self.holders if h.name == name), None)

    def key_of(self, who: Credential) -> str:
        """Return somebody's public key, or an empty text for who is not on the roll."""
        holder = self.holder(who.name)
        return holder.public_key if holder is not None else ""

    def with_holder(self, holder: Holder) -> Roll:
        """Return the roll with one more certificate.

        Raises
        ------
        SecurityError
            When its name or its key is taken, or the roll is full.
        """
        return Roll(self.version + 1, _checked([*self.holders, holder]))

    def without(self, name: str) -> Roll:
        """Return the roll with a certificate revoked.

        Raises
        ------
        SecurityError
            When there is none of that name.
        """
        holder = self.holder(name)
        if holder is None:
            known = ", ".join(h.name for h in self.holders) or "none"
            raise SecurityError(f"no certificate is named {name!r} (known: {known})")
        revoked = replace(holder, is_revoked=True)
        holders = tuple(revoked if h is holder else h for h in self.holders)
        return Roll(self.version + 1, holders)

    def joined(self, other: Roll) -> Roll:
        """Return a roll that says all that this and another one say.

        That is the newer one, unless the other has what it lacks; then it is one of a
        higher version. Of two keys of one name that of the newer roll counts.

        Raises
        ------
        SecurityError
            When it would be too long.
        """
        newer, older = (other, self) if other.version > self.version else (self, other)
        revoked = {h.public_key for h in older.holders if h.is_revoked}
        taken = {text for h in newer.holders for text in (h.name, h.public_key)}
        known = tuple(
            replace(h, is_revoked=h.is_revoked or h.public_key in revoked)
            for h in newer.holders
        )
        added = [h for h in older.holders if taken.isdisjoint((h.name, h.public_key))]
        holders = _checked([*known, *added])
        return newer if holders == newer.holders else Roll(newer.version + 1, holders)

    def to_fields(self) -> dict[str, Any]:
        """Return the roll as plain types, for a message or a file."""
        return {
            "version": self.version,
            "certificates": [holder.to_fields() for holder in self.holders],
        }

    @classmethod
    def from_fields(cls, fields: Any) -> Roll:
        """Build a roll from plain types.

        Raises
        ------
        SecurityError
            When they are no roll.
        """
        if not isinstance(fields, Mapping):
            raise SecurityError("a roll is a mapping")
        version, rows = fields.get("version"), fields.get("certificates")
        if type(version) is not int or not 0 <= version < MAX_VERSION:
            raise SecurityError("a roll has a version, a whole number from 0")
        if not isinstance(rows, list | tuple):
            raise SecurityError("a roll has a list of certificates")
        return cls(version, _checked(map(Holder.from_fields, rows[: MAX_HOLDERS + 1])))


def is_key(text: Any) -> bool:
    """Return whether something is a key in Z85."""
    return isinstance(text, str) and len(text) == KEY_CHARACTERS and set(text) <= _Z85


def check_name(name: Any) -> None:
    """Refuse what cannot be the name of a certificate, which also names its file.

    Raises
    ------
    SecurityError
        When it is none.
    """
    is_text = isinstance(name, str) and 0 < len(name) <= MAX_NAME
    if not is_text or name.startswith((".", "-")) or not set(name) <= _NAME:
        raise SecurityError(
            f"{name!r:.80} cannot name a certificate: use at most {MAX_NAME} letters, "
            "digits, dots, dashes and underscores, beginning with a letter or digit"
        )


def _checked(holders: Iterable[Holder]) -> tuple[Holder, ...]:
    """Return the certificates, if they can stand on one roll."""
    made = tuple(holders)
    if len(made) > MAX_HOLDERS:
        raise SecurityError(f"a roll holds at most {MAX_HOLDERS} certificates")
    names, keys = {h.name for h in made}, {h.public_key for h in made}
    if len(names) < len(made) or len(keys) < len(made):
        raise SecurityError(
            "two certificates have the same name or key; revoked ones count too, so "
            "that a name never means another key: choose another name"
        )
    return made
