"""A receiver whose connection is over, and which may go on reading all the same.

It is a process that may run on, with arrays over what it was sent; and as long as its
end of the connection is open, it may find more there.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

from opencluster.net.onlooker import GONE, UNKNOWN, Onlooker


class Orphan:
    """What must be known of such a receiver to take its memory back.

    Parameters
    ----------
    pid : int
        Its process; 0 for one that cannot be seen from here, which counts as ended
        when it has left the connection.
    sock : socket, optional
        Our end of the connection, which may be closed afterwards. Without it, the
        receiver counts as having left.
    """

    def __init__(self, pid: int, sock: socket.socket | None) -> None:
        self._pid = pid
        self._onlooker = Onlooker(pid)
        self._link: socket.socket | None = None
        self._has_left = sock is None or _is_over(sock)
        if sock is not None and not self._has_left:
            with contextlib.suppress(OSError):
                self._link = sock.dup()
                # The other side is told of the end, as by closing, and closes its own.
                self._link.shutdown(socket.SHUT_WR)

    def has_left(self) -> bool:
        """Return whether it finds nothing more in the connection."""
        if self._link is not None and _is_over(self._link):
            self.close()
            self._has_left = True
        return self._has_left

    def has_ended(self) -> bool:
        """Return whether its process is gone."""
        if not self._pid:
            return self.has_left()
        state = self._onlooker.look()
        if state != UNKNOWN:
            return state == GONE
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is another user's
        return False

    def close(self) -> None:
        """Let go of the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def __del__(self) -> None:
        self.close()


def _is_over(sock: socket.socket) -> bool:
    """Return whether the other side has closed its end, or says nothing more."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
