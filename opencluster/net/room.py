"""Memory for what others announce, taken as it comes and not as it is announced."""

from __future__ import annotations

import contextlib
import mmap

from opencluster.errors import RemoteProtocolError

LEFT_TO_MALLOC_BYTES = 1 << 20
"""Memory for larger parts comes from the kernel, which counts pages when data are in
them: what somebody only announces takes none."""
_MAP_NORESERVE = 0x4000
_HUGE_BYTES = 8 << 20
"""From this size on pages of 2 MB are asked for: they are had several times faster."""


def room(nbytes: int) -> memoryview:
    """Return memory to write to.

    Raises
    ------
    RemoteProtocolError
        When there is not so much.
    """
    if nbytes <= LEFT_TO_MALLOC_BYTES:
        return memoryview(bytearray(nbytes))
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    try:
        memory = mmap.mmap(-1, nbytes, flags=flags)
    except (OSError, OverflowError, ValueError) as error:
        raise RemoteProtocolError(f"no memory for {nbytes} bytes: {error}") from None
    if nbytes >= _HUGE_BYTES:
        # not every kernel has them
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
