"""What somebody may do: one of three roles, each with all that those before it may."""

from __future__ import annotations

from enum import IntEnum

from opencluster.errors import AccountError


class Role(IntEnum):
    """What somebody may do; each role may also what those before it may."""

    OBSERVER = 1
    OPERATOR = 2
    ADMINISTRATOR = 3

    @property
    def word(self) -> str:
        """The role as people write it."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """Return the role of a word.

        Raises
        ------
        AccountError
            When it is none.
        """
        try:
            return cls[word.upper()]
        except KeyError:
            names = ", ".join(role.word for role in cls)
            raise AccountError(f"{word!r} is no role; there are {names}") from None
