"""Workers come and go: what a manager makes of the registry and of its connections.

The registry says who is there; the connection says who answers. A worker gets pieces
when both hold. When a connection breaks, the workshop's word on what became of the
process is waited for a moment, since it names the cause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Protocol

from opencluster.core.dispatch import Dispatch, Effect
from opencluster.core.entries import Delta, Entry
from opencluster.core.piece_names import number_in
from opencluster.engines.base import WorkerInfo
from opencluster.engines.directory import Contact, Directory, dispatched_type
from opencluster.engines.unreached import Unreached
from opencluster.engines.verdicts import no_worker
from opencluster.errors import DeathEvidence, OpenClusterError, SecurityError
from opencluster.net.reactor import Reactor
from opencluster.net.requests import Requests
from opencluster.net.transport import Peer
from opencluster.node.host import host_id

log = logging.getLogger(__name__)

MAX_CONCURRENCY = 1024
"""A service that says that it answers more calls at a time is sent so many."""
EVIDENCE_WAIT_S = 2.0
"""After a connection broke: how long to wait for word of what became of the worker,"""
LONE_WAIT_S = 1.0
"""and where no workshop watches it, who could tell."""
ENFORCE_TIMEOUT_S = 5.0
"""How long a workshop may take to answer whether it ends a worker."""
LOOK_S = 1.0
"""How often it is looked whether workers are still expected that are waited for."""
RETRY_S = 1.0
"""After which a worker is tried again that does not let us in, or whose key is unknown:
the roll that says otherwise may be on its way."""


Runs = list[tuple[int, float]]
"""Pieces, and since when each ran."""


class Watcher(Protocol):
    """Is told of workers too."""

    def joined(self, contact: Contact) -> None:
        """Note that a worker is there."""

    def draining(self, contact: Contact) -> None:
        """Note that a worker will leave."""

    def lost(self, contact: Contact, why: str, is_process_death: bool) -> None:
        """Note that a worker is gone."""


class Roster:
    """Tells the dispatcher who joins, who drains and who is lost.

    Parameters
    ----------
    reactor : Reactor
        Whose thread all of this runs in, but for `wait_for`.
    dispatch : Dispatch
        What is told.
    do : callable
        Carries out the dispatcher's effects.
    identity : str
        How pieces of this process begin on scoreboards.

    Attributes
    ----------
    watcher : Watcher or None
        Is told before the dispatcher.
    unreached : Unreached
        Who does not answer.
    awaited : Counter of str
        How many wait for a worker of each type, with no piece for it yet.
    expected : collection of str
        Types of which workers will come, so that they are waited for.
    on_lost : callable or None
        Is told which runs were lost with a worker, since when they ran at most, and
        what the dispatcher decided.
    """

    def __init__(
        self,
        reactor: Reactor,
        dispatch: Dispatch,
        do: Callable[[Iterable[Effect]], None],
        identity: str,
    ) -> None:
        self.directory = Directory(reactor.transport)
        self.unreached = Unreached(reactor, self._is_missed)
        self._reactor = reactor
        self._dispatch = dispatch
        self._do = do
        self._identity = identity
        self._seen_types: set[str] = set()
        self._unmet: dict[str, Entry] = {}
        self._superseded: dict[str, Entry] = {}
        self._changed = threading.Condition()
        self.watcher: Watcher | None = None
        self.expected: Collection[str] = ()
        self.awaited: Counter[str] = Counter()
        self.on_lost: Callable[[Contact, Runs, list[Effect]], None] | None = None

    def wait_for(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the workers of a type, the least loaded first; from any thread.

        Raises
        ------
        NoSuitableWorker
            When none came within the time allowed.
        """
        deadline = _now() + wait_s
        with self._changed:
            while True:
                found = self.directory.joined(type)
                if found:
                    load = self._dispatch.load_of
                    return sorted(found, key=lambda worker: load(worker.id))
                failing = self.directory.failing(type)
                left_s = deadline - _now()
                is_hopeless = failing and type not in self._seen_types
                if type in self.expected:
                    # however long that takes; and if not, it is waited as for any
                    deadline, left_s = _now() + wait_s, LOOK_S
                elif is_hopeless or left_s <= 0:
                    types, unreached = self.directory.types(), self.unreached.of(type)
                    raise no_worker(type, failing, types, unreached)
                self.awaited[type] += 1
                try:
                    self._changed.wait(left_s)
                finally:
                    self.awaited[type] -= 1

    def ask_to_enforce(self, requests: Requests, worker: str, piece: int) -> None:
        """Ask the workshop of a worker to end it, if it still runs a piece of ours."""
        contact = self.directory.contacts.get(worker)
        shop = self.directory.workshops.get(contact.entry.workshop) if contact else None
        if shop is None:
            return
        try:
            peer = self.directory.connect_workshop(shop)
        except OpenClusterError as error:
            log.warning("cannot ask %.500s to end: %.500s", shop.name, error)
            return
        arguments = {"worker": worker, "piece": f"{self._identity}:{piece}"}
        requests.ask(peer, "enforce", arguments, ENFORCE_TIMEOUT_S)

    def registry_changed(self, delta: Delta) -> None:
        """Take in a change of the registry."""
        entry = delta.entry
        if entry is None:
            self._entry_gone(delta)
        elif entry.kind == "failure":
            self._type_fails(entry)
        elif entry.kind in ("worker", "service"):
            self._entry_here(entry)
        else:
            self.directory.workshops[entry.id] = entry
            if entry.attributes.get("is_drained"):
                self._computer_leaves(entry)
        self._notify()

    def _entry_here(self, entry: Entry) -> None:
        contact = self.directory.contacts.get(entry.id)
        if contact is not None:
            # it is new to a factory that was restarted, and not to us
            contact.entry, contact.is_registered = entry, True
        if entry.attributes.get("is_draining"):
            self._do(self._dispatch.worker_draining(_now(), entry.id))
            if contact is not None and self.watcher is not None:
                self.watcher.draining(contact)
        elif entry.id in self._unmet:
            self._unmet[entry.id] = entry
        elif contact is None:
            self._meet(entry)

    def _computer_leaves(self, shop: Entry) -> None:
        """Know that all workers of a computer leave, also those too busy to say so."""
        for contact in list(self.directory.contacts.values()):
            if contact.entry.workshop == shop.id:
                self._do(self._dispatch.worker_draining(_now(), contact.id))
                if self.watcher is not None:
                    self.watcher.draining(contact)

    def _meet(self, entry: Entry) -> None:
        self._superseded.pop(entry.id, None)
        is_new = self._unmet.pop(entry.id, None) is None
        try:
            self._make_way(entry)
            self.unreached.await_answer(self.directory.connect(entry))
        except OpenClusterError as error:
            is_refused = isinstance(error, SecurityError)
            # the sockets of a process that ends are gone a little before its entry
            may_be_ending = entry.host_id == host_id() and not is_refused
            if is_new != may_be_ending:
                log.warning("%.500s: %.500s", entry.name, error)
                self.unreached.keep(entry, f"{entry.name}: {error}")
            if is_refused or (may_be_ending and is_new):
                self._unmet[entry.id] = entry
                self._reactor.after(RETRY_S, lambda: self._meet_again(entry.id))

    def _meet_again(self, identity: str) -> None:
        entry = self._unmet.get(identity)
        if entry is not None:
            self._meet(entry)

    def _make_way(self, entry: Entry) -> None:
        """Give up who listened where somebody else does now: it must have ended.

        Raises
        ------
        SecurityError
            When it has proved by its key that it still listens there.
        """
        former = self.directory.predecessor(entry)
        if former is None:
            return
        if former.is_joined and former.entry.public_key != entry.public_key:
            raise SecurityError(
                f"it claims the address of {former.entry.name}, whose key proves that "
                "it still listens there"
            )
        if former.is_registered:
            # unless the registry is behind: see `succeeded`
            self._superseded[former.id] = former.entry
        former.is_registered = False
        evidence = DeathEvidence(f"{entry.name} has its address now")
        self._lose(former, evidence, False, None)

    def _entry_gone(self, delta: Delta) -> None:
        self.directory.workshops.pop(delta.id, None)
        self._unmet.pop(delta.id, None)
        self._superseded.pop(delta.id, None)
        self.unreached.over(delta.id)
        failure = self.directory.failures.pop(delta.id, None)
        if failure is not None:
            self._dispatch.type_recovered(dispatched_type(failure), failure.id)
        contact = self.directory.contacts.get(delta.id)
        if contact is None:
            return
        contact.is_registered = False
        cause = delta.cause
        if cause is not None and "peak_memory_bytes" in cause:
            evidence = DeathEvidence.from_fields(cause)
            is_service = contact.entry.kind == "service"
            # a service runs several calls and names none: all may have been running
            running = None if is_service else self._running(evidence)
            self._lose(contact, evidence, True, running)
        elif not contact.is_joined:
            self._lose(contact, DeathEvidence("it left"), False, None)

    def _running(self, evidence: DeathEvidence) -> int | None:
        """Return which of our pieces a dead worker was running, or -1 for none.

        ``None`` is for a crash while no piece was running. The first that it held is
        the suspect then: else a piece that crashes it a moment later runs for ever.
        """
        is_crash = evidence.exit_code != 0
        if is_crash and not evidence.piece:
            return None
        number = number_in(evidence.piece, self._identity)
        return -1 if number is None else number

    def _type_fails(self, entry: Entry) -> None:
        self.directory.failures[entry.id] = entry
        message = str(entry.attributes.get("message", ""))
        output = str(entry.attributes.get("output", ""))
        log.warning("%.500s", message)
        if entry.attributes.get("is_failing"):
            reason = f"{message}\n{output}"
            type = dispatched_type(entry)
            self._do(self._dispatch.type_failing(_now(), type, entry.id, reason))

    def connected(self, peer: Peer) -> None:
        """Take in a worker that answers."""
        contact = self.directory.by_peer.get(peer)
        if contact is None or contact.is_joined:
            return
        contact.is_joined = contact.has_joined = True
        self._seen_types.add(contact.type)
        entry = contact.entry
        self.unreached.over(entry.id)
        if self.watcher is not None:
            self.watcher.joined(contact)
        concurrency = concurrency_of(entry)
        self._do(
            self._dispatch.worker_joined(
                _now(), entry.id, contact.type, concurrency, entry.host_id
            )
        )
        self._notify()

    def disconnected(self, peer: Peer) -> None:
        """Send nothing more; the workshop may yet tell what became of the worker."""
        contact = self.directory.by_peer.get(peer)
        if contact is None:
            return
        if not contact.is_joined:
            if not contact.has_joined:
                self.unreached.refused(
                    contact, self._reactor.transport.refusal(contact.peer)
                )
                # libzmq does not ask again where it was refused
                self._reactor.after(RETRY_S, lambda: self._reopen(contact))
            return
        contact.is_joined = False
        self._do(self._dispatch.worker_draining(_now(), contact.id))
        evidence = DeathEvidence(self.unreached.why_broken(contact))
        has_workshop = contact.entry.workshop in self.directory.workshops
        wait_s = EVIDENCE_WAIT_S if has_workshop else LONE_WAIT_S
        self._reactor.after(wait_s, lambda: self._lose(contact, evidence, False, None))
        self._notify()

    def succeeded(self, contact: Contact, identity: str) -> None:
        """Give up a worker in whose place another one answers, if it is this one.

        A new leader of the factories may know of both, and tell of the one that ended
        last.
        """
        if contact.id != identity:
            return
        contact.is_registered = False
        evidence = DeathEvidence("another process has its address now")
        self._lose(contact, evidence, False, None)
        for entry in list(self._superseded.values()):
            if set(entry.endpoints) & set(contact.entry.endpoints):
                self._meet(entry)

    def _is_missed(self, contact: Contact) -> bool:
        """Return whether somebody stands in the registry and has not answered yet."""
        is_here = self.directory.contacts.get(contact.id) is contact
        return is_here and not contact.has_joined

    def _reopen(self, contact: Contact) -> None:
        """Open the connection anew to a worker that did not answer on the first."""
        if self._is_missed(contact):
            self.directory.forget(contact)
            self._meet(contact.entry)

    def _lose(
        self,
        contact: Contact,
        evidence: DeathEvidence,
        is_process_death: bool,
        running: int | None,
    ) -> None:
        if self.directory.contacts.get(contact.id) is not contact:
            return
        self.directory.forget(contact)
        entry = contact.entry
        evidence = replace(evidence, worker=entry.name, host=entry.host)
        if self.watcher is not None:
            self.watcher.lost(contact, evidence.reason, is_process_death)
        runs = self._dispatch.runs_at(contact.id, running)
        effects = self._dispatch.worker_lost(
            _now(), contact.id, evidence, is_process_death, running
        )
        if self.on_lost is not None:
            self.on_lost(contact, runs, effects)
        self._do(effects)
        self._notify()
        if contact.is_registered:
            # it still stands in the registry: take it back when it answers again
            self._entry_here(contact.entry)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def concurrency_of(entry: Entry) -> int:
    """Return how many pieces a process says that it runs at a time, 0 for one."""
    said = entry.attributes.get("concurrency", 0)
    return min(said, MAX_CONCURRENCY) if type(said) is int and said > 0 else 0


def _now() -> float:
    return time.monotonic()
