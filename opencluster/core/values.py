"""What a manager knows of a value that workers hold, and what is to be done about it.

These are the values that pass between `core.whereabouts` and its shell. Nothing is
decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Is(Enum):
    """How it stands with a value."""

    HERE = "here"
    LOST = "lost"
    BEING_MADE = "being made again"


@dataclass(slots=True)
class Value:
    """A value that workers hold, or held.

    Attributes
    ----------
    id : bytes
        Its identity.
    nbytes : int
        Its size.
    holders : dict of str to None
        The workers that hold it for this manager, in the order of their coming.
    copies : set of str
        Workers that may have a copy, as they were sent pieces with it.
    absent : set of str
        Workers that held it when contact with them was lost.
    stands : Is
        How it stands.
    why : str
        Why it is lost.
    is_referred : bool
        A reference to it lives in this process.
    users : int
        Values that contain it, or that only it could be made again from.
    dependents : int
        Values that could be made again from it, once it is made again itself.
    inputs : tuple of bytes or None
        What it was made from; ``None`` if it cannot be made again.
    contents : tuple of bytes
        The values to which it contains references.
    remakes : int
        How often it was made again in a row.
    depth : int
        How many values that need it are to be made again after it.
    moves_to : str
        The worker that is fetching it from one that leaves.
    refused : set of str
        Workers that were to fetch it from one that leaves, and did not.
    """

    id: bytes
    nbytes: int
    holders: dict[str, None] = field(default_factory=dict)
    copies: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    stands: Is = Is.LOST
    why: str = ""
    is_referred: bool = True
    users: int = 0
    dependents: int = 0
    inputs: tuple[bytes, ...] | None = None
    contents: tuple[bytes, ...] = ()
    remakes: int = 0
    depth: int = 0
    moves_to: str = ""
    refused: set[str] = field(default_factory=set)

    @property
    def is_needed(self) -> bool:
        """Whether its data are."""
        return self.is_referred or self.users > 0


@dataclass(frozen=True, slots=True)
class Unsaved:
    """What a leaving worker holds that nobody has who stays.

    Attributes
    ----------
    values : int
        How many values.
    nbytes : int
        Their size.
    moving : int
        How many of them somebody is fetching.
    """

    values: int
    nbytes: int
    moving: int


# --- effects ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Release:
    """Tell a worker that a value is not referred to any more."""

    worker: str
    id: bytes


@dataclass(frozen=True, slots=True)
class Refer:
    """Tell a worker that a value is referred to from here too."""

    worker: str
    id: bytes


@dataclass(frozen=True, slots=True)
class ReferToThese:
    """Tell a worker all that is referred to there from here."""

    worker: str
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Have a worker fetch a value from those who hold it, and keep it."""

    id: bytes
    nbytes: int
    holders: tuple[str, ...]
    to: str


@dataclass(frozen=True, slots=True)
class Remake:
    """Run the piece again that makes a value."""

    id: bytes


@dataclass(frozen=True, slots=True)
class ForgetPiece:
    """Forget the piece that makes a value: it will not be made again."""

    id: bytes


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a piece go on: its values are here."""

    piece: int


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Ask again, after a while, whether the values of a piece are here."""

    piece: int
    after_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End a piece: values of it cannot be had; with why, for each."""

    piece: int
    reasons: tuple[tuple[bytes, str], ...]


Effect = (
    Release
    | Refer
    | ReferToThese
    | Copy
    | Remake
    | ForgetPiece
    | Resume
    | TryAgain
    | GiveUp
)
