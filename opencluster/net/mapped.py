"""Segments of another process, read in place.

Owns what came from the other side: handles and segments are checked here, and whoever
sends wrong ones harms only itself.
"""

from __future__ import annotations

import os

from opencluster.errors import RemoteProtocolError
from opencluster.net.segments import (
    GIVEN,
    IN_USE,
    MAX_SEGMENTS,
    RETURNED,
    STATE,
    Handle,
    Segment,
    open_segment,
)


class Mapping:
    """What a receiver sees of the arena at the other end of one connection."""

    def __init__(self) -> None:
        self._segments: dict[int, Segment] = {}

    def add(self, segment: int, fd: int) -> None:
        """Map a segment.

        Parameters
        ----------
        segment : int
            Its number in the handles that follow.
        fd : int
            Its descriptor, which is closed in any case.

        Raises
        ------
        RemoteProtocolError
            It is no segment, or too many are there.
        OSError
            It cannot be mapped here.
        """
        try:
            self._segments = {
                number: mapped
                for number, mapped in self._segments.items()
                if mapped.raw[STATE] != RETURNED
            }
            if segment in self._segments or len(self._segments) >= MAX_SEGMENTS:
                raise RemoteProtocolError(
                    f"segment {segment!r:.20} besides {len(self._segments)} others"
                )
            self._segments[segment] = open_segment(fd)
        finally:
            os.close(fd)

    def view(self, handle: Handle) -> memoryview:
        """Return what lies at a handle, for reading.

        The lease ends when nothing refers to the view any more: no slice of it, and
        no array over it or over a part of it. A child that is forked off meanwhile has
        no lease of its own.

        Raises
        ------
        RemoteProtocolError
            The handle is no place in a segment that was added.
        """
        segment, offset, nbytes, lease = handle
        if not type(segment) is type(offset) is type(nbytes) is type(lease) is int:
            raise RemoteProtocolError(f"{handle!r:.80} is no handle")
        mapped = self._segments.get(segment)
        if mapped is None:
            raise RemoteProtocolError(f"a handle of unknown segment {segment}")
        if not mapped.data_start <= offset <= mapped.size - nbytes or nbytes < 0:
            raise RemoteProtocolError(
                f"a handle of {nbytes} bytes at {offset} in a segment of {mapped.size}"
            )
        if not STATE < lease < mapped.data_start or mapped.raw[lease] != GIVEN:
            raise RemoteProtocolError(f"a handle of lease {lease}, which is not given")
        mapped.raw[lease] = IN_USE
        return mapped.view(offset, nbytes, lease).toreadonly()

    def close(self) -> None:
        """Forget the segments; the views that there are stay valid."""
        self._segments = {}
