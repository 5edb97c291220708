"""One workshop for each directory and computer, and nothing left of the one before.

Owns the lock file. The lock ends with the process that has it, however that ends; the
file stays, and tells the next workshop whose files it may remove.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from pathlib import Path

from opencluster.errors import OpenClusterError
from opencluster.node.handover import OWNER_DIGITS
from opencluster.node.host import host_name

log = logging.getLogger(__name__)

LEFTOVERS = ("{}-*.board", "{}-*.entry", "w-{}-*.sock")
"""Files of a workshop's processes; the braces stand for the head of its identity."""


class Claim:
    """The right to run the workshop of a directory on this computer.

    Parameters
    ----------
    directory : Path
        The cluster's directory. Computers that share it have a workshop each.
    identity : str
        The workshop's identity.

    Raises
    ------
    OpenClusterError
        When another workshop runs here; with its process id.
    """

    def __init__(self, directory: Path, identity: str) -> None:
        path = directory / f"workshop-{host_name()}.lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._fd)
            self._before = self._content()
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()} {identity}\n".encode(), 0)
        except BlockingIOError:
            pid = (self._content() or ["unknown"])[0]
            os.close(self._fd)
            raise OpenClusterError(
                f"a workshop of {directory} runs already on this computer (pid {pid}): "
                "stop it, or choose another --dir"
            ) from None
        except BaseException:
            os.close(self._fd)
            raise

    def clear(self, sockets: Path) -> None:
        """Remove what the workshop before left, when its processes have ended."""
        for identity in self._before[1:]:
            for pattern in LEFTOVERS:
                for path in sockets.glob(pattern.format(identity[:OWNER_DIGITS])):
                    path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let another workshop run here."""
        os.close(self._fd)

    def _content(self) -> list[str]:
        return os.pread(self._fd, 4096, 0).decode(errors="replace").split()


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        # as on some parallel file systems; a workshop without a lock is of more use
        log.warning("two workshops here would not notice each other: %s", error)
