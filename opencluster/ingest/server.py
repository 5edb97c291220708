"""A TCP server that spools items and has a manager run for each of them.

One thread has all sockets, one writes the book of the spool, and a few run managers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from opencluster.config import Config, load
from opencluster.config.settings import IngestSettings
from opencluster.core.admission import Gate, Sampler
from opencluster.errors import IngestError, SecurityError
from opencluster.ingest.connection import Connection
from opencluster.ingest.framing import Framing
from opencluster.ingest.keeper import Keeper
from opencluster.ingest.runs import Patience, Runs, plain_task
from opencluster.ingest.status import IngestStatus
from opencluster.manager import Manager
from opencluster.node.notify import Notifier
from opencluster.place import is_loopback
from opencluster.store.spool import DROPPED, Draft, Ending, Spool, SpoolFull
from opencluster.store.spool import Stored as Item
from opencluster.workpiece import WorkPiece

log = logging.getLogger(__name__)

BUFFER_BYTES = 512 * 1024
"""Most that is taken from a socket at a time, before it is another one's turn."""
BACKLOG = 128
"""Connections that wait to be taken."""
LOOK_INTERVAL_S = 1.0
"""How often it is seen who is idle, and whether there is room again; more often where
little patience is set."""
LOG_INTERVAL_S = 60.0
"""How often the counts are logged, if they have changed."""
HANDSHAKE_S = 10.0
"""Time for the TLS handshake."""
NO_DESCRIPTORS_S = 0.5
"""How long nobody is let in when that fails for want of descriptors or memory."""


class IngestServer:
    """Takes items from many senders, and has each one processed once.

    An item is accepted when it is on disk: from then on it survives the end of
    everything, however it comes, and is processed, by this server or the next one with
    the same spool.

    Parameters
    ----------
    framing : callable
        Makes the `Framing` of each connection.
    manager : callable
        Makes a `Manager`, such as its class; ``schedule()`` gets what `task` returns.
        There is one for each run at a time, and it is used again.
    spool : str or Path
        A folder on a local disk.
    host : str, optional
        Address to listen at.
    port : int, optional
        0 takes a free one.
    task : callable, optional
        Given an `Item` and its bytes, returns the task; by default a `WorkPiece` with
        ``item``, ``data``, and what the framing knows about it.
    tls : ssl.SSLContext, optional
        Of `TLSFiles.for_server`; without it only a loopback address is listened at.
    policy : str, optional
        ``block``, ``drop-oldest`` or ``sample``; by default ``[ingest] policy``.
    managers : int, optional
        Runs at a time; by default ``[ingest] managers``.
    config : Config, optional
        The settings.
    status_file : Path, optional
        Where the counts are written each second, as JSON.
    drain : bool, optional
        Whether `stop` lets what is in the spool be processed first.

    Raises
    ------
    IngestError
        When the address or the spool cannot be used.
    SecurityError
        When strangers could reach it.

    Attributes
    ----------
    status : IngestStatus
        The counts.
    address : tuple of (str, int)
        Where it listens.
    config : Config
        The settings.
    """

    def __init__(
        self,
        framing: Callable[[], Framing],
        manager: Callable[[], Manager],
        spool: str | Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        task: Callable[[Item, memoryview], WorkPiece] = plain_task,
        tls: ssl.SSLContext | None = None,
        policy: str = "",
        managers: int = 0,
        config: Config | None = None,
        status_file: Path | None = None,
        drain: bool = False,
    ) -> None:
        self.config = config or load()
        _check_address(host, tls, self.config)
        self.settings: IngestSettings = self.config.ingest
        self.policy = policy or self.settings.policy
        self.status = IngestStatus()
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.is_stopping = False
        self._framing = framing
        self._tls = tls
        self._status_file = status_file
        self._drains = drain
        self._gate = Gate(
            self.settings.max_connections, self.settings.max_connections_per_address
        )
        self._sampler = Sampler()
        self._connections: dict[Connection, str] = {}
        self._dropping = False
        self._failure: BaseException | None = None
        self._unsynced = 0
        self._roomless: dict[Connection, None] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._socket = _listen(host, port)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        try:
            self.spool = Spool(
                Path(spool),
                max_bytes=self.settings.spool_bytes,
                margin_bytes=self.settings.margin_bytes,
                kept_s=self.settings.kept_s,
                failed_bytes=self.settings.failed_bytes,
            )
        except IngestError:
            self._socket.close()
            raise
        self._loop = asyncio.new_event_loop()
        self._wanted_to_stop = asyncio.Event()
        self._keeper = Keeper(self.spool, self._kept, self._has_ended, self._broke)
        self._runs = Runs(
            managers or self.settings.managers,
            manager,
            task,
            self.spool,
            Patience(self.settings.retries, self.settings.retry_delay_s),
            self.status,
            end=self._keeper.end,
            soon=self._soon,
            later=self._loop.call_later,
        )

    # --- for users -----------------------------------------------------------

    def run(self) -> None:
        """Serve until `stop` is called.

        What goes wrong in here, and not with a sender or a manager, is raised.
        """
        try:
            asyncio.set_event_loop(self._loop)
            with self._shown():
                self._loop.run_until_complete(self._serve())
        finally:
            self._close()

    def start(self) -> None:
        """Serve in a thread of its own, until `stop` is called."""
        self._thread = threading.Thread(target=self.run, name="ingest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End: take nothing more, and answer for what is whole.

        What is processed now may be finished within ``[ingest] stop_grace_s``; the
        rest stays in the spool. May be called from a signal handler and any thread.
        """
        self._soon(self._wanted_to_stop.set)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return whether it has come."""
        is_over = self._stopped.wait(timeout_s)
        if is_over and self._thread is not None:
            self._thread.join()
        return is_over

    def __enter__(self) -> IngestServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self.wait()

    # --- for connections -----------------------------------------------------

    def came(self, connection: Connection) -> None:
        """Take note that a connection has begun."""
        self._connections[connection] = connection.address
        self.status.connections_taken += 1
        self.status.connections = len(self._connections)

    def went(self, connection: Connection) -> None:
        """Take note that a connection has ended, once."""
        address = self._connections.pop(connection, None)
        self._roomless.pop(connection, None)
        if address is not None:
            self._gate.leave(address)
        self.status.connections = len(self._connections)

    def admit(self, id: str, size: int) -> Draft | None:
        """Begin an item, or return ``None`` when the policy lets go of it.

        Raises
        ------
        SpoolFull
            When its sender has to wait.
        """
        if self.policy == "sample" and not self._sampler.keeps(
            self.spool.used_bytes / self.spool.max_bytes
        ):
            return None
        try:
            return self.spool.begin(id, size)
        except SpoolFull:
            if self.policy == "block":
                raise
            if self.policy == "sample":
                return None
            if self._dropping or self._unsynced:
                # there is room when that is on disk, or something to let go of
                raise
            if not self._runs.drop_oldest():
                return None
            self._dropping = True
            raise

    def keep(self, connection: Connection, draft: Draft) -> None:
        """Have an item written down; the connection is told when it is on disk."""
        self._unsynced += 1
        self._keeper.keep(connection, draft)

    def wants_room(self, connection: Connection) -> None:
        """Take note that a connection goes on when there is room."""
        self._roomless[connection] = None

    def later(
        self, delay_s: float, call: Callable[..., object], *given: object
    ) -> None:
        """Have something called in a while."""
        self._loop.call_later(delay_s, call, *given)

    # --- from the other threads ----------------------------------------------

    def _soon(self, call: Callable[..., object], *given: object) -> None:
        # what ends when everything has ended is of no interest
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *given)

    def _kept(
        self, connection: Connection, draft: Draft, item: Item | None, problem: str
    ) -> None:
        self._soon(self._is_kept, connection, draft, item, problem)

    def _is_kept(
        self, connection: Connection, draft: Draft, item: Item | None, problem: str
    ) -> None:
        self._unsynced -= 1
        if item is not None:
            self.status.accepted += 1
            self.status.accepted_bytes += item.size
            self.status.spooled += 1
            self._runs.add([item])
        connection.kept(draft, item, problem)
        if self.policy == "drop-oldest":
            self._offer_room()

    def _broke(self, error: BaseException) -> None:
        self._failure = error
        self._soon(self._wanted_to_stop.set)

    def _has_ended(self, endings: list[Ending]) -> None:
        self._soon(self._are_ended, endings)

    def _are_ended(self, endings: list[Ending]) -> None:
        self.status.spooled -= len(endings)
        dropped = sum(ending.state == DROPPED for ending in endings)
        if dropped:
            self._dropping = False
        self._runs.recorded(len(endings) - dropped)
        self._offer_room()

    def _offer_room(self) -> None:
        waiting, self._roomless = self._roomless, {}
        for connection in waiting:
            connection.go_on()

    # --- the loop ------------------------------------------------------------

    async def _serve(self) -> None:
        self._take_up()
        # names for these, or the loop would forget them
        tasks: list[asyncio.Task[Any]] = [
            self._loop.create_task(self._let_in()),
            self._loop.create_task(self._look_after()),
            self._loop.create_task(self._report()),
        ]
        wanted = self._loop.create_task(self._wanted_to_stop.wait())
        done, _ = await asyncio.wait(
            [*tasks, wanted], return_when=asyncio.FIRST_COMPLETED
        )
        self.is_stopping = True
        tasks[0].cancel()
        await asyncio.sleep(0)
        self._socket.close()
        for connection in list(self._connections):
            connection.finish()
        await self._finish()
        for connection in list(self._connections):
            connection.abort()
        for task in tasks[1:]:
            task.cancel()
        for task in done:
            task.result()
        if self._failure is not None:
            raise self._failure

    def _take_up(self) -> None:
        """Go on with what an earlier server has left."""
        left = self.spool.waiting()
        if left:
            log.info("%d items are in the spool from before", len(left))
        self.status.left = self.status.spooled = len(left)
        self._runs.add(left)

    async def _let_in(self) -> None:
        while True:
            try:
                accepted, address = await self._loop.sock_accept(self._socket)
            except OSError as error:
                log.warning("nobody can be let in: %s", error)
                await asyncio.sleep(NO_DESCRIPTORS_S)
                continue
            why_not = self._gate.enter(address[0])
            if why_not:
                self.status.connections_refused += 1
                self.status.rejected[why_not] += 1
                accepted.close()
                continue
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = self._loop.create_task(self._begin(accepted, address))
            task.add_done_callback(_tell)

    async def _begin(self, accepted: socket.socket, address: tuple[str, int]) -> None:
        peer = f"{address[0]}:{address[1]}"
        connection = Connection(self, self._framing(), peer, address[0])
        timeout_s = HANDSHAKE_S if self._tls else None
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=timeout_s,
            )
        except (OSError, ssl.SSLError) as error:
            log.info("%s is not let in: %s", peer, error)
            self.status.rejected["tls"] += 1
            self.status.connections_refused += 1
            accepted.close()
            if connection not in self._connections:
                self._gate.leave(address[0])

    @contextlib.contextmanager
    def _shown(self) -> Iterator[None]:
        """Show metrics while the block runs, if that is set."""
        settings = self.config.metrics
        if not settings.ingest_port:
            yield
            return
        from opencluster.observe.exposition import Exposition, asked_of

        def post(callback: Callable[[], None]) -> None:
            self._loop.call_soon_threadsafe(callback)

        ask = asked_of(post, self.status.metrics)
        shown = Exposition(settings.host, settings.ingest_port, ask)
        with contextlib.closing(shown):
            yield

    async def _report(self) -> None:
        """Tell the service manager how this loop is doing, if there is one."""
        notifier = Notifier()
        notifier.ready()
        try:
            while True:
                await asyncio.sleep(notifier.interval_s or math.inf)
                notifier.alive()
        finally:
            notifier.stopping()

    async def _look_after(self) -> None:
        """See once a second how everyone is."""
        logged_at, logged = time.monotonic(), ""
        patience_s = min(self.settings.idle_s, self.settings.slow_s)
        while True:
            await asyncio.sleep(min(LOOK_INTERVAL_S, patience_s / 4))
            now = time.monotonic()
            for connection in list(self._connections):
                connection.look(now)
            self._offer_room()
            self._tell()
            said = str(self.status)
            if now - logged_at >= LOG_INTERVAL_S and said != logged:
                logged_at, logged = now, said
                log.info("%s", said)

    def _tell(self) -> None:
        self.status.spooled_bytes = self.spool.used_bytes
        if self._status_file is not None:
            try:
                self.status.write(self._status_file)
            except OSError as error:
                log.warning("%s cannot be written: %s", self._status_file, error)

    async def _finish(self) -> None:
        """Wait for answers, and for managers, but not for ever."""
        until = time.monotonic() + self.settings.stop_grace_s
        if not self._drains:
            self._runs.stop()
        while self._failure is None and (
            time.monotonic() < until or (self._drains and not self._runs.is_idle)
        ):
            is_done = self._runs.is_idle if self._drains else not self.status.running
            if is_done and not self._connections:
                break
            await asyncio.sleep(0.01)
        self._runs.stop()

    def _close(self) -> None:
        self._socket.close()
        self._keeper.close()
        # what the keeper has told since
        self._loop.run_until_complete(asyncio.sleep(0))
        self._tell()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
        self.spool.close()
        log.info("ended: %s", self.status)
        self._stopped.set()


def _check_address(host: str, tls: ssl.SSLContext | None, config: Config) -> None:
    if tls is None:
        if is_loopback(host) or host == "::1" or config.cluster.insecure:
            return
        raise SecurityError(
            f"refusing to listen at {host} without TLS: everyone who reaches this "
            "address could send. Give a certificate, its key and the authority of the "
            "senders, listen at 127.0.0.1, or write `insecure = true` in [cluster] if "
            "the network is closed to strangers"
        )
    if tls.verify_mode != ssl.CERT_REQUIRED:
        raise SecurityError(
            "the TLS context asks senders for no certificate: make it by "
            "TLSFiles(...).for_server()"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise IngestError(
            f"cannot listen at {host} port {port}: {error.strerror or error}; choose "
            "another port, 0 for a free one"
        ) from None
    listening.setblocking(False)
    return listening


def _tell(task: asyncio.Task[None]) -> None:
    """Log what a task raised that nobody waits for."""
    if not task.cancelled() and task.exception() is not None:
        log.error("a connection could not be begun", exc_info=task.exception())
