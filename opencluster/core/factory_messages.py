"""What factories say to each other: about who leads, and to copy the registry.

Values only; what they mean is decided by `core.election` and `core.replication`. Every
message of an election carries the highest number that its sender has seen and the
newest epoch that it knows to have led, so that both spread with whatever is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from opencluster.core.entries import Delta
from opencluster.core.epochs import MAX_NUMBER, Epoch
from opencluster.errors import RegistryError


@dataclass(frozen=True, slots=True)
class _Common:
    seen: int
    led: Epoch


@dataclass(frozen=True, slots=True)
class Ask(_Common):
    """Asks whether the other one leads, or hears a leader."""

    round: int


@dataclass(frozen=True, slots=True)
class Tell(_Common):
    """The answer to `Ask`, or a correction of who believes in an older epoch.

    Attributes
    ----------
    round : int
        That of the question; 0 for a correction.
    role : str
        The value of a `core.election.Role`.
    is_able : bool
        Whether the sender could lead.
    leader : str
        The leader that the sender hears, or itself; empty when there is none.
    copy : Epoch
        Of the leader whose registry the sender has.
    """

    round: int
    role: str
    is_able: bool
    leader: str
    copy: Epoch


@dataclass(frozen=True, slots=True)
class Beat(_Common):
    """Says that the sender leads, with the epoch that is ``led``.

    Attributes
    ----------
    sequence : int
        Counts the beats of an epoch.
    revision : int
        Of the leader's registry.
    """

    sequence: int
    revision: int


@dataclass(frozen=True, slots=True)
class Heard(_Common):
    """Says that a beat was heard.

    Attributes
    ----------
    sequence : int
        That of the beat.
    revision : int
        Of the follower's registry.
    is_promise : bool
        The follower promises to hear nobody else for the time-out.
    """

    sequence: int
    revision: int
    is_promise: bool


@dataclass(frozen=True, slots=True)
class Stand(_Common):
    """Asks for the promise to hear nobody else, if the sender leads with this epoch."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Grant(_Common):
    """Gives the promise that was asked for."""

    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Resign(_Common):
    """Says that the sender, who led with the epoch that is ``led``, leaves."""


# --- the registry -----------------------------------------------------------

MAX_ABOUT = 16
MAX_KEY = 64
"""How many numbers a factory says about itself, and the characters of their names."""
MAX_TEXT = 512
"""Characters of any other text, such as the name of a factory."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Asks a leader for its registry, then for every change of it in this epoch.

    Attributes
    ----------
    led : Epoch
        The leader's.
    about : mapping
        What the follower says about itself, for people: a few numbers.
    """

    led: Epoch
    about: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The registry of the leader with this epoch, as plain types."""

    led: Epoch
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the registry of the leader with this epoch."""

    led: Epoch
    delta: Delta


@dataclass(frozen=True, slots=True)
class JobNote:
    """The statistics of a job, as plain types; no change of the membership."""

    led: Epoch
    job: Mapping[str, Any]


Ballot = Ask | Tell | Beat | Heard | Stand | Grant | Resign
Copy = Subscribe | Snapshot | Change | JobNote
Message = Ballot | Copy

_KINDS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Ask, Tell, Beat, Heard, Stand, Grant, Resign),
        *(Subscribe, Snapshot, Change, JobNote),
    )
}


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_NUMBER:
        raise RegistryError("a message between factories holds no such number")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise RegistryError("a message between factories lacks a text")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise RegistryError("a message between factories lacks a flag")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RegistryError("a message between factories lacks a mapping")
    return value


def _few_numbers(value: Any) -> Mapping[str, float]:
    about = _mapping(value)
    is_few = len(about) <= MAX_ABOUT
    if not is_few or not all(type(k) is str and len(k) <= MAX_KEY for k in about):
        raise RegistryError("a factory says too much about itself")
    if not all(type(v) in (int, float) for v in about.values()):
        raise RegistryError("a factory says about itself what is no number")
    return about


_READERS: dict[str, Callable[[Any], Any]] = {
    "Epoch": Epoch.from_fields,
    "int": _number,
    "str": _text,
    "bool": _flag,
    "Mapping[str, Any]": _mapping,
    "Mapping[str, float]": _few_numbers,
    "Delta": Delta.from_fields,
}
_LAYOUTS = {
    kind: {item.name: _READERS[str(item.type)] for item in fields(kind)}
    for kind in _KINDS.values()
}
"""How each field of a kind is read, in order."""


def highest_number(message: Message) -> int:
    """Return the highest number of an epoch of which a message speaks."""
    numbers = [message.led.number]
    if isinstance(message, Ballot):
        numbers.append(message.seen)
    if isinstance(message, Stand | Grant):
        numbers.append(message.epoch.number)
    if isinstance(message, Tell):
        numbers.append(message.copy.number)
    return max(numbers)


def to_fields(message: Message) -> list[Any]:
    """Return a message as plain types: its kind, then its fields in order."""
    values = [getattr(message, name) for name in _LAYOUTS[type(message)]]
    plain = [v.to_fields() if isinstance(v, Delta) else v for v in values]
    return [type(message).__name__.lower(), *plain]


def from_fields(row: Any) -> Message:
    """Build a message, refusing what is none.

    Raises
    ------
    RegistryError
        When its kind is unknown, or a field is missing or of the wrong type.
    """
    if not isinstance(row, list | tuple) or not row or not isinstance(row[0], str):
        raise RegistryError("a message between factories is a list with a kind")
    kind = _KINDS.get(row[0])
    if kind is None:
        raise RegistryError(f"factories say no {row[0]!r}")
    readers = _LAYOUTS[kind].values()
    if len(row) != len(readers) + 1:
        raise RegistryError(f"{row[0]!r} has {len(readers)} fields, not {len(row) - 1}")
    message: Message = kind(*(r(v) for r, v in zip(readers, row[1:], strict=True)))
    return message
