"""What can go wrong when an image is made."""

from __future__ import annotations


class ImagingError(Exception):
    """No image can be made of what there is.

    Parameters
    ----------
    reason : str
        One word for programs, such as ``"flagged"`` or ``"not-finite"``.
    message : str
        What was seen and what was expected, for people.

    Attributes
    ----------
    reason : str
        As given.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
