"""The processes of one workshop: what `core.supervision` decides, done to the computer.

Owns a `Bench` for each process that runs, the GPUs that they lease and the control
groups that hold them. Must not talk to anybody: what happens is told to a `Listener`.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from opencluster.config import CatalogueEntry, Config
from opencluster.core.entries import Entry
from opencluster.core.supervision import (
    Effect,
    KillProcess,
    ReportRecovery,
    ReportStartFailure,
    StartProcess,
    Supervision,
    TerminateProcess,
)
from opencluster.errors import DeathEvidence, RequestRefused, StartFailed
from opencluster.node.bench import Bench, Death
from opencluster.node.cgroup import Cgroups
from opencluster.node.gpus import GpuTable, probe, visible
from opencluster.node.handover import WORKSHOP_VARIABLE
from opencluster.node.orders import MAX_PROCESSES
from opencluster.node.process import sweep_orphans
from opencluster.node.scoreboard import LastError

log = logging.getLogger(__name__)

EAGER_POLL_S = 0.02
"""How often scoreboards are read while a process is starting."""


class Listener(Protocol):
    """Whoever wants to know what happens on the floor."""

    def process_ready(self, entry: Entry) -> None:
        """Take in a process that is ready for work."""

    def process_died(self, entry: Entry, evidence: DeathEvidence) -> None:
        """Take in the end of a process that had been ready."""

    def start_failed(self, failure: ReportStartFailure, death: DeathEvidence) -> None:
        """Take in the end of a process that never became ready."""

    def start_recovered(self, name: str) -> None:
        """Take in that processes start again that did not."""

    def floor_empty(self) -> None:
        """Take in that nothing runs any more, after `Floor.stop_all`."""


@dataclass(eq=False)
class _Launch:
    """Processes that somebody waits for."""

    slots: list[str]
    outcome: Future[Any] = field(default_factory=Future)


class Floor:
    """Runs the processes of one computer.

    Parameters
    ----------
    config : Config
        The settings, and the catalogue of what may run here.
    identity : str
        The workshop's identity.
    sockets, logs : Path
        Where scoreboards and log files go.
    marker : str
        What marks the processes of this workshop, the same after a restart of it.
    cgroup_name : str
        Name of the control group, likewise.
    listener : Listener
        Who is told what happens.
    watch, unwatch : callable
        Have a callback run when a file descriptor can be read, and no longer.
    """

    def __init__(
        self,
        config: Config,
        identity: str,
        sockets: Path,
        logs: Path,
        marker: str,
        cgroup_name: str,
        listener: Listener,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
    ) -> None:
        swept = sweep_orphans(WORKSHOP_VARIABLE, marker)
        if swept:
            log.warning("ended %d processes left by an earlier workshop", len(swept))
        limits = config.workshop
        self.catalogue = {entry.name: entry for entry in config.catalogue}
        self.gpus = GpuTable([gpu.uuid for gpu in visible(probe(), os.environ)])
        self.is_stopping = False
        self._config = config
        self._identity = identity
        self._sockets = sockets
        self._logs = logs
        self._marker = marker
        self._listener = listener
        self._watch = watch
        self._unwatch = unwatch
        self._cgroups = Cgroups.detect(cgroup_name)
        self._supervision = Supervision(
            limits.restart_delay_s,
            limits.restart_delay_max_s,
            limits.failing_after,
            config.worker.drain_timeout_s + limits.stop_grace_s,
            config.worker.hand_over_s,
        )
        self._benches: dict[str, Bench] = {}
        self._awaited: dict[str, _Launch] = {}
        self._given_up: list[str] = []

    # --- what is asked for ---------------------------------------------------

    def open(self) -> None:
        """Start what the catalogue says should run from the start."""
        for entry in self.catalogue.values():
            effects = self._supervision.want(time.monotonic(), entry.name, entry.count)
            self._do(effects)

    def add(self, entry: CatalogueEntry, count: int) -> Future[Any]:
        """Run more processes, of a kind that may be new to the catalogue.

        Returns
        -------
        Future
            The names, once all are ready; `StartFailed` when one ends before, and
            then none of them is left.
        """
        self._drop_given_up()
        wanted = self._supervision.count(entry.name) + count
        self._check(wanted)
        self._check_open()
        known = self.catalogue.get(entry.name)
        new = replace(entry, count=known.count if known else 0)
        self.catalogue[entry.name] = new
        launch = self._grow(entry.name, wanted)

        def give_up(done: Future[Any]) -> None:
            if done.exception() is None:
                return
            self._given_up += launch.slots
            # what does not start must not take the place of what did
            if known is not None and self.catalogue[entry.name] is new:
                self.catalogue[entry.name] = known

        launch.outcome.add_done_callback(give_up)
        return launch.outcome

    def scale(self, name: str, count: int) -> Future[Any]:
        """Set how many processes of a catalogue entry run.

        Returns
        -------
        Future
            As for `add`; but those that fail are started again and again.
        """
        self._drop_given_up()
        if count > self._supervision.count(name):
            self._check_open()
        return self._grow(name, count).outcome

    def _check(self, count: int) -> None:
        """Refuse to run so many processes of a kind, if that cannot be."""
        if self.is_stopping:
            raise RequestRefused("this workshop is stopping")
        if count > MAX_PROCESSES:
            raise RequestRefused(
                f"count: {count} processes of a kind are wanted, {MAX_PROCESSES} at "
                "most are started on request on one computer"
            )

    def _check_open(self) -> None:
        if self.is_drained:
            raise RequestRefused(
                "this computer is drained, so nothing starts on it until "
                "`opencluster undrain`"
            )

    def _grow(self, name: str, count: int) -> _Launch:
        self._check(count)
        if name not in self.catalogue:
            known = ", ".join(self.catalogue) or "nothing"
            raise RequestRefused(
                f"{name!r} is not in the catalogue (which has {known})"
            )
        before = {slot.name for slot in self._supervision.slots()}
        effects = self._supervision.want(time.monotonic(), name, count)
        new = [s.name for s in self._supervision.slots() if s.name not in before]
        launch = _Launch(new)
        launch.outcome.set_running_or_notify_cancel()
        self._awaited.update(dict.fromkeys(new, launch))
        self._do(effects)
        if not new:
            launch.outcome.set_result({"names": []})
        return launch

    def stop(self, name: str) -> None:
        """End one process for good."""
        self._do(self._supervision.stop(time.monotonic(), self._slot_of(name)))

    def restart(self, name: str) -> None:
        """End one process, and start another in its place."""
        self._do(self._supervision.restart(time.monotonic(), self._slot_of(name)))

    def enforce(self, name: str, piece: str) -> bool:
        """End a process that ignores the interrupt of the piece that it still runs."""
        bench = self._benches.get(self._slot_of(name))
        reason = "was interrupted and did not stop"
        return bench is not None and bench.enforce(time.monotonic(), piece, reason)

    def kill(self, name: str) -> None:
        """End one process without asking; another takes its place."""
        self._benches[self._slot_of(name)].condemn("was killed on request")

    @property
    def is_empty(self) -> bool:
        """Whether no process is left."""
        return not self._benches

    @property
    def is_drained(self) -> bool:
        """Whether nothing is started here."""
        return self._supervision.is_drained

    def drain(self) -> None:
        """End every process when it has done what it has in hand, and start none."""
        for slot in list(self._awaited):
            self._disappoint(slot, "this computer takes no more work: it is drained")
        self._do(self._supervision.drain(time.monotonic()))

    def resume(self) -> None:
        """Start again what is wanted, after `drain`."""
        self._do(self._supervision.resume(time.monotonic()))

    def stop_all(self) -> None:
        """End every process for good."""
        if not self.is_stopping:
            self.is_stopping = True
            self._do(self._supervision.stop_all(time.monotonic()))
        self._tell_if_empty()

    def close(self) -> None:
        """Release what the floor has, once it is empty."""
        if self._cgroups is not None:
            self._cgroups.close()

    # --- what is known -------------------------------------------------------

    def poll(self) -> float:
        """Read every scoreboard, do what the time has brought; return when to again."""
        now = time.monotonic()
        self._drop_given_up()
        for slot, bench in list(self._benches.items()):
            if bench.process.pidfd < 0:
                self._exited(slot)
        for name, bench in list(self._benches.items()):
            if self._is_ready(bench, now) and bench.entry is not None:
                self._listener.process_ready(bench.entry)
                self._do(self._supervision.registered(now, name))
                self._fulfil(name)
            if bench.is_handing_over:
                self._supervision.handing_over(name)
        self._do(self._supervision.tick(now))
        if any(bench.entry is None for bench in self._benches.values()):
            return EAGER_POLL_S
        at = self._supervision.next_time()
        delay_s = self._config.workshop.poll_interval_s
        return delay_s if at is None else min(delay_s, max(EAGER_POLL_S, at - now))

    def entries(self) -> list[Entry]:
        """Return the registry entries of the processes that are ready."""
        return [b.entry for b in self._benches.values() if b.entry is not None]

    def figures(self) -> dict[str, Mapping[str, Any]]:
        """Return what the heartbeat says about each of them, by identity."""
        ready = [b for b in self._benches.values() if b.entry is not None]
        return {bench.worker_id: bench.figures() for bench in ready}

    def last_errors(self, names: Collection[str]) -> dict[str, LastError]:
        """Return the pieces that failed last, by the names of those who ran them."""
        own = self._benches.values()
        found = {bench.name: bench.last_error for bench in own if bench.name in names}
        return {name: error for name, error in found.items() if error is not None}

    def count(self, name: str) -> int:
        """Return how many processes of a catalogue entry are wanted."""
        return self._supervision.count(name)

    # --- inside --------------------------------------------------------------

    def _slot_of(self, name: str) -> str:
        for slot, bench in self._benches.items():
            if name in (slot, bench.worker_id):
                return slot
        known = ", ".join(sorted(self._benches)) or "nothing"
        raise RequestRefused(f"nothing named {name!r} runs here ({known} does)")

    def _is_ready(self, bench: Bench, now: float) -> bool:
        """Look after one process; nothing wrong with it may harm the others."""
        try:
            return bench.poll(now)
        except Exception as error:
            log.debug("%s cannot be looked after", bench.name, exc_info=error)
            bench.condemn(f"what it tells makes no sense ({error!r})")
            return False

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case StartProcess(slot):
                    self._start(slot)
                case TerminateProcess(slot):
                    self._signal(slot, signal.SIGTERM)
                case KillProcess(slot):
                    self._signal(slot, signal.SIGKILL)
                case ReportRecovery(name):
                    self._listener.start_recovered(name)
        known = {slot.name for slot in self._supervision.slots()}
        for slot in self._awaited.keys() - known:
            self._disappoint(slot, "it was stopped before it was ready")

    def _start(self, slot: str) -> None:
        kind = next(s.type for s in self._supervision.slots() if s.name == slot)
        entry = self.catalogue[kind]
        self._supervision.started(slot)
        try:
            bench = self._new_bench(slot, entry)
        except (StartFailed, OSError) as error:
            self._not_started(slot, str(error))
            return
        except Exception as error:
            # whatever it was, the slot must not stay as if a process ran in it
            log.exception("%s cannot be started", slot)
            self._not_started(slot, repr(error))
            return
        self._benches[slot] = bench
        if bench.process.pidfd >= 0:
            self._watch(bench.process.pidfd, lambda: self._exited(slot))
        self._watch(bench.process.output_fd, lambda: self._pump(slot))

    def _new_bench(self, slot: str, entry: CatalogueEntry) -> Bench:
        gpus = self.gpus.lease(slot, entry.gpus) if entry.gpus else []
        if gpus is None:
            free = len(self.gpus.free())
            raise StartFailed(f"it needs {entry.gpus} GPUs, and {free} are free")
        bench = Bench(
            slot,
            entry,
            self._config,
            self._sockets,
            self._logs,
            self._identity,
            self._marker,
            self._cgroups,
        )
        bench.start(gpus if self.gpus.uuids else None)
        return bench

    def _not_started(self, slot: str, reason: str) -> None:
        self.gpus.release(slot)
        self._ended(slot, Death(DeathEvidence(reason), is_recycled=False))

    def _pump(self, slot: str) -> None:
        bench = self._benches[slot]
        if not bench.pump():
            self._unwatch(bench.process.output_fd)

    def _signal(self, slot: str, number: signal.Signals) -> None:
        bench = self._benches.get(slot)
        if bench is not None:
            bench.asked_to_end(number)

    def _exited(self, slot: str) -> None:
        bench = self._benches[slot]
        death = bench.end()
        if death is None:
            return
        self._unwatch(bench.process.pidfd)
        self._unwatch(bench.process.output_fd)
        del self._benches[slot]
        log.info("%s (pid %d): %s", slot, bench.process.pid, death.evidence.reason)
        bench.close()
        self.gpus.release(slot)
        if bench.entry is not None:
            self._listener.process_died(bench.entry, death.evidence)
        self._ended(slot, death)

    def _ended(self, slot: str, death: Death) -> None:
        effects = self._supervision.exited(time.monotonic(), slot, death.is_recycled)
        for effect in effects:
            if isinstance(effect, ReportStartFailure):
                self._listener.start_failed(effect, death.evidence)
                self._disappoint(slot, death.evidence.reason, death.evidence.output)
        self._do(effects)
        self._tell_if_empty()

    def _fulfil(self, slot: str) -> None:
        launch = self._awaited.pop(slot, None)
        if launch is None or launch in self._awaited.values():
            return
        if not launch.outcome.done():
            launch.outcome.set_result({"names": launch.slots})

    def _disappoint(self, slot: str, reason: str, output: str = "") -> None:
        launch = self._awaited.pop(slot, None)
        if launch is not None and not launch.outcome.done():
            error = StartFailed(f"{slot} did not start: {reason}", output)
            launch.outcome.set_exception(error)

    def _drop_given_up(self) -> None:
        """Try no longer to start what failed, when whoever asked for it was told."""
        slots, self._given_up = self._given_up, []
        for slot in slots:
            self._awaited.pop(slot, None)
            self._do(self._supervision.stop(time.monotonic(), slot))
            name = slot.rpartition("-")[0]
            if self._supervision.count(name) == 0:
                self._listener.start_recovered(name)

    def _tell_if_empty(self) -> None:
        if self.is_stopping and self.is_empty:
            self._listener.floor_empty()
