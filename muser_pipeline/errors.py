"""What can go wrong with data of MUSER, as exceptions and warnings."""

from __future__ import annotations

from opencluster.errors import OpenClusterError


class MuserError(OpenClusterError):
    """Base of everything that the pipeline raises by itself."""


class TableError(MuserError):
    """A table of the array lacks what was asked for, or cannot be read."""


class RawFormatError(MuserError):
    """A file holds no frame that can be read; the message says why."""


class WrongArrayError(RawFormatError):
    """A file is of the other array than the one that was asked for."""


class FrameValueError(MuserError, ValueError):
    """A value does not fit into a raw frame."""


class SkyError(MuserError):
    """The description of a sky to simulate is wrong."""


class RequestError(MuserError, ValueError):
    """A request for files is wrong; the message says what, and what it may be."""


class ImageIndexError(MuserError):
    """The index of images cannot be used; the message says why."""


class LayoutWarning(UserWarning):
    """The layout of a file was guessed from its date, not seen in its frames."""
