"""What is registered: an entry, a change of one, and how both travel.

Whatever comes in a message is read here, and nothing else is believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opencluster.core.bounds import UNBOUNDED, Bounds
from opencluster.errors import RegistryError

KINDS = ("workshop", "worker", "service", "failure")
"""What can be registered; a ``failure`` says that a type does not start somewhere."""
SCHEMES = ("tcp://", "ipc://", "unix://")
"""What an endpoint begins with."""
_TEXTS = (
    *("id", "kind", "type", "name", "host", "host_id", "workshop"),
    *("owner", "public_key"),
)
MAX_REVISION = 1 << 53
"""More changes than a cluster sees, and what a message carries in whatever language."""
_BOUNDS = Bounds()


@dataclass(frozen=True)
class Entry:
    """One registration.

    Attributes
    ----------
    id : str
        Unique for the life of a process; a restarted process has another.
    kind : str
        One of `KINDS`.
    type : str
        Worker type or service name; empty for a workshop.
    name : str
        For people: ``WordCount-3``.
    host, host_id : str
        The computer's name, and what tells whether two processes share it.
    pid : int
        Process on that computer.
    endpoints : tuple of str
        Where it listens, the preferred one first.
    workshop : str
        Identity of the workshop that started it, or empty.
    attributes : mapping
        What does not change while it lives.
    owner : str
        Name of the certificate that registered it; empty on a cluster without keys.
    public_key : str
        What must be known of the process to connect to it; empty without keys.
    """

    id: str
    kind: str
    type: str = ""
    name: str = ""
    host: str = ""
    host_id: str = ""
    pid: int = 0
    endpoints: tuple[str, ...] = ()
    workshop: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    public_key: str = ""

    def to_fields(self) -> dict[str, Any]:
        """Return the entry as plain types for a message."""
        return vars(self) | {
            "endpoints": list(self.endpoints),
            "attributes": dict(self.attributes),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], bounds: Bounds = _BOUNDS) -> Entry:
        """Build an entry from a message, refusing what is no entry.

        Raises
        ------
        RegistryError
            When a field is missing, of the wrong type, too long or no Unicode, an
            endpoint is none, or all of it is too large or nested too deep.
        """
        if not isinstance(fields, Mapping):
            raise RegistryError(f"an entry is a mapping, not {type(fields).__name__}")
        known = {k: v for k, v in fields.items() if k in cls.__dataclass_fields__}
        for name in _TEXTS:
            if not bounds.is_text(known.get(name, "")):
                raise RegistryError(
                    f"entry field {name!r} is no text of at most {bounds.max_text} "
                    "characters ([limits] max_text)"
                )
        if not known.get("id") or known.get("kind") not in KINDS:
            raise RegistryError(f"an entry needs an id and a kind out of {KINDS}")
        if not isinstance(known.get("pid", 0), int):
            raise RegistryError("entry field 'pid' is no number")
        endpoints = known.get("endpoints", ())
        if not isinstance(endpoints, (list, tuple)) or not all(
            bounds.is_text(e) and e.startswith(SCHEMES) for e in endpoints
        ):
            raise RegistryError(
                f"entry field 'endpoints' is no list of endpoints ({SCHEMES})"
            )
        if not isinstance(known.get("attributes", {}), Mapping):
            raise RegistryError("entry field 'attributes' is no mapping")
        bounds.check(f"the entry of {known['id']:.40}", known)
        return cls(**known | {"endpoints": tuple(endpoints)})


@dataclass(frozen=True)
class Delta:
    """One change of membership.

    Attributes
    ----------
    revision : int
        The revision that it makes.
    id : str
        Whose entry.
    entry : Entry or None
        The new entry, or ``None`` when it is gone.
    cause : mapping or None
        Why it is gone: ``{"reason": ...}`` plus the fields of a `DeathEvidence`.
    """

    revision: int
    id: str
    entry: Entry | None = None
    cause: Mapping[str, Any] | None = None

    def to_fields(self) -> dict[str, Any]:
        """Return the delta as plain types for a message."""
        return {
            "revision": self.revision,
            "id": self.id,
            "entry": self.entry.to_fields() if self.entry else None,
            "cause": dict(self.cause) if self.cause else None,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Delta:
        """Build a delta from a message, refusing what is no delta.

        Raises
        ------
        RegistryError
            When a field is missing or of the wrong type.
        """
        if not isinstance(fields, Mapping):
            raise RegistryError(f"a delta is a mapping, not {type(fields).__name__}")
        revision, identity = _revision_in(fields), fields.get("id")
        entry, cause = fields.get("entry"), fields.get("cause")
        if not isinstance(identity, str):
            raise RegistryError("a delta needs an id")
        if not isinstance(cause, Mapping | None):
            raise RegistryError("delta field 'cause' is no mapping")
        made = None if entry is None else Entry.from_fields(entry, UNBOUNDED)
        if made is not None and made.id != identity:
            raise RegistryError(f"a delta of {identity!r} has the entry of {made.id!r}")
        return cls(revision, identity, made, cause)


def with_attributes(entry: Entry, **attributes: Any) -> Entry:
    """Return a copy of an entry with some attributes changed."""
    return replace(entry, attributes=dict(entry.attributes) | attributes)


def read_snapshot(snapshot: Mapping[str, Any]) -> tuple[int, list[Entry]]:
    """Return the revision and the entries of a snapshot.

    Raises
    ------
    RegistryError
        When it is none.
    """
    rows, revision = snapshot.get("entries"), _revision_in(snapshot)
    if not isinstance(rows, list | tuple):
        raise RegistryError("a snapshot needs entries")
    return revision, [Entry.from_fields(row, UNBOUNDED) for row in rows]


def _revision_in(fields: Mapping[str, Any]) -> int:
    revision = fields.get("revision")
    if type(revision) is not int or not 0 <= revision < MAX_REVISION:
        raise RegistryError("a revision is a whole number")
    return revision
