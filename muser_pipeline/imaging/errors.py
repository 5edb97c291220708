"""What can go wrong with images."""

from __future__ import annotations


class ImagingError(Exception):
    """No image can be made of this, or none that means anything.

    Parameters
    ----------
    reason : str
        One word for programs, such as "flagged", "one-baseline", "zero",
        "not-finite", "polarization", "file", "grid" or "beam".
    message : str
        What was seen and what was expected, for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message
