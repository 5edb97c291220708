"""The application on a socket: waitress with a bounded number of threads."""

from __future__ import annotations

import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

import waitress
from flask import Flask
from waitress import wasyncore

from opencluster.errors import ConfigError, SecurityError
from opencluster.node.notify import Notifier
from opencluster.place import is_loopback
from opencluster_web.application import close_app
from opencluster_web.events import Streams

THREADS = 8
"""For pages, besides those that streams keep busy."""
CONNECTIONS = 200
"""Sockets at the same time, those included that wait for another page."""
LOOP_S = 1.0
"""The longest wait for anything on a socket."""
IDLE_S = 60
"""After which a connection without a request is closed."""
MAX_REQUEST_HEADER = 32 * 1024


def parse_bind(text: str) -> tuple[str, int]:
    """Return the address and the port of ``address:port``.

    Raises
    ------
    ConfigError
        When it cannot be read.
    SecurityError
        When others could reach it: the pages do not ask yet who somebody is.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or not host:
        raise ConfigError(f"{text!r} is no address: write 127.0.0.1:8080")
    if not is_loopback(host):
        raise SecurityError(
            f"refusing to listen at {text}: everyone who reaches it could look in, as "
            "the pages do not know accounts yet. Listen at 127.0.0.1, and come from "
            f"elsewhere by `ssh -L {port}:127.0.0.1:{port} THIS-COMPUTER`"
        )
    return host, int(port)


class WebServer:
    """Serves an application until it is stopped.

    Parameters
    ----------
    app : Flask
        What `create_app` made.
    host : str
        Where to listen.
    port : int
        The port, 0 for a free one.

    Raises
    ------
    ConfigError
        When another program listens there.
    """

    def __init__(self, app: Flask, host: str, port: int) -> None:
        self._streams: Streams = app.extensions["opencluster_streams"]
        self._app = app
        self._sockets: dict[int, Any] = {}
        self._is_over = False
        # a signal may come to the thread that holds it
        self._ending = threading.RLock()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host.strip("[]"), port), family=family)
        except OSError as error:
            raise ConfigError(f"cannot listen at {host}:{port}: {error}") from error
        self.port = int(listening.getsockname()[1])
        self._server: Any = waitress.create_server(
            app,
            map=self._sockets,
            sockets=[listening],
            threads=THREADS + self._streams.limit,
            connection_limit=CONNECTIONS,
            channel_timeout=IDLE_S,
            # a stream learns from it that its page was closed
            channel_request_lookahead=1,
            max_request_header_size=MAX_REQUEST_HEADER,
            max_request_body_size=app.config["MAX_CONTENT_LENGTH"],
            ident=None,
        )
        self.url = f"http://{host}:{self.port}/"

    def run(self) -> None:
        """Serve until `stop` is called; in the main thread also until a signal."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._heed)
        notifier = Notifier()
        notifier.ready()
        beat = 0.0
        try:
            while not self._is_over:
                if notifier.interval_s and time.monotonic() > beat:
                    notifier.alive()
                    beat = time.monotonic() + notifier.interval_s
                wasyncore.loop(LOOP_S, use_poll=True, map=self._sockets, count=1)
        finally:
            notifier.stopping()
            self._server.task_dispatcher.shutdown()
            with self._ending:
                self._is_over = True
                wasyncore.close_all(self._sockets)
            close_app(self._app)

    def stop(self) -> None:
        """End the server, from another thread or a signal."""
        with self._ending:
            if not self._is_over:
                self._is_over = True
                self._streams.close()
                self._server.pull_trigger()

    def _heed(self, number: int, frame: FrameType | None) -> None:
        self.stop()
