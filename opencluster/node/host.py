"""Which computer this is, as far as sharing memory and sockets goes.

Owns the two names of the computer. Tells nothing about its load or its devices.
"""

from __future__ import annotations

import socket
import zlib
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACES = Path("/proc/self/ns")
_SHARED_MEMORY = Path("/dev/shm")
_BOOT_DIGITS = 12


@cache
def host_id() -> str:
    """Return a short text that is equal for processes that can share everything.

    Two processes with the same id see the same files (``ipc://`` sockets), the same
    loopback and the same shared memory: they run on one boot of one kernel and in the
    same network, IPC and mount namespaces. Containers of one computer therefore
    differ, although some of them could share a part; they meet over TCP.
    """
    try:
        boot = _BOOT_ID.read_text().strip().replace("-", "")
        surroundings = _surroundings()
    except OSError:
        boot, surroundings = _hardware(), []
    # The host name tells virtual machines apart that were cloned while running, and
    # so share a boot id. No hashlib: it costs each idle worker 3.6 MB.
    rest = zlib.crc32("\n".join([*surroundings, host_name()]).encode())
    return f"{boot[:_BOOT_DIGITS]}-{rest:08x}"


@cache
def boot_id() -> str:
    """Return a text that is another one after the computer was started again."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def host_name() -> str:
    """Return the name of this computer, for people."""
    return socket.gethostname() or "localhost"


def _surroundings() -> list[str]:
    """Return what this process shares with some of the processes of this boot."""
    spaces = [str((_NAMESPACES / name).readlink()) for name in ("net", "ipc", "mnt")]
    memory = _SHARED_MEMORY.stat()
    return [*spaces, f"{memory.st_dev}:{memory.st_ino}"]


def _hardware() -> str:
    import uuid

    node = uuid.getnode()
    # The multicast bit marks a number made up for this process alone.
    return "unknown" if node >> 40 & 1 else f"{node:012x}"
