"""The workshop: the daemon of one computer.

It speaks for the computer and its processes to the factory, and does what operators
and managers ask. What should run is decided in `core.supervision`; how it is started,
limited, measured and ended stands in ``node/``.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from opencluster.config import CatalogueEntry, Config
from opencluster.core.bounds import Bounds
from opencluster.core.entries import Entry
from opencluster.core.metrics import Labels, Metric, one, rejected
from opencluster.core.roles import ASKER, WORKSHOP, check
from opencluster.core.supervision import ReportStartFailure
from opencluster.errors import DeathEvidence, RemoteProtocolError, RequestRefused
from opencluster.net.announce import announced
from opencluster.net.keys import Keyring
from opencluster.net.link import FactoryLink
from opencluster.net.metronome import Metronome
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED, Rejections
from opencluster.net.requests import Caller, Handler, answer
from opencluster.net.transport import PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport, ipc_endpoint
from opencluster.node.claim import Claim
from opencluster.node.floor import EAGER_POLL_S, Floor
from opencluster.node.gpus import Gpu, probe
from opencluster.node.host import host_id, host_name
from opencluster.node.log_reading import BYTES_OF_PASSAGE, passages, read_question
from opencluster.node.measure import Measurer
from opencluster.node.metrics import of_computer, of_processes
from opencluster.node.notify import Notifier
from opencluster.node.orders import read_count, read_entry
from opencluster.place import Place, factories, keys_directory, listening_endpoint
from opencluster.registration import unknown_in
from opencluster.store import job_records, letter_reading
from opencluster.store.dead_letters import DeadLetters
from opencluster.wire import figures, frames, kinds

log = logging.getLogger(__name__)

ANSWERED_HEARTBEATS = 3
"""Each such heartbeat is answered, so that a factory that hangs is noticed; the others
are answered only when something is amiss, which spares a factory of many workshops."""
JOB_BYTES = 1000
"""What a job takes in an answer, at most."""
READY_FILE = "workshop.ready"
"""Appears among the sockets when the workshop stands in the registry."""


class Workshop:
    """Runs the processes of one computer.

    Parameters
    ----------
    config : Config
        The settings and the catalogue of what may run here.
    place : Place
        The cluster's directory.

    Raises
    ------
    OpenClusterError
        When another workshop runs here.
    """

    def __init__(self, config: Config, place: Place) -> None:
        self.config = config
        self.place = place
        self.name = config.workshop.name or host_name()
        self.id = uuid.uuid4().hex
        network, limits = config.network, config.limits
        keys = Keyring.load(keys_directory(config, place), WORKSHOP)
        wanted = self._wanted(has_keys=keys is not None)
        place.make()
        # before anything else: what marks our processes marks those of another too
        self._claim = Claim(place.path, self.id)
        self._transport = ZmqTransport(
            min(network.max_message_bytes, limits.max_request_bytes),
            network.zmtp_heartbeat_s,
            network.zmtp_timeout_s,
            keys,
            limits.max_queued_messages,
        )
        self.endpoints = [
            announced(
                self._transport.listen(endpoint),
                network.announce,
                factories(config, place),
            )
            for endpoint in wanted
        ]
        self._reactor = Reactor(self._transport, self._event)
        self._rejections = Rejections(self._transport.counts, log)
        self._link = FactoryLink(
            self._reactor,
            lambda: factories(config, place),
            config.factory.request_timeout_s,
            on_up=lambda hello: self._leader_found(),
            on_forgotten=self._register_forgotten,
            patience_s=config.factory.leader_timeout_s,
            keys=keys,
        )
        self._floor = Floor(
            config,
            self.id,
            place.sockets,
            place.logs,
            str(place.path),
            place.digest,
            self,
            self._reactor.watch,
            self._reactor.unwatch,
        )
        self._claim.clear(place.sockets)
        self._measurer = Measurer()
        self._failures: dict[str, Entry] = {}
        self._deaths: Counter[str] = Counter()
        self._heartbeats = 0
        self._metronome = Metronome(
            self._reactor,
            config.cluster.heartbeat_interval_s,
            config.cluster.lease_s,
            self._heartbeat,
        )
        self._is_registered = False
        self._handlers = {
            "status": self._status,
            "start": self._start,
            "scale": self._scale,
            "stop": self._stop,
            "restart": self._restart,
            "kill": self._kill,
            "drain": self._drain,
            "undrain": self._undrain,
            "enforce": self._enforce,
            "logs": self._logs,
            "jobs": self._jobs,
            **self._letters(),
        }

    # --- life ----------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop`; returns when every process has ended."""
        log.info("workshop %s at %s", self.name, ", ".join(self.endpoints))
        self._metronome.start()
        if self.place.drained.exists():
            log.warning("drained before: nothing starts until `opencluster undrain`")
            self._floor.drain()
        self._reactor.after(EAGER_POLL_S, self._poll)
        self._floor.open()
        self._reactor.run()
        self._floor.close()
        self._claim.release()

    def stop(self) -> None:
        """End all processes, then make `run` return; safe in a signal handler."""
        self._reactor.post(self._stop_all)

    def end_with(self, pidfd: int) -> None:
        """Stop when the process that a file descriptor stands for has ended."""

        def ended() -> None:
            self._reactor.unwatch(pidfd)
            self._stop_all()

        self._reactor.watch(pidfd, ended)

    def _stop_all(self) -> None:
        self._floor.stop_all()
        if not self._floor.is_empty:
            # who has values here need not wait until each of its workers says so
            self._register([self._entry()])

    def report_to(self, notifier: Notifier) -> None:
        """Tell the service manager when it is ready, and that it lives."""
        self._reactor.post(notifier.ready)
        if notifier.interval_s:
            self._reactor.every(notifier.interval_s, notifier.alive)

    def _wanted(self, has_keys: bool) -> list[str]:
        """Return where to listen."""
        wanted = [ipc_endpoint(self.place.sockets, f"shop-{self.id[:12]}")]
        if self.config.cluster.factories:
            wanted.append(listening_endpoint(self.config, "*", 0, has_keys))
        return wanted

    def _poll(self) -> None:
        delay_s = EAGER_POLL_S
        try:
            delay_s = self._floor.poll()
        finally:
            self._reactor.after(delay_s, self._poll)

    # --- how it is doing -------------------------------------------------------

    def metrics(self) -> list[Metric]:
        """Return numbers by which it is watched; call it from its loop, see `post`."""
        entries = {entry.id: entry for entry in self._floor.entries()}
        processes: dict[Labels, Mapping[str, Any]] = {
            (("type", entries[i].type), ("name", entries[i].name)): own
            for i, own in self._floor.figures().items()
            if i in entries
        }
        return [
            *of_computer(self._measurer.sample(), self._gpus()),
            *of_processes(processes),
            Metric(
                "deaths_total",
                "Processes that ended unasked since the workshop began.",
                [((("type", type),), n) for type, n in self._deaths.items()],
            ),
            one("types_failing", "Types that do not start.", len(self._failures)),
            *rejected(self._transport.counts.to_fields()),
        ]

    def post(self, callback: Callable[[], None]) -> None:
        """Have a callback run in its loop."""
        self._reactor.post(callback)

    def _gpus(self) -> Sequence[Gpu]:
        return probe() if self._floor.gpus.uuids else []

    # --- what others ask -----------------------------------------------------

    def _status(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        catalogue = [
            {
                "name": entry.name,
                "type": entry.type,
                "kind": entry.kind,
                "count": self._floor.count(entry.name),
            }
            for entry in self._floor.catalogue.values()
        ]
        return {
            "name": self.name,
            "pid": os.getpid(),
            "catalogue": catalogue,
            "is_drained": self._floor.is_drained,
            "is_empty": self._floor.is_empty,
        }

    def _start(self, caller: Caller, arguments: Mapping[str, Any]) -> Future[Any]:
        entry = read_entry(arguments["entry"])
        self._check_room(entry)
        started = self._floor.add(entry, read_count(arguments["count"]))
        # the catalogue may have grown, and stands in the registry
        self._register([self._entry()])
        return started

    def _check_room(self, entry: CatalogueEntry) -> None:
        """Refuse what would make the catalogue so large that no factory takes it."""
        catalogue = self._floor.catalogue | {entry.name: entry}
        limits = self.config.limits
        if len(catalogue) > limits.max_types:
            raise RequestRefused(
                f"the catalogue of this workshop is full ({limits.max_types} types); "
                "raise [limits] max_types, or use a name that is in it already"
            )
        bounds = Bounds(limits.max_text, limits.max_entry_bytes)
        Entry.from_fields(self._entry(catalogue).to_fields(), bounds)

    def _scale(self, caller: Caller, arguments: Mapping[str, Any]) -> Future[Any]:
        return self._floor.scale(arguments["type"], read_count(arguments["count"]))

    def _stop(self, caller: Caller, arguments: Mapping[str, Any]) -> None:
        self._floor.stop(arguments["name"])

    def _restart(self, caller: Caller, arguments: Mapping[str, Any]) -> None:
        self._floor.restart(arguments["name"])

    def _kill(self, caller: Caller, arguments: Mapping[str, Any]) -> None:
        self._floor.kill(arguments["name"])

    def _drain(self, caller: Caller, arguments: Mapping[str, Any]) -> None:
        """Start nothing any more, even after a restart of this computer."""
        self.place.drained.touch()
        log.warning("drained: what runs comes to its end, and nothing is started")
        self._floor.drain()
        self._register([self._entry()])

    def _undrain(self, caller: Caller, arguments: Mapping[str, Any]) -> None:
        self.place.drained.unlink(missing_ok=True)
        log.warning("no longer drained")
        self._floor.resume()
        self._register([self._entry()])

    def _enforce(self, caller: Caller, arguments: Mapping[str, Any]) -> bool:
        return self._floor.enforce(arguments["worker"], arguments["piece"])

    def _logs(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        wanted, lines, positions, names = read_question(arguments)
        found = passages(self.place.logs, wanted, lines, positions, names)
        left = self.config.limits.max_request_bytes // 2
        answer = []
        for passage in found:
            left -= sum(map(len, passage.lines)) + BYTES_OF_PASSAGE
            if left < 0:
                # the next look begins where this one ended
                break
            answer.append(passage.to_fields())
        errors = self._floor.last_errors(names)
        return {
            "host": host_name(),
            "logs": answer,
            "errors": {name: error.to_fields() for name, error in errors.items()},
        }

    def _jobs(self, caller: Caller, arguments: Mapping[str, Any]) -> dict[str, Any]:
        room = self.config.limits.max_request_bytes // 2
        most = max(1, room // JOB_BYTES)
        return job_records.answer(self.place.jobs, arguments, most, room)

    def _letters(self) -> dict[str, Handler]:
        """Return what can be asked about dead letters."""
        kept = DeadLetters(self.place.letters)
        most = self.config.limits.max_request_bytes // 2
        return {
            "letters": lambda _, asked: letter_reading.letters(kept, asked, most),
            "letter_work": lambda _, asked: letter_reading.work(kept, asked, most),
            "delete_letter": lambda _, asked: letter_reading.delete(kept, asked),
        }

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            self._link.peer_lost(event.peer)
        if not isinstance(event, Received):
            return
        try:
            fields = frames.unpack(event.header, self.config.limits.max_nesting)
            if fields[0] == kinds.REQUEST and len(fields) == 4:
                caller = Caller(event.peer, event.who)
                answer(self._reactor, WORKSHOP, caller, fields, self._handlers)
                return
            check(ASKER, fields[0], event.who)
            if not self._link.received(event.peer, fields):
                raise RemoteProtocolError(f"a workshop takes no {fields[0]!r} message")
        except MALFORMED as error:
            self._rejections.note(error)

    # --- what happens on the floor -------------------------------------------

    def process_ready(self, entry: Entry) -> None:
        """Register a process that is ready for work."""
        self._register([entry])

    def process_died(self, entry: Entry, evidence: DeathEvidence) -> None:
        """Take a process out of the registry, with the cause of its end."""
        self._deaths[entry.type] += 1
        arguments = {"id": entry.id, "cause": asdict(evidence)}
        self._link.request("deregister", arguments)

    def start_failed(self, failure: ReportStartFailure, death: DeathEvidence) -> None:
        """Tell everyone that a process ended before it was ready, and why."""
        message = f"{failure.slot} did not start on {self.name}: {death.reason}"
        log.error("%s\n%s", message, death.output)
        catalogued = self._floor.catalogue[failure.type]
        entry = Entry(
            id=f"failure:{self.id}:{failure.type}",
            kind="failure",
            type=catalogued.type,
            name=failure.slot,
            host=host_name(),
            host_id=host_id(),
            workshop=self.id,
            attributes={
                "of_kind": catalogued.kind,
                "message": message,
                "output": death.output,
                "failures": failure.failures,
                "is_failing": failure.is_failing,
            },
        )
        self._failures[failure.type] = entry
        self._register([entry])

    def start_recovered(self, name: str) -> None:
        """Take back what `start_failed` told."""
        failure = self._failures.pop(name, None)
        if failure is not None:
            self._link.request("deregister", {"id": failure.id})

    def floor_empty(self) -> None:
        """Say goodbye to the factory and end."""
        gone = self._link.request("deregister", {"id": self.id}, 1.0)
        gone.add_done_callback(lambda _: self._reactor.stop())

    # --- the registry --------------------------------------------------------

    def _entry(self, catalogue: Mapping[str, CatalogueEntry] | None = None) -> Entry:
        known = self._floor.catalogue if catalogue is None else catalogue
        types = {entry.type: entry.kind for entry in known.values()}
        return Entry(
            id=self.id,
            kind="workshop",
            name=self.name,
            host=host_name(),
            host_id=host_id(),
            pid=os.getpid(),
            endpoints=tuple(self.endpoints),
            attributes={
                "catalogue": types,
                "is_drained": self._floor.is_drained or self._floor.is_stopping,
            },
            public_key=self._transport.public_key,
        )

    def _entries(self) -> dict[str, Entry]:
        entries = [self._entry(), *self._floor.entries(), *self._failures.values()]
        return {entry.id: entry for entry in entries}

    def _leader_found(self) -> None:
        """Register with the first leader; those after it know us, or ask for it."""
        if self._is_registered:
            self._heartbeats = -1
            self._heartbeat()
        else:
            self._register_all()

    def _register_all(self) -> None:
        fields = [entry.to_fields() for entry in self._entries().values()]
        asked = self._link.request("register", {"entries": fields})
        asked.add_done_callback(self._all_registered)

    def _all_registered(self, asked: Future[Any]) -> None:
        self._registered(asked)
        if asked.exception() is None:
            self._is_registered = True
            (self.place.sockets / READY_FILE).touch()

    def _register(self, entries: list[Entry]) -> None:
        if entries and self._link.is_up:
            fields = [entry.to_fields() for entry in entries]
            asked = self._link.request("register", {"entries": fields})
            asked.add_done_callback(self._registered)

    def _registered(self, asked: Future[Any]) -> None:
        error = asked.exception()
        if error is not None:
            log.error("could not register: %.500s", error)

    def _heartbeat(self) -> None:
        if not self._link.is_up:
            return
        gpus = [gpu.to_fields() for gpu in self._gpus()]
        counts = self._transport.counts.to_fields()
        own: Mapping[str, Any] = self._measurer.sample() | counts | {"gpus": gpus}
        packed = figures.pack({self.id: own} | self._floor.figures())
        ids = list(self._entries())
        self._heartbeats += 1
        if self._heartbeats % ANSWERED_HEARTBEATS:
            self._link.tell(frames.pack(kinds.RENEW, ids, packed))
        else:
            arguments = {"ids": ids, "figures": packed}
            self._link.request("renew", arguments).add_done_callback(self._renewed)

    def _renewed(self, asked: Future[Any]) -> None:
        self._metronome.answered(asked)
        self._register_forgotten(unknown_in(asked))

    def _register_forgotten(self, ids: Sequence[str]) -> None:
        """Register what the factory does not know (any more)."""
        entries = self._entries()
        self._register([entries[i] for i in ids if i in entries])
