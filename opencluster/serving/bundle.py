"""A bundle in a worker: short pieces that came as one, and are answered as one.

It is performed piece by piece. When it takes long, or something is to happen to one of
its pieces, what is done is answered, the piece that runs goes on alone, and the rest is
given back; whoever is free does it then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from opencluster.core.inbox import Waiting

ENOUGH_S = 0.005
"""How long the pieces of a bundle take together at most, but for the last."""
ENOUGH_BYTES = 1 << 20
"""Results of a bundle that are kept back at most, but for the last."""
ALONE_AFTER_S = 0.05
"""How long a piece of a bundle may keep the others from being done elsewhere."""


class Then(Enum):
    """What comes after a piece of a bundle."""

    NEXT = "the next piece"
    OVER = "nothing"
    ALONE = "its answer: it is a piece by itself by now"


@dataclass(slots=True, eq=False)
class Bundle:
    """A bundle that is performed.

    Attributes
    ----------
    waiting : Waiting
        The bundle as it came in.
    started_at : float
        When it was begun, in seconds.
    ended_at : float
        When the last of its pieces was over that are, in seconds.
    outcomes : list
        What came of its pieces so far: the encoded result, or the status, what is
        encoded, and how many buffers belong to it.
    buffers : list
        The buffers of all of these.
    is_cut : bool
        The piece that runs is alone now; the others are not to be performed here.
    """

    waiting: Waiting
    started_at: float
    ended_at: float = field(init=False)
    outcomes: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    is_cut: bool = False
    _nbytes: int = 0

    def __post_init__(self) -> None:
        """Begin with nothing that is over."""
        self.ended_at = self.started_at

    def add(
        self, status: str, payload: bytes, buffers: Sequence[Any], now: float
    ) -> bool:
        """Note what came of the next piece; ``True`` if that is enough to be sent."""
        nbytes = self._nbytes + len(payload)
        if status == "done" and not buffers:
            self.outcomes.append(payload)
        else:
            nbytes += sum(map(len, buffers))
            self.outcomes.append([status, payload, len(buffers)])
            self.buffers += buffers
        self._nbytes = nbytes
        self.ended_at = now
        return (
            len(self.outcomes) == self.waiting.members
            or now - self.started_at > ENOUGH_S
            or nbytes > ENOUGH_BYTES
        )
