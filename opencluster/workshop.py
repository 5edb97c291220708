"""The workshop: the daemon of one computer.

It starts, watches, measures and stops worker and service processes, speaks for them
to the factory, and knows why one of them died. What should run is decided in
`core.supervision`; how it is done to the computer stands in ``node/``.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, replace
from typing import Any

from opencluster.config import CatalogueEntry, Config
from opencluster.core.registry import Entry
from opencluster.core.supervision import (
    Effect,
    KillProcess,
    ReportRecovery,
    ReportStartFailure,
    StartProcess,
    Supervision,
    TerminateProcess,
)
from opencluster.errors import (
    DeathEvidence,
    RemoteProtocolError,
    RequestRefused,
    StartFailed,
)
from opencluster.net.link import FactoryLink
from opencluster.net.reactor import Reactor
from opencluster.net.requests import answer
from opencluster.net.transport import Peer, PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport, ipc_endpoint
from opencluster.node.bench import Bench, Death
from opencluster.node.cgroup import Cgroups
from opencluster.node.gpus import GpuTable, probe, visible
from opencluster.node.handover import WORKSHOP_VARIABLE
from opencluster.node.host import host_id, host_name
from opencluster.node.measure import Measurer
from opencluster.node.process import sweep_orphans
from opencluster.place import Place, factories, listening_endpoint
from opencluster.wire import frames, kinds

log = logging.getLogger(__name__)

READY_FILE = "workshop.ready"
"""Appears among the sockets when the workshop has found a factory."""
EAGER_POLL_S = 0.02
"""How often scoreboards are read while a process is starting."""


class Workshop:
    """Runs the processes of one computer.

    Parameters
    ----------
    config : Config
        The settings and the catalogue of what may run here.
    place : Place
        The cluster's directory.
    """

    def __init__(self, config: Config, place: Place) -> None:
        self.config = config
        self.place = place
        self.name = config.workshop.name or host_name()
        self.id = uuid.uuid4().hex
        network, limits = config.network, config.workshop
        place.make()
        swept = sweep_orphans(WORKSHOP_VARIABLE, str(place.path))
        if swept:
            log.warning("ended %d processes left by an earlier workshop", len(swept))
        self._transport = ZmqTransport(
            network.max_message_bytes, network.zmtp_heartbeat_s, network.zmtp_timeout_s
        )
        self.endpoints = self._listen()
        self._reactor = Reactor(self._transport, self._event)
        self._link = FactoryLink(
            self._reactor,
            lambda: factories(config, place),
            config.factory.request_timeout_s,
            on_up=lambda hello: self._register_all(),
        )
        self._supervision = Supervision(
            limits.restart_delay_s,
            limits.restart_delay_max_s,
            limits.failing_after,
            config.worker.drain_timeout_s + limits.stop_grace_s,
        )
        self._catalogue = {entry.type: entry for entry in config.catalogue}
        gpus = visible(probe(), os.environ)
        self._gpus = GpuTable([gpu.uuid for gpu in gpus])
        self._cgroups = Cgroups.detect(place.digest)
        self._measurer = Measurer()
        self._benches: dict[str, Bench] = {}
        self._failures: dict[str, Entry] = {}
        self._awaited: dict[str, Future[Any]] = {}
        self._is_stopping = False
        self._handlers = {
            "status": self._status,
            "start": self._start,
            "scale": self._scale,
            "stop": self._stop,
            "restart": self._restart,
            "enforce": self._enforce,
        }

    # --- life ----------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop`; returns when every process has ended."""
        settings = self.config
        log.info("workshop %s at %s", self.name, ", ".join(self.endpoints))
        self._reactor.every(settings.cluster.heartbeat_interval_s, self._heartbeat)
        self._reactor.after(EAGER_POLL_S, self._poll)
        now = time.monotonic()
        for entry in self._catalogue.values():
            self._do(self._supervision.want(now, entry.type, entry.count))
        self._reactor.run()
        if self._cgroups is not None:
            self._cgroups.close()

    def stop(self) -> None:
        """End all processes, then make `run` return; safe in a signal handler."""
        self._reactor.post(self._begin_to_stop)

    def end_with(self, pidfd: int) -> None:
        """Stop when the process that a file descriptor stands for has ended."""

        def ended() -> None:
            self._reactor.unwatch(pidfd)
            self._begin_to_stop()

        self._reactor.watch(pidfd, ended)

    def _listen(self) -> list[str]:
        local = ipc_endpoint(self.place.sockets, f"shop-{self.id[:12]}")
        endpoints = [self._transport.listen(local)]
        if self.config.cluster.factories:
            tcp = listening_endpoint(self.config, "*", 0)
            endpoints.append(self._transport.listen(tcp))
        return endpoints

    def _begin_to_stop(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._do(self._supervision.stop_all(time.monotonic()))
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        if self._is_stopping and not self._benches:
            gone = self._link.request("deregister", {"id": self.id}, 1.0)
            gone.add_done_callback(lambda _: self._reactor.stop())

    # --- what others ask -----------------------------------------------------

    def _status(self, peer: Peer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        catalogue = [
            {"type": e.type, "kind": e.kind, "count": self._supervision.count(e.type)}
            for e in self._catalogue.values()
        ]
        return {"name": self.name, "pid": os.getpid(), "catalogue": catalogue}

    def _start(self, peer: Peer, arguments: Mapping[str, Any]) -> Future[Any]:
        """Start more processes of a type; answered when they are ready or failed."""
        entry = CatalogueEntry(**arguments["entry"])
        known = self._catalogue.get(entry.type)
        self._catalogue[entry.type] = replace(entry, count=known.count if known else 0)
        count = self._supervision.count(entry.type) + int(arguments["count"])
        return self._grow(entry.type, count)

    def _scale(self, peer: Peer, arguments: Mapping[str, Any]) -> Future[Any]:
        """Set how many processes of a type run."""
        type = arguments["type"]
        if type not in self._catalogue:
            known = ", ".join(self._catalogue) or "nothing"
            raise RequestRefused(
                f"{type!r} is not in the catalogue of {self.name} (which has {known})"
            )
        return self._grow(type, int(arguments["count"]))

    def _grow(self, type: str, count: int) -> Future[Any]:
        if self._is_stopping:
            raise RequestRefused(f"workshop {self.name} is stopping")
        before = {slot.name for slot in self._supervision.slots()}
        effects = self._supervision.want(time.monotonic(), type, count)
        new = [s.name for s in self._supervision.slots() if s.name not in before]
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        for name in new:
            self._awaited[name] = future
        self._do(effects)
        if not new:
            future.set_result({"names": []})
        return future

    def _stop(self, peer: Peer, arguments: Mapping[str, Any]) -> None:
        slot = self._slot_of(arguments["name"])
        self._do(self._supervision.stop(time.monotonic(), slot))

    def _restart(self, peer: Peer, arguments: Mapping[str, Any]) -> None:
        slot = self._slot_of(arguments["name"])
        self._do(self._supervision.restart(time.monotonic(), slot))

    def _enforce(self, peer: Peer, arguments: Mapping[str, Any]) -> bool:
        """End a worker that ignores the interrupt of the piece that it still runs."""
        bench = self._benches.get(self._slot_of(arguments["worker"]))
        now = time.monotonic()
        reason = "was interrupted and did not stop"
        return bench is not None and bench.enforce(now, arguments["piece"], reason)

    def _slot_of(self, name: str) -> str:
        for slot, bench in self._benches.items():
            if name in (slot, bench.worker_id):
                return slot
        known = ", ".join(sorted(self._benches)) or "nothing"
        raise RequestRefused(f"nothing named {name!r} runs here ({known} does)")

    # --- events --------------------------------------------------------------

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            self._link.peer_lost(event.peer)
        if not isinstance(event, Received):
            return
        try:
            fields = frames.unpack(event.header)
            if fields[0] == kinds.REQUEST and len(fields) == 4:
                answer(self._reactor, event.peer, fields, self._handlers)
            elif not self._link.received(event.peer, fields):
                raise RemoteProtocolError(f"a workshop takes no {fields[0]!r} message")
        except RemoteProtocolError as error:
            self._transport.counts.rejected_messages += 1
            log.warning("rejected a message: %s", error)

    def _poll(self) -> None:
        """Read every scoreboard, and do what the time has brought."""
        now = time.monotonic()
        try:
            for name, bench in list(self._benches.items()):
                if bench.poll(now):
                    self._registered(now, name, bench)
            self._do(self._supervision.tick(now))
        finally:
            self._reactor.after(self._poll_delay_s(now), self._poll)

    def _poll_delay_s(self, now: float) -> float:
        if any(bench.entry is None for bench in self._benches.values()):
            return EAGER_POLL_S
        at = self._supervision.next_time()
        delay_s = self.config.workshop.poll_interval_s
        return delay_s if at is None else min(delay_s, max(EAGER_POLL_S, at - now))

    def _registered(self, now: float, name: str, bench: Bench) -> None:
        assert bench.entry is not None
        self._send_entries([bench.entry])
        self._do(self._supervision.registered(now, name))
        future = self._awaited.pop(name, None)
        if future is None or future in self._awaited.values() or future.done():
            return
        future.set_result({"names": [name]})

    def _exited(self, name: str) -> None:
        bench = self._benches[name]
        death = bench.end()
        if death is None:
            return
        self._reactor.unwatch(bench.process.pidfd)
        self._reactor.unwatch(bench.process.output_fd)
        del self._benches[name]
        bench.close()
        self._gpus.release(name)
        log.info("%s (pid %d): %s", name, bench.process.pid, death.evidence.reason)
        if bench.entry is not None:
            arguments = {"id": bench.entry.id, "cause": asdict(death.evidence)}
            self._link.request("deregister", arguments)
        self._ended(name, death)

    def _ended(self, name: str, death: Death) -> None:
        effects = self._supervision.exited(time.monotonic(), name, death.is_recycled)
        for effect in effects:
            if isinstance(effect, ReportStartFailure):
                self._report_failure(effect, death.evidence)
        self._do(effects)
        self._end_if_empty()

    # --- effects -------------------------------------------------------------

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case StartProcess(slot):
                    self._start_process(slot)
                case TerminateProcess(slot):
                    self._signal(slot, signal.SIGTERM)
                case KillProcess(slot):
                    self._signal(slot, signal.SIGKILL)
                case ReportRecovery(type):
                    failure = self._failures.pop(type, None)
                    if failure is not None:
                        self._link.request("deregister", {"id": failure.id})

    def _start_process(self, name: str) -> None:
        type = next(s.type for s in self._supervision.slots() if s.name == name)
        entry = self._catalogue[type]
        self._supervision.started(name)
        gpus = self._gpus.lease(name, entry.gpus) if entry.gpus else []
        if gpus is None:
            free = len(self._gpus.free())
            reason = f"it needs {entry.gpus} GPUs, and {free} are free here"
            self._ended(name, Death(DeathEvidence(reason), is_recycled=False))
            return
        bench = self._benches[name] = Bench(
            name,
            entry,
            self.config,
            self.place.sockets,
            self.place.logs,
            self.id,
            str(self.place.path),
            self._cgroups,
        )
        try:
            bench.start(gpus if self._gpus.uuids else None)
        except StartFailed as error:
            del self._benches[name]
            self._gpus.release(name)
            self._ended(name, Death(DeathEvidence(str(error)), is_recycled=False))
            return
        self._reactor.watch(bench.process.pidfd, lambda: self._exited(name))
        self._reactor.watch(bench.process.output_fd, lambda: self._pump(name))

    def _pump(self, name: str) -> None:
        bench = self._benches[name]
        if not bench.pump():
            self._reactor.unwatch(bench.process.output_fd)

    def _signal(self, name: str, number: signal.Signals) -> None:
        bench = self._benches.get(name)
        if bench is not None:
            bench.asked_to_end(number)

    def _report_failure(
        self, effect: ReportStartFailure, evidence: DeathEvidence
    ) -> None:
        message = f"{effect.slot} did not start on {self.name}: {evidence.reason}"
        log.error("%s\n%s", message, evidence.output)
        entry = Entry(
            id=f"failure:{self.id}:{effect.type}",
            kind="failure",
            type=effect.type,
            name=effect.slot,
            host=host_name(),
            host_id=host_id(),
            workshop=self.id,
            attributes={
                "message": message,
                "output": evidence.output,
                "failures": effect.failures,
                "is_failing": effect.is_failing,
            },
        )
        self._failures[effect.type] = entry
        self._send_entries([entry])
        future = self._awaited.pop(effect.slot, None)
        if future is not None and not future.done():
            future.set_exception(StartFailed(message, evidence.output))

    # --- the registry --------------------------------------------------------

    def _entry(self) -> Entry:
        types = {entry.type: entry.kind for entry in self._catalogue.values()}
        return Entry(
            id=self.id,
            kind="workshop",
            name=self.name,
            host=host_name(),
            host_id=host_id(),
            pid=os.getpid(),
            endpoints=tuple(self.endpoints),
            attributes={"catalogue": types},
        )

    def _entries(self) -> dict[str, Entry]:
        here = [b.entry for b in self._benches.values() if b.entry is not None]
        entries = [self._entry(), *here, *self._failures.values()]
        return {entry.id: entry for entry in entries}

    def _register_all(self) -> None:
        self._send_entries(list(self._entries().values()))
        (self.place.sockets / READY_FILE).touch()

    def _send_entries(self, entries: list[Entry]) -> None:
        if entries and self._link.is_up:
            fields = [entry.to_fields() for entry in entries]
            self._link.request("register", {"entries": fields})

    def _heartbeat(self) -> None:
        if not self._link.is_up:
            return
        gpus = [gpu.to_fields() for gpu in probe()] if self._gpus.uuids else []
        figures = {self.id: self._measurer.sample() | {"gpus": gpus}}
        for bench in self._benches.values():
            if bench.entry is not None:
                figures[bench.entry.id] = bench.figures()
        arguments = {"ids": list(self._entries()), "figures": figures}
        self._link.request("renew", arguments).add_done_callback(self._renewed)

    def _renewed(self, asked: Future[Any]) -> None:
        if asked.exception() is not None:
            return
        entries = self._entries()
        unknown = [entries[i] for i in asked.result()["unknown"] if i in entries]
        self._send_entries(unknown)
