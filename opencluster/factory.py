"""The factory: the directory of who is here, what they can do, and whether they live.

This shell joins `core.registry` to the net. It owns one listening transport and a
timer; it never carries a task or its data, so its load grows with the number of
computers and not with the number of tasks.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from opencluster.config import Config
from opencluster.core.registry import Delta, Entry, Registry
from opencluster.errors import OpenClusterError, RegistryError, RemoteProtocolError
from opencluster.net.heart import HEART_PREFIX
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED, Rejections
from opencluster.net.requests import answer
from opencluster.net.transport import Peer, Received, TransportEvent
from opencluster.net.zmq_transport import INBOUND, ZmqTransport
from opencluster.wire import frames, kinds

log = logging.getLogger(__name__)

DEATHS_KEPT = 50
"""Members of which it is remembered how they were lost."""


class Factory:
    """A registry that everyone can reach.

    Parameters
    ----------
    config : Config
        The settings; ``[cluster]``, ``[network]`` and ``[factory]`` matter here.
    endpoints : sequence of str
        Where to listen.
    state_dir : Path
        Where the epoch is kept between runs.
    """

    def __init__(
        self, config: Config, endpoints: Sequence[str], state_dir: Path
    ) -> None:
        self.config = config
        network = config.network
        self._transport = ZmqTransport(
            network.max_message_bytes, network.zmtp_heartbeat_s, network.zmtp_timeout_s
        )
        self.endpoints = [self._transport.listen(endpoint) for endpoint in endpoints]
        self.registry = Registry(
            config.cluster.lease_s,
            config.factory.max_entries,
            config.factory.jobs_kept,
        )
        self.epoch = [next_epoch(state_dir / "epoch"), 0]
        self._reactor = Reactor(self._transport, self._received)
        self._rejections = Rejections(self._transport.counts, log)
        self._subscribers: set[Peer] = set()
        self._members: dict[str, Entry] = {}
        self._deaths: deque[dict[str, Any]] = deque(maxlen=DEATHS_KEPT)
        self._started_at = time.time()
        self._handlers = {
            "hello": self._hello,
            "register": self._register,
            "renew": self._renew,
            "deregister": self._deregister,
            "subscribe": self._subscribe,
            "find": self._find,
            "job": self._job,
            "status": self._status,
        }

    def run(self) -> None:
        """Serve until `stop`."""
        interval_s = self.config.cluster.heartbeat_interval_s
        self._reactor.every(interval_s, self._beat)
        log.info("factory at %s, epoch %s", ", ".join(self.endpoints), self.epoch)
        self._reactor.run()

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler."""
        self._reactor.stop()

    def end_with(self, pidfd: int) -> None:
        """Stop when the process that a file descriptor stands for has ended."""
        self._reactor.watch(pidfd, self._reactor.stop)

    # --- what others ask -----------------------------------------------------

    def _hello(self, peer: Peer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "role": "leader",
            "epoch": self.epoch,
            "revision": self.registry.revision,
            "endpoints": self.endpoints,
            "heartbeat_interval_s": self.config.cluster.heartbeat_interval_s,
            "lease_s": self.registry.lease_s,
        }

    def _register(self, peer: Peer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        entries = [Entry.from_fields(fields) for fields in arguments["entries"]]
        for entry in entries:
            self._publish(self.registry.register(time.monotonic(), entry))
        return {"lease_s": self.registry.lease_s}

    def _renew(self, peer: Peer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        unknown = self.registry.renew(
            time.monotonic(), arguments["ids"], arguments.get("figures")
        )
        return {"unknown": unknown}

    def _deregister(self, peer: Peer, arguments: Mapping[str, Any]) -> None:
        cause = arguments.get("cause")
        if not isinstance(cause, Mapping | None):
            raise RegistryError("the cause of a loss is no mapping")
        self._publish(self.registry.remove(arguments["id"], cause))

    def _subscribe(self, peer: Peer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._subscribers.add(peer)
        return self.registry.snapshot() | {"epoch": self.epoch, "jobs": []}

    def _find(self, peer: Peer, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        wanted = {k: str(arguments.get(k, "")) for k in ("kind", "type", "name")}
        return [entry.to_fields() for entry in self.registry.find(**wanted)]

    def _job(self, peer: Peer, arguments: Mapping[str, Any]) -> None:
        self.registry.report_job(time.monotonic(), arguments["job"])

    def _status(self, peer: Peer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        me = {
            "endpoint": self.endpoints[0],
            "endpoints": self.endpoints,
            "pid": os.getpid(),
            "role": "leader",
            "epoch": self.epoch,
            "revision": self.registry.revision,
            "uptime_s": time.time() - self._started_at,
        } | self._transport.counts.to_fields()
        deaths = list(self._deaths)
        return self.registry.snapshot() | {"factories": [me], "deaths": deaths}

    # --- events --------------------------------------------------------------

    def _received(self, event: TransportEvent) -> None:
        if not isinstance(event, Received):
            return
        try:
            fields = frames.unpack(event.header)
            if fields[0] == kinds.PULSE:
                self._pulse(event.peer)
            elif fields[0] == kinds.REQUEST and len(fields) == 4:
                answer(self._reactor, event.peer, fields, self._handlers, self._stamp)
            else:
                raise RemoteProtocolError(f"a factory takes no {fields[0]!r} message")
        except MALFORMED as error:
            self._rejections.note(error)

    def _stamp(self) -> tuple[list[int], int]:
        return self.epoch, self.registry.revision

    def _pulse(self, peer: Peer) -> None:
        """Take an echo from the heart of a worker whose Python may be busy."""
        identity = peer.removeprefix(INBOUND + HEART_PREFIX).decode(errors="replace")
        self.registry.renew(time.monotonic(), [identity])

    def _beat(self) -> None:
        self._publish(self.registry.expire(time.monotonic()))
        header = frames.pack(kinds.BEAT, self.epoch, self.registry.revision)
        self._push(header)
        pulse = frames.pack(kinds.PULSE)
        for entry in self.registry.find():
            if entry.attributes.get("has_heart"):
                peer = INBOUND + HEART_PREFIX + entry.id.encode()
                self._transport.send(peer, pulse)

    def _publish(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if delta.entry is not None:
                entry = self._members[delta.id] = delta.entry
                log.info("%s %s is here (%s)", entry.kind, entry.name, entry.host)
            else:
                reason = (delta.cause or {}).get("reason", "deregistered")
                log.info("%s is gone: %s", delta.id, reason)
                self._note_death(self._members.pop(delta.id), delta.cause)
            self._push(frames.pack(kinds.DELTA, self.epoch, delta.to_fields()))

    def _note_death(self, entry: Entry, cause: Mapping[str, Any] | None) -> None:
        """Remember how a member was lost, unless it left as it should."""
        if cause and not is_clean(cause):
            names = ("id", "kind", "type", "name", "host", "pid")
            who = {name: getattr(entry, name) for name in names}
            self._deaths.append(who | {"at": time.time(), "cause": dict(cause)})

    def _push(self, header: bytes) -> None:
        gone = [p for p in self._subscribers if not self._transport.send(p, header)]
        self._subscribers.difference_update(gone)


def is_clean(cause: Mapping[str, Any]) -> bool:
    """Return whether a process ended by itself, in order and with nothing in hand."""
    is_amiss = cause.get("piece") or cause.get("exceeded")
    return cause.get("exit_code") == 0 and not is_amiss


def next_epoch(path: Path) -> int:
    """Return the number after the one in a file, and keep it there.

    A file that is missing or torn counts as none.

    Raises
    ------
    OpenClusterError
        When the file cannot be written: an epoch must not be used twice.
    """
    try:
        last = int(path.read_text())
    except (OSError, ValueError):
        last = 0
    draft = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(f"{last + 1}\n")
        draft.replace(path)
    except OSError as error:
        raise OpenClusterError(
            f"cannot keep the epoch in {path}: {error.strerror}; "
            "give the factory a directory that it may write to"
        ) from None
    return last + 1
