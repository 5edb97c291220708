"""What a stream of bytes means: the protocol class that a server is given.

A `Framing` is one connection's. It is fed the bytes as they come, cut anywhere, and
says what they mean as a list of events; it is told what became of an item, and says
what is to be sent about it. It has no socket, file or clock, so that any cut of the
stream can be tested.

The events of an item are one `ItemBegun`, any number of `ItemData`, and one of
`ItemEnded` and `ItemGivenUp`; then comes the next item.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.IntEnum):
    """What became of an item; the numbers are those of the protocol."""

    ACCEPTED = 0
    """It is on disk, and will be processed."""
    KNOWN = 1
    """One of its name was accepted before."""
    REFUSED = 2
    """It must not be sent again: the reason would be the same."""
    LATER = 3
    """It was not kept, and should be sent again."""
    WAIT = 4
    """There is no room: nothing is read from here until there is some."""


@dataclass(frozen=True)
class ItemBegun:
    """An item begins.

    Attributes
    ----------
    id : str
        Its name: of two items with one name only the first is processed.
    size : int
        Its bytes, as far as they are known.
    """

    id: str
    size: int


@dataclass(frozen=True, eq=False)
class ItemData:
    """Bytes of the item, good until the next call of the framing."""

    data: memoryview | bytes


@dataclass(frozen=True)
class ItemEnded:
    """The item is whole.

    Attributes
    ----------
    about : mapping
        What else is to be known when it is processed, as msgpack can hold it.
    checksum : int or None
        CRC-32 that its bytes must have.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    checksum: int | None = None


@dataclass(frozen=True)
class ItemGivenUp:
    """The item is not to be kept.

    Attributes
    ----------
    reason : str
        What is wrong with it; it is counted by this text.
    detail : str
        More of it, for the sender.
    """

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Rejected:
    """Something is left out, though the stream goes on.

    Attributes
    ----------
    reason : str
        Why; it is counted by this text.
    count : int
        How many things.
    size : int
        How many bytes they had.
    """

    reason: str
    count: int = 1
    size: int = 0


@dataclass(frozen=True)
class Broken:
    """Nothing that follows can be understood: the connection ends.

    Attributes
    ----------
    reason, detail : str
        As of `ItemGivenUp`.
    id : str
        The item that it is about, if it is known.
    """

    reason: str
    detail: str = ""
    id: str = ""


Event = ItemBegun | ItemData | ItemEnded | ItemGivenUp | Rejected | Broken


class Framing(abc.ABC):
    """What the bytes of one connection mean.

    Attributes
    ----------
    can_repeat : bool
        Whether the sender is told what became of items, and sends again what was not
        kept. Where it cannot, the server does all to keep what it has begun.
    """

    can_repeat: bool = False

    @abc.abstractmethod
    def receive(self, data: memoryview, now: float) -> Sequence[Event]:
        """Take in bytes, and return what has happened.

        Parameters
        ----------
        data : memoryview
            What came, good for this call and its events only.
        now : float
            Seconds since 1970.
        """

    def quiet(self, now: float) -> Sequence[Event]:
        """Return what is to be made of it that nothing came for a second."""
        return ()

    def end(self, now: float) -> Sequence[Event]:
        """Return what has happened by the end of the stream.

        An item that has begun and not ended is given up by the server.
        """
        return ()

    def is_unfinished(self) -> bool:
        """Return whether the sender owes the rest of something.

        One that does, and is slow, is cut off.
        """
        return False

    def answer(self, id: str, verdict: Verdict, reason: str) -> bytes:
        """Return what the sender is to be told about an item, if anything."""
        return b""
