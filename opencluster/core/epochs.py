"""What tells the rule of one leader from that of another.

Rules that this module keeps:

1. No two leaders ever share an epoch: the number is higher than any that its leader
   has seen, the place tells two leaders on the two sides of a cut apart, and the run
   tells apart what one factory was before and after it lost its disk.
2. Of two epochs one is newer: that of the higher number, on a tie that of the earlier
   place, then that of the greater run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from opencluster.errors import RegistryError

MAX_NUMBER = 1 << 53
"""Bound of each part: what a message can carry exactly, in whatever language."""
MAX_CLAIM = 1_000_000
"""By how much an epoch of which a client speaks may go beyond what was seen: no single
client shall use up the numbers. Clients believe no such epoch for good either."""
MAX_JUMP = 1 << 40
"""By how much an epoch of which another factory speaks may go beyond what was seen:
more than there ever are elections, and far from using up the numbers at once."""


class Epoch(NamedTuple):
    """The rule of one leader.

    Attributes
    ----------
    number : int
        Grows with each election.
    place : int
        The leader's place in its list of factories, from 0.
    run : int
        Drawn at random by each process.
    """

    number: int
    place: int = 0
    run: int = 0

    def is_newer_than(self, other: Epoch) -> bool:
        """Return whether this epoch goes before another one."""
        mine = (self.number, -self.place, self.run)
        return mine > (other.number, -other.place, other.run)

    def is_absurd_after(self, other: Epoch) -> bool:
        """Return whether this epoch goes farther beyond another than a client's may.

        Such a claim is ignored by a factory that knows the other one.
        """
        return self.number > other.number + MAX_CLAIM

    @classmethod
    def from_fields(cls, fields: Any) -> Epoch:
        """Build an epoch from a message, refusing what is none.

        Raises
        ------
        RegistryError
            When it is not three numbers in their range.
        """
        is_three = isinstance(fields, list | tuple) and len(fields) == 3
        if not is_three or not all(_is_number(part) for part in fields):
            raise RegistryError("an epoch is a list of three numbers")
        return cls(*fields)


NO_EPOCH = Epoch(0)
"""Before anyone has led."""


def newest(one: Epoch, other: Epoch) -> Epoch:
    """Return the newer of two epochs."""
    return one if one.is_newer_than(other) else other


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_NUMBER
