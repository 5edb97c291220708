"""The memory of this process's own arrays, which is dear when it is fresh.

The kernel clears each page that a process takes, which takes ten times as long as to
fill it again. So glibc keeps what was freed, but of large blocks no more than twice the
largest that was ever freed, up to a limit: a process that makes blocks of 5 MB, of
which some wait to be sent, gives memory back and takes it again all the time.
"""

from __future__ import annotations

import ctypes

LARGEST_BYTES = (32 << 20) - (64 << 10)
"""Largest block that glibc keeps when it is freed: just below a limit of its own."""


def keep_freed_memory() -> None:
    """Have memory kept that was freed, up to 64 MB, for what is allocated next.

    It is as if an array of `LARGEST_BYTES` had been made once and dropped; no page of
    it is ever used. Where somebody chose the limits of malloc, they stay as they are.
    """
    libc = ctypes.CDLL(None)
    allocate, free = libc.malloc, libc.free
    allocate.argtypes, allocate.restype = [ctypes.c_size_t], ctypes.c_void_p
    free.argtypes, free.restype = [ctypes.c_void_p], None
    free(allocate(LARGEST_BYTES))
