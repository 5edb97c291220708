"""Classes of pieces: real-time ones go before batch ones, whoever sent these.

A class is known by its name. Within a class a piece has a number: the higher one goes
first.
"""

from __future__ import annotations

from typing import NamedTuple

REALTIME = "realtime"
BATCH = "batch"

Priority = int | str
"""A class by its name, or a number within a class."""


class Urgency(NamedTuple):
    """How urgent a piece is.

    Attributes
    ----------
    priority : int
        Higher goes first within its class.
    deadline_s : float or None
        How long a real-time piece may wait; ``None`` for a batch piece.
    """

    priority: int
    deadline_s: float | None


def urgency(
    priority: Priority | None,
    deadline_s: float | None,
    default: Priority = BATCH,
    default_deadline_s: float = 0.0,
) -> Urgency:
    """Return how urgent a piece is, by what its user says and does not say.

    Parameters
    ----------
    priority : str, int or None
        What is said: the class, or the number in the class that is the default.
    deadline_s : float or None
        How long it may wait; only a real-time piece has that.
    default : str or int
        The priority of pieces of which none is said.
    default_deadline_s : float
        How long real-time pieces may wait of which that is not said.

    Raises
    ------
    ValueError
        When there is no such class, or a batch piece is to have a deadline.
    """
    said = default if priority is None else priority
    for word in (said, default):
        if isinstance(word, str) and word not in (REALTIME, BATCH):
            raise ValueError(
                f"priority must be {REALTIME!r}, {BATCH!r}, or an integer that orders "
                f"the pieces of one class, not {word!r}"
            )
    if priority == BATCH and deadline_s is not None:
        raise ValueError(
            f"deadline_s is for pieces of priority {REALTIME!r}: batch pieces wait "
            "until there is time for them, and a run is limited with timeout_s"
        )
    number = 0 if isinstance(said, str) else said
    is_realtime = REALTIME in (said, default) and said != BATCH
    if deadline_s is None and is_realtime:
        deadline_s = default_deadline_s
    return Urgency(number, deadline_s)
