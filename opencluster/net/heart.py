"""A sign of life that needs no turn of the Python interpreter.

A worker that no workshop vouches for has a heart: a socket whose messages libzmq
echoes in a thread of its own, outside Python. The factory sends it a pulse with every
beat, and the echo renews the worker's lease even while ``perform()`` holds the
interpreter for a minute.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import zmq

from opencluster.net.zmq_transport import CONNECT_TIMEOUT_MS

if TYPE_CHECKING:
    from opencluster.net.keys import Keyring

HEART_PREFIX = b"heart:"
"""A heart's identity on the net: this, then the identity of its worker."""


class Heart:
    """Echoes whatever a factory sends to it.

    Parameters
    ----------
    identity : bytes
        How the factory addresses it.
    keys : Keyring, optional
        Who the worker is, and how the factories are known.
    """

    def __init__(self, identity: bytes, keys: Keyring | None = None) -> None:
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.ROUTING_ID, identity)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
        if keys is not None:
            self._socket.set(zmq.CURVE_PUBLICKEY, keys.own.public_key.encode())
            self._socket.set(zmq.CURVE_SECRETKEY, keys.own.secret_key.encode())
            self._socket.set(zmq.CURVE_SERVERKEY, keys.factory_key.encode())
        self._endpoints: set[str] = set()
        self._thread = threading.Thread(target=self._echo, name="heart", daemon=True)

    def beat_for(self, endpoint: str) -> None:
        """Answer the factory at this endpoint; only before the heart has started."""
        if endpoint not in self._endpoints and not self._thread.is_alive():
            self._endpoints.add(endpoint)
            self._socket.connect(endpoint)

    def start(self) -> None:
        """Start to beat."""
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until the thread has ended."""
        if not self._thread.is_alive():
            self._socket.close()
        # ends the echo, whose thread then closes the socket that only it may touch
        self._context.term()

    def _echo(self) -> None:
        with contextlib.suppress(zmq.ContextTerminated):
            zmq.proxy(self._socket, self._socket)
        self._socket.close()
