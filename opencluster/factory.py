"""The factory: the directory of who is here, what they can do, and whether they live.

This shell joins `core.replication` to the net and to the disk. Several factories copy
one registry, of which one leads. None of them carries a task or its data, so their
load grows with the number of computers and not with the number of tasks.
"""

from __future__ import annotations

import logging
import os
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from opencluster.config import Config
from opencluster.core.bounds import Bounds
from opencluster.core.elastic_report import is_report, metrics_of
from opencluster.core.election import (
    Election,
    Follow,
    Lead,
    Quorum,
    Role,
    SaveEpochs,
    SendMessage,
    StepDown,
)
from opencluster.core.entries import Delta, Entry
from opencluster.core.epochs import Epoch
from opencluster.core.factory_messages import from_fields, to_fields
from opencluster.core.job_orders import ordered_by
from opencluster.core.lineup import lineup, public_role
from opencluster.core.metrics import Metric, one, rejected
from opencluster.core.registry import Registry
from opencluster.core.replication import Effect, Publish, ReplicatedRegistry
from opencluster.core.roles import FACTORY, check, claim, permits
from opencluster.errors import NotLeader, RegistryError, RemoteProtocolError
from opencluster.net.announce import announced
from opencluster.net.fellows import Fellows
from opencluster.net.heart import HEART_PREFIX
from opencluster.net.keys import Keyring
from opencluster.net.reach import look
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED, Rejections
from opencluster.net.requests import Caller, Requests, answer
from opencluster.net.rolls import Rolls
from opencluster.net.transport import (
    Peer,
    PeerConnected,
    PeerLost,
    Received,
    TransportEvent,
)
from opencluster.net.zmq_transport import INBOUND, ZmqTransport
from opencluster.node.notify import Notifier
from opencluster.store.epochs import EpochFile
from opencluster.wire import figures, frames, kinds

log = logging.getLogger(__name__)

RECONNECT_S = 5.0
"""How often the address of a factory is looked for that has none yet, and why one is
not reached."""


class Factory:
    """A registry that everyone can reach.

    Parameters
    ----------
    config : Config
        The settings; ``[cluster]``, ``[network]``, ``[factory]`` and ``[limits]``
        matter here.
    endpoints : sequence of str
        Where to listen.
    state_dir : Path
        Where the epoch is kept between runs.
    names : sequence of str, optional
        All factories, in order, each by the endpoint at which the others reach it;
        by default this one is alone.
    me : str, optional
        Which of them this one is; by default the first endpoint.
    keys : Keyring, optional
        The factories' certificate, and who is admitted.
    """

    def __init__(
        self,
        config: Config,
        endpoints: Sequence[str],
        state_dir: Path,
        names: Sequence[str] = (),
        me: str = "",
        keys: Keyring | None = None,
    ) -> None:
        self.config = config
        network, limits = config.network, config.limits
        self._file = EpochFile(state_dir / "epoch")
        self._transport = ZmqTransport(
            min(network.max_message_bytes, limits.max_request_bytes),
            network.zmtp_heartbeat_s,
            network.zmtp_timeout_s,
            keys,
            limits.max_queued_messages,
        )
        # the list says where one that stands in it is reached
        to = "" if me else network.announce
        self.endpoints = [
            announced(self._transport.listen(endpoint), to, [[me]])
            for endpoint in endpoints
        ]
        self.name = me or self.endpoints[0]
        self.registry = Registry(
            config.cluster.lease_s,
            config.factory.max_entries,
            config.factory.jobs_kept,
            limits.max_entries_per_client,
            Bounds(limits.max_text, limits.max_entry_bytes),
        )
        listed = list(names or [self.name])
        about = {
            "pid": os.getpid(),
            "started_at": time.time(),
            # a factory says a few numbers of itself: lists are compared by one
            "list": zlib.crc32("\n".join(listed).encode()),
        }
        self._core = ReplicatedRegistry(self._election(listed), self.registry, about)
        self._reactor = Reactor(self._transport, self._received)
        public_key = self._transport.public_key
        self._fellows = Fellows(self._transport, self.name, names, public_key)
        self._requests = Requests(self._reactor)
        self._rolls = Rolls(self._requests, keys)
        self._rejections = Rejections(self._transport.counts, log)
        self._subscribers: set[Peer] = set()
        self._hearts: set[str] = set()
        self._handlers = {
            "hello": self._hello,
            "register": self._register,
            "renew": self._renew,
            "deregister": self._deregister,
            "subscribe": self._subscribe,
            "find": self._find,
            "job": self._job,
            "order_job": self._order_job,
            "status": self._status,
            "roll": self._roll,
            "enroll": self._enroll,
        }

    def run(self) -> None:
        """Serve until `stop`."""
        settings = self.config.factory
        self._reactor.every(settings.beat_interval_s, self._tick)
        self._reactor.every(self.config.cluster.heartbeat_interval_s, self._beat)
        self._reactor.every(RECONNECT_S, self._seek_fellows)
        self._reactor.post(self._begin)
        self._reactor.run()

    def stop(self) -> None:
        """Make `run` return; may be called from a signal handler."""
        self._reactor.post(lambda: self._do(self._core.resign(_now())))
        self._reactor.stop()

    def end_with(self, pidfd: int) -> None:
        """Stop when the process that a file descriptor stands for has ended."""
        self._reactor.watch(pidfd, self.stop)

    def report_to(self, notifier: Notifier) -> None:
        """Tell the service manager when it is ready, and that it lives."""
        self._reactor.post(notifier.ready)
        if notifier.interval_s:
            self._reactor.every(notifier.interval_s, notifier.alive)

    @property
    def epoch(self) -> Epoch:
        """The newest epoch that anyone is known to have led."""
        return self._core.election.led

    # --- what others ask -----------------------------------------------------

    def _hello(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        known = arguments.get("epoch")
        if known is not None and permits(FACTORY, "epoch", caller.who):
            self._do(self._core.claimed(_now(), Epoch.from_fields(known)))
        return {
            "role": public_role(self._core.election.role),
            "epoch": self.epoch,
            "leader": self._core.election.said_to_lead,
            "revision": self.registry.revision,
            "endpoints": self.endpoints,
            "factories": self._core.election.names,
            "heartbeat_interval_s": self.config.cluster.heartbeat_interval_s,
            "lease_s": self.registry.lease_s,
            "roll": self._rolls.version,
        }

    def _register(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        rows, limit = arguments["entries"], self.registry.max_entries_per_client
        if len(rows) > limit:
            # an entry takes far more memory than it took in the message
            raise RegistryError(
                f"{len(rows)} entries at once are too many, {limit} are allowed; "
                "raise [limits] max_entries_per_client"
            )
        entries = [Entry.from_fields(f, self.registry.bounds) for f in rows]
        for entry in entries:
            # one by one: if one is refused, what was done for those before it stands
            owned = claim(entry, caller.who, self._rolls.key_of(caller.who))
            self._do(self._core.register(_now(), [owned], caller.peer.hex()))
        return {"lease_s": self.registry.lease_s, "roll": self._rolls.version}

    def _renew(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        unknown = self._renewed(caller, arguments["ids"], arguments.get("figures", b""))
        least_s = self.config.cluster.heartbeat_interval_s
        interval_s = self.registry.heartbeat_interval_s(least_s)
        return {
            "unknown": unknown,
            "heartbeat_interval_s": interval_s,
            "heartbeat_in_s": self.registry.heartbeat_in_s(_now(), interval_s),
            "roll": self._rolls.version,
        }

    def _renewed(self, caller: Caller, ids: Any, figures: Any) -> list[str]:
        return self._core.renew(_now(), ids, figures, caller.who.name)

    def _deregister(self, caller: Caller, arguments: Mapping[str, Any]) -> None:
        cause = arguments.get("cause")
        if not isinstance(cause, Mapping | None):
            raise RegistryError("the cause of a loss is no mapping")
        identity = arguments["id"]
        owner = caller.who.name
        self._do(self._core.remove(_now(), identity, cause, time.time(), owner))

    def _subscribe(
        self, caller: Caller, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        self._core.check_leading(_now())
        if len(self._subscribers) >= self.config.limits.max_subscribers:
            raise RegistryError(
                "too many follow this factory; raise [limits] max_subscribers"
            )
        self._subscribers.add(caller.peer)
        return {
            "epoch": self.epoch,
            "revision": self.registry.revision,
            "entries": [entry.to_fields() for entry in self.registry.find()],
        }

    def _find(
        self, caller: Caller, arguments: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        self._core.check_readable(_now())
        wanted = {k: str(arguments.get(k, "")) for k in ("kind", "type", "name")}
        return [entry.to_fields() for entry in self.registry.find(**wanted)]

    def _job(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        job = arguments["job"]
        if not isinstance(job, Mapping):
            raise RegistryError("the report of a job is no mapping")
        owned = {**job, "owner": caller.who.name}
        self._do(self._core.report_job(_now(), owned))
        return {
            "orders": self.registry.orders_for(job["id"]),
            "expected": self.registry.expected,
        }

    def _order_job(
        self, caller: Caller, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        identity, order = arguments["id"], arguments["order"]
        by = ordered_by(arguments.get("by"), caller.who.name)
        value = arguments.get("value")
        self._do(self._core.order_job(_now(), identity, order, value, by, time.time()))
        log.info("job %s: %s, by order of %s", identity, order, by or "somebody")
        return {"orders": self.registry.orders_for(identity)}

    def _status(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        now = _now()
        self._core.check_readable(now)
        snapshot = self.registry.snapshot()
        return snapshot | {
            "figures": figures.merged(snapshot["figures"].values()),
            "factories": self._rows(now),
            "age_s": self._core.age_s(now),
        }

    def _roll(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self._rolls.to_fields()

    def _enroll(self, caller: Caller, arguments: Mapping[str, Any]) -> int:
        return self._rolls.accept(arguments["roll"])

    def _rows(self, now: float) -> list[dict[str, Any]]:
        own = {"endpoints": self.endpoints} | self._transport.counts.to_fields()
        rows = lineup(self._core, now, time.time())
        return [row | own if row["endpoint"] == self.name else row for row in rows]

    # --- how it is doing -------------------------------------------------------

    def metrics(self) -> list[Metric]:
        """Return numbers by which it is watched; call it from its loop, see `post`."""
        election, now = self._core.election, _now()
        snapshot = self.registry.snapshot()
        members = Counter((e["kind"], e["type"]) for e in snapshot["entries"])
        rows = snapshot["jobs"]
        jobs = Counter(str(job.get("state", "")) for job in rows if not is_report(job))
        return [
            one("factory_leading", "1 for who leads.", election.role is Role.LEADING),
            one("factory_epoch", "Leaders so far.", election.led.number),
            one("factory_revision", "Changes of members.", self.registry.revision),
            one(
                "factory_leader_silence_seconds",
                "Time since the leader was heard.",
                election.silence_s(now) or 0.0,
            ),
            one("factory_subscribers", "Who follows it.", len(self._subscribers)),
            Metric(
                "members",
                "Processes that are registered.",
                [((("kind", k), ("type", t)), n) for (k, t), n in members.items()],
            ),
            Metric("jobs", "Runs.", [((("state", s),), n) for s, n in jobs.items()]),
            *metrics_of(rows),
            *rejected(self._transport.counts.to_fields()),
        ]

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run in its loop."""
        self._reactor.post(callback)

    # --- events --------------------------------------------------------------

    def _begin(self) -> None:
        log.info("factory at %s", ", ".join(self.endpoints))
        self._fellows.connect()
        self._do(self._core.start(_now()))

    def _seek_fellows(self) -> None:
        """Open what is not open yet, and find out why others are not reached."""
        self._fellows.connect()
        for name in self._fellows.missing():
            if name.startswith("tcp://"):
                seen = look(self._reactor, name)
                seen.add_done_callback(partial(self._looked, name))

    def _looked(self, name: str, seen: Future[str]) -> None:
        if seen.result():
            self._fellows.unreached(name, seen.result())

    def _received(self, event: TransportEvent) -> None:
        match event:
            case Received():
                try:
                    self._message(event)
                except MALFORMED as error:
                    self._rejections.note(error)
            case PeerConnected(peer):
                name = self._fellows.connected(peer)
                if name:
                    self._do(self._core.peer_connected(_now(), name))
            case PeerLost(peer):
                self._requests.peer_lost(peer)
                name = self._fellows.lost(peer)
                if name:
                    self._do(self._core.peer_lost(_now(), name))

    def _message(self, event: Received) -> None:
        fields = frames.unpack(event.header, self.config.limits.max_nesting)
        # a leader that stood still must find that out before it does anything
        self._do(self._core.observe(_now()))
        kind, count = fields[0], len(fields)
        caller = Caller(event.peer, event.who)
        if kind == kinds.REQUEST and count == 4:
            answer(self._reactor, FACTORY, caller, fields, self._handlers, self._stamp)
            return
        # a factory asks other factories alone
        check(FACTORY, kinds.FACTORY if kind == kinds.REPLY else kind, event.who)
        if kind == kinds.PULSE:
            self._pulse(caller)
        elif kind == kinds.RENEW and count == 3:
            self._renew_silently(caller, fields[1], fields[2])
        elif kind == kinds.FACTORY and count == 4:
            message = from_fields(fields[2])
            sender = self._fellows.heard(event.peer, fields[1])
            self._rolls.told(event.peer, fields[3])
            self._do(self._core.receive(_now(), sender, message))
        elif kind == kinds.REPLY and count >= 4:
            self._requests.replied(event.peer, *fields[1:4])
        else:
            raise RemoteProtocolError(f"a factory takes no {kind!r} message")

    def _stamp(self) -> tuple[Epoch, int, float | None]:
        return self.epoch, self.registry.revision, self._core.age_s(_now())

    def _pulse(self, caller: Caller) -> None:
        """Take an echo from the heart of a worker whose Python may be busy."""
        if self._core.election.may_write(_now()):
            identity = caller.peer.removeprefix(INBOUND + HEART_PREFIX)
            name = identity.decode(errors="replace")
            self._core.renew(_now(), [name], owner=caller.who.name)

    def _renew_silently(self, caller: Caller, ids: Any, figures: Any) -> None:
        """Take a heartbeat that is answered only when something is amiss."""
        try:
            unknown = self._renewed(caller, ids, figures)
        except NotLeader:
            self._transport.send(caller.peer, frames.pack(kinds.MOVED))
            return
        if unknown:
            header = frames.pack(kinds.FORGOTTEN, unknown)
            self._transport.send(caller.peer, header)

    def _tick(self) -> None:
        self._do(self._core.tick(_now()))

    def _beat(self) -> None:
        """Tell those who follow the registry that they have all of it."""
        now = _now()
        self._do(self._core.expire(now, time.time()))
        if not self._core.election.may_write(now):
            return
        version = self._rolls.version
        self._push(frames.pack(kinds.BEAT, self.epoch, self.registry.revision, version))
        pulse = frames.pack(kinds.PULSE)
        for identity in self._hearts:
            self._transport.send(INBOUND + HEART_PREFIX + identity.encode(), pulse)

    # --- effects -------------------------------------------------------------

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendMessage(to, message):
                    fields = to_fields(message)
                    version = self._rolls.version
                    header = frames.pack(kinds.FACTORY, self.name, fields, version)
                    self._fellows.send(to, header)
                case SaveEpochs():
                    self._save(effect)
                case Publish(epoch, delta):
                    self._publish(epoch, delta)
                case Lead(epoch):
                    log.info("leading with epoch %s", list(epoch))
                    self._hearts = set(filter(self._has_heart, self.registry.ids))
                case Follow(leader, epoch):
                    log.info("following %s with epoch %s", leader, list(epoch))
                case StepDown(reason):
                    log.warning("no leader is known: %s", reason)
                    self._send_away()

    def _save(self, epochs: SaveEpochs) -> None:
        try:
            self._file.write(epochs.seen, epochs.led)
        except OSError as error:
            log.error("cannot save the epoch, so others have to lead: %s", error)
            if epochs.wanted is not None:
                self._do(self._core.not_saved(_now()))
            return
        if epochs.wanted is not None:
            self._do(self._core.saved(_now(), epochs.wanted))

    def _has_heart(self, identity: str) -> bool:
        entry = self.registry.get(identity)
        return entry is not None and bool(entry.attributes.get("has_heart"))

    def _publish(self, epoch: Epoch, delta: Delta) -> None:
        if self._has_heart(delta.id):
            self._hearts.add(delta.id)
        else:
            self._hearts.discard(delta.id)
        if delta.entry is not None:
            entry = delta.entry
            log.info("%s %s is here (%s)", entry.kind, entry.name, entry.host)
        else:
            reason = (delta.cause or {}).get("reason", "deregistered")
            log.info("%s is gone: %s", delta.id, reason)
        self._push(frames.pack(kinds.DELTA, epoch, delta.to_fields()))

    def _send_away(self) -> None:
        """Have those who follow this factory look for another."""
        self._push(frames.pack(kinds.MOVED))
        self._subscribers.clear()

    def _push(self, header: bytes) -> None:
        gone = [p for p in self._subscribers if not self._transport.send(p, header)]
        self._subscribers.difference_update(gone)

    def _election(self, names: Sequence[str]) -> Election:
        settings = self.config.factory
        seen, led = self._file.read()
        return Election(
            names,
            self.name,
            random.SystemRandom(),
            settings.leader_timeout_s,
            settings.beat_interval_s,
            Quorum(settings.quorum),
            seen,
            led,
        )


def _now() -> float:
    return time.monotonic()
