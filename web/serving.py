"""The application on a socket: waitress, or cheroot where the pages are encrypted."""

from __future__ import annotations

import logging
import signal
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import waitress
from cheroot import wsgi
from cheroot.server import HTTPConnection
from cheroot.ssl.builtin import BuiltinSSLAdapter
from flask import Flask
from waitress import wasyncore
from werkzeug.middleware.proxy_fix import ProxyFix

from opencluster.errors import ConfigError, SecurityError
from opencluster.node.notify import Notifier
from opencluster.place import is_loopback
from opencluster_web.application import close_app
from opencluster_web.cluster.source import ClusterSource
from opencluster_web.events import Streams

log = logging.getLogger(__name__)

THREADS = 8
"""For pages, besides those that streams keep busy."""
CONNECTIONS = 200
"""Sockets at the same time, those included that wait for another page."""
LOOP_S = 1.0
"""The longest wait for anything on a socket."""
ENDING_S = 1
"""For answers that are under way when the server ends."""
IDLE_S = 60
"""After which a connection without a request is closed."""
SLOW_S = 10
"""For which a thread waits for the next piece of an encrypted request."""
MAX_REQUEST_HEADER = 32 * 1024


@dataclass(frozen=True)
class Certificate:
    """How the pages are encrypted.

    Attributes
    ----------
    chain, key : Path
        The certificate with those in between, and its key, in PEM.
    """

    chain: Path
    key: Path


def parse_bind(text: str, is_protected: bool = False) -> tuple[str, int]:
    """Return the address and the port of ``address:port``.

    Parameters
    ----------
    text : str
        What was written.
    is_protected : bool
        What is sent is encrypted, here or by a proxy in front.

    Raises
    ------
    ConfigError
        When it cannot be read.
    SecurityError
        When passwords would cross the network as they are.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or not host:
        raise ConfigError(f"{text!r} is no address: write 127.0.0.1:8080")
    if not is_protected and not is_loopback(host):
        raise SecurityError(
            f"refusing to listen at {text}: passwords would cross the network as they "
            "are. Set [web] tls_certificate and tls_key, or put a proxy in front that "
            "encrypts and set [web] behind_proxy = true; or listen at 127.0.0.1, and "
            f"come from elsewhere by `ssh -L {port}:127.0.0.1:{port} THIS-COMPUTER`"
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
    certificate : Certificate, optional
        Encrypt with it.

    Raises
    ------
    ConfigError
        When another program listens there, or the certificate cannot be used.
    """

    def __init__(
        self, app: Flask, host: str, port: int, certificate: Certificate | None = None
    ) -> None:
        self._app = app
        self._streams: Streams = app.extensions["opencluster_streams"]
        self._is_over = False
        # a signal may come to the thread that holds it
        self._ending = threading.RLock()
        threads = THREADS + self._streams.limit
        self._server: _Plain | _Encrypted
        if certificate is None:
            self._server = _Plain(app, _listen(host, port), threads)
        else:
            self._server = _Encrypted(app, host, port, threads, certificate)
        self.port = self._server.port
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://{host}:{self.port}/"

    def run(self) -> None:
        """Serve until `stop` is called; in the main thread also until a signal."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._heed)
        cluster: ClusterSource = self._app.extensions["opencluster_cluster"]
        cluster.start()
        notifier = Notifier()
        notifier.ready()
        beat = 0.0
        try:
            while not self._is_over:
                if notifier.interval_s and time.monotonic() > beat:
                    notifier.alive()
                    beat = time.monotonic() + notifier.interval_s
                self._server.turn()
        finally:
            notifier.stopping()
            with self._ending:
                self._is_over = True
            self._server.close()
            close_app(self._app)

    def stop(self) -> None:
        """End the server, from another thread or a signal."""
        with self._ending:
            if not self._is_over:
                self._is_over = True
                self._streams.close()
                self._server.wake()

    def _heed(self, number: int, frame: FrameType | None) -> None:
        self.stop()


class _Plain:
    """waitress, a turn at a time."""

    def __init__(self, app: Flask, listening: socket.socket, threads: int) -> None:
        self.port = int(listening.getsockname()[1])
        self._sockets: dict[int, Any] = {}
        self._server: Any = waitress.create_server(
            app,
            map=self._sockets,
            sockets=[listening],
            threads=threads,
            connection_limit=CONNECTIONS,
            channel_timeout=IDLE_S,
            # a stream learns from it that its page was closed
            channel_request_lookahead=1,
            max_request_header_size=MAX_REQUEST_HEADER,
            max_request_body_size=app.config["MAX_CONTENT_LENGTH"],
            # what a proxy says is read by ProxyFix; from others it is not let through
            clear_untrusted_proxy_headers=not isinstance(app.wsgi_app, ProxyFix),
            ident=None,
        )

    def turn(self) -> None:
        wasyncore.loop(LOOP_S, use_poll=True, map=self._sockets, count=1)

    def wake(self) -> None:
        self._server.pull_trigger()

    def close(self) -> None:
        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._sockets)


class _Greeted(HTTPConnection):
    """A connection that keeps nobody waiting but itself while it is agreed upon."""

    def communicate(self) -> bool:
        try:
            # done at the first request, and nothing at the next ones
            self.socket.do_handshake()
        except OSError as error:
            log.info("a browser and the pages did not agree on TLS: %s", error)
            return False
        return bool(super().communicate())  # type: ignore[no-untyped-call]


class _Patient(BuiltinSSLAdapter):
    """Encrypts, but does not greet in the thread that takes all connections."""

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        wrapped = self.context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False
        )
        return wrapped, {"wsgi.url_scheme": "https", "HTTPS": "on"}


class _Tls(wsgi.Server):
    """Logs what it has to say; what a client did wrong is not for the screen."""

    ConnectionClass = _Greeted

    def error_log(
        self, msg: str = "", level: int = logging.INFO, traceback: bool = False
    ) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            # somebody closed a page that heard of changes
            log.info("a browser went away: %s", error)
        else:
            log.log(level, "%s", msg, exc_info=traceback)


class _Encrypted:
    """cheroot, which speaks TLS, in a thread of its own."""

    def __init__(
        self, app: Flask, host: str, port: int, threads: int, certificate: Certificate
    ) -> None:
        self._server = _Tls(
            (host.strip("[]"), port),
            app,
            numthreads=threads,
            request_queue_size=CONNECTIONS,
            timeout=SLOW_S,
            shutdown_timeout=ENDING_S,
        )
        self._server.max_request_header_size = MAX_REQUEST_HEADER
        self._server.max_request_body_size = app.config["MAX_CONTENT_LENGTH"]
        try:
            self._server.ssl_adapter = _Patient(
                str(certificate.chain), str(certificate.key)
            )
            self._server.prepare()
        except OSError as error:
            # of ssl, too: a certificate that is none
            raise ConfigError(
                f"cannot serve at {host}:{port} with the certificate in "
                f"{certificate.chain} and the key in {certificate.key}: {error}"
            ) from error
        self.port = int(self._server.bind_addr[1])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._server.serve)
        self._thread.start()

    def turn(self) -> None:
        self._ended.wait(LOOP_S)

    def wake(self) -> None:
        self._ended.set()

    def close(self) -> None:
        self._server.stop()
        self._thread.join()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error}") from error
