"""How a worker performs pieces: one after the other, in the main thread.

Whatever happens (a result, an exception, an interrupt, an exit) becomes an answer. Must
not know how pieces come in, nor how answers leave.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from opencluster.core.inbox import CUT_SHORT, INTERRUPT
from opencluster.inputs import Escaped, Inputs, Missing, Stopped
from opencluster.keeping import Wanted, owned
from opencluster.net.exchange import nbytes_of
from opencluster.references import DataRef
from opencluster.serving.arrivals import Work
from opencluster.serving.bundle import Then
from opencluster.serving.life import live
from opencluster.serving.member import Member
from opencluster.serving.outbox import Answer
from opencluster.serving.outcomes import (
    ERRORS,
    PROGRESS_INTERVAL_S,
    PieceInterrupt,
    checked,
    encoded,
    failure_of,
    last_error,
    status_of,
)
from opencluster.serving.signals import end_fork, handle_signals
from opencluster.serving.station import Station
from opencluster.serving.stops import Stops
from opencluster.tracing import Trace
from opencluster.wire import codec
from opencluster.wire.batches import members_in
from opencluster.workpiece import WorkPiece


class Performing(Protocol):
    """A worker, as its user wrote it."""

    log: logging.Logger

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Do one piece of work."""

    def startup(self) -> None:
        """Prepare the process."""

    def shutdown(self) -> None:
        """Tidy up."""


class Runner:
    """Performs the pieces of one worker.

    Parameters
    ----------
    worker : Performing
        Whose ``perform()`` is called.
    type : str
        The type of work that it registers.
    """

    def __init__(self, worker: Performing, type: str) -> None:
        self.worker = worker
        self.type = type
        self.attributes: Mapping[str, Any] = {}
        self._member = member = Member("worker", type)
        self._scoreboard = member.scoreboard
        settings = member.config.worker
        self._stops = stops = Stops(
            member.scoreboard,
            lambda: self._station.look(),
            lambda: self._station.drain(),
            None
            if member.has_workshop
            else settings.interrupt_grace_s + settings.kill_grace_s,
        )
        self._station = Station(
            member.config,
            member.kind,
            member.keys,
            member.registration,
            stops.flagged,
            stops.insisted,
            stops.left_alone,
            stops.asked_to_make_way,
        )
        self._max_bytes = member.config.network.max_message_bytes
        self._max_pieces = settings.max_pieces
        self._max_memory = settings.max_memory
        self._may_recycle = bool(settings.max_pieces or settings.max_memory)
        self._pieces_done = 0
        self._inputs: Inputs | None = None
        self._escaped = Escaped()
        self._reported_at = 0.0

    def run(self, host: str, port: int) -> None:
        """Serve until stopped."""
        live(self.worker, self, self._member, self._station, host, port)

    def piece_name(self) -> str:
        """Return the name of the piece that runs, if one does."""
        stops = self._stops
        return "" if stops.current is None else stops.name

    def handle_signals(self) -> None:
        """Let signals stop the piece that runs."""
        stops = self._stops
        handle_signals(stops.raise_here, stops.asked_to_end, stops.forked)

    def serve(self) -> None:
        """Perform what comes, until the station takes no more."""
        while (work := self._station.serve(self._scoreboard.idle)) is not None:
            self._run(work)
            self._stops.forget()
            if self._may_recycle and self._should_recycle():
                self._station.drain()

    def _should_recycle(self) -> bool:
        if self._max_pieces and self._pieces_done >= self._max_pieces:
            return True
        return bool(self._max_memory) and resident_bytes() > self._max_memory

    # --- for the worker, during a piece --------------------------------------

    def progress(self, done: float, total: float) -> None:
        """Note and report progress, and stop here when the piece should stop."""
        self._stops.check()
        self._scoreboard.progress(done, total)
        now, current = time.monotonic(), self._stops.current
        if current is not None and now - self._reported_at > PROGRESS_INTERVAL_S:
            self._reported_at = now
            self._station.report_progress(current, done, total)

    def is_interrupted(self) -> bool:
        """Return whether the piece should stop."""
        return self._stops.is_asked_to_stop()

    # --- what comes in -------------------------------------------------------

    def _run(self, work: Work) -> None:
        stops, started = self._stops, time.monotonic()
        stops.begin(work, started)
        self._scoreboard.started(stops.name, stops.deadline, started)
        self._reported_at = 0.0
        if stops.deadline:
            self._station.started(work)
        if work.waiting.members > 1:
            self._run_bundle(work, started)
            return
        if work.trace is None:
            status, value = self._perform(work.payload, work.buffers, work.wanted)
        else:
            status, value = self._traced(work, work.trace)
        if stops.has_seen_way:
            status, value = self._cut_short(started)
        if work.keep is not None and status == "done":
            box = [value]
            del value
            payload, buffers, status = self._keep(work, work.keep, box)
        else:
            payload, buffers, status = encoded(
                status, value, self._max_bytes, self._escaped
            )
            del value
        if self._inputs is not None:
            self._inputs.let_go()
            self._inputs = None
        elapsed_s = time.monotonic() - started
        stops.over()
        self._station.answer(work, Answer(status, payload, buffers, elapsed_s))
        if status != CUT_SHORT:
            self._count(status)
        if status in ERRORS:
            self._scoreboard.erred(last_error(stops.name, payload))
        if stops.deadline:
            # or the workshop would take it for overdue
            self._scoreboard.idle()

    def _run_bundle(self, work: Work, started: float) -> None:
        """Perform the pieces of a bundle, as long as nothing happens to one of them."""
        station, stops, now = self._station, self._stops, started
        bundle = station.bundles.begin(work.waiting, started)
        members = members_in(work.payload, work.buffers)
        for place, (payload, own) in enumerate(members):
            self._scoreboard.started_next(place)
            status, value = self._perform(payload, own, ())
            if stops.has_seen_way:
                status, value = self._cut_short(now)
            payload, buffers, status = encoded(
                status, value, self._max_bytes, self._escaped
            )
            del value
            if status != CUT_SHORT:
                self._count(status)
            if status in ERRORS:
                self._scoreboard.erred(last_error(f"{stops.name}{place}", payload))
            begun, now = now, time.monotonic()
            is_last = stops.flag is not None or stops.makes_way is not None
            is_last = is_last or station.is_ending
            is_last = is_last or (self._may_recycle and self._should_recycle())
            then = station.bundles.note(bundle, status, payload, buffers, now, is_last)
            if then is Then.NEXT:
                continue
            alone = stops.over()
            if then is Then.ALONE and alone is not None:
                station.answer(alone, Answer(status, payload, buffers, now - begun))
            return

    def _cut_short(self, started: float) -> tuple[str, Any]:
        """Return what came of a piece that stopped for a real-time piece."""
        self._stops.has_seen_way = False
        self.worker.log.info(
            "piece %s was cut short after %.3f s for a real-time piece; it waits again",
            self._stops.name,
            time.monotonic() - started,
        )
        return CUT_SHORT, None

    def _count(self, status: str) -> None:
        self._pieces_done += 1
        self._scoreboard.ended(failed=status not in ("done", "kept"))

    # --- one piece -----------------------------------------------------------

    def _traced(self, work: Work, trace: Trace) -> tuple[str, Any]:
        """Perform a piece, and trace that if this process traces anything."""
        data = (work.payload, work.buffers, work.wanted)
        tracing = self._member.tracing
        if tracing is None:
            return self._perform(*data)
        number = work.waiting.piece
        return tracing.performed(trace, self.type, number, lambda: self._perform(*data))

    def _perform(
        self, payload: bytes, buffers: Sequence[Any], wanted: Sequence[Wanted]
    ) -> tuple[str, Any]:
        stops = self._stops
        try:
            try:
                piece = self._decoded(payload, buffers, wanted)
                stops.is_performing = True
                result = self.worker.perform(piece)
            finally:
                stops.is_performing = False
                if stops.is_fork:
                    end_fork()
            return "done", checked(result)
        except PieceInterrupt as stop:
            return status_of(str(stop)), failure_of(stop)
        except Missing as missing:
            return "missing", missing.rows
        except BaseException as error:
            return "failed", failure_of(error)
        finally:
            stops.is_performing = False

    def _decoded(
        self, payload: bytes, buffers: Sequence[Any], wanted: Sequence[Wanted]
    ) -> Any:
        """Return the piece, with values in the place of its references."""
        if not wanted:
            return codec.decode(payload, buffers)
        self._inputs = Inputs(self._station.keeper, wanted, self._stops.is_asked)
        try:
            return self._inputs.decode(payload, buffers)
        except Stopped:
            flag = self._stops.flag
            raise PieceInterrupt(flag.reason if flag else INTERRUPT) from None

    def _keep(
        self, work: Work, id: bytes, box: list[Any]
    ) -> tuple[bytes, list[Any], str]:
        """Keep a result here, and return what is told of that instead of it."""
        refs: list[DataRef] = []
        try:
            payload, buffers = codec.encode(box[0], "result", refs)
        except Exception as error:
            return encoded("failed", failure_of(error), self._max_bytes)
        # so that nobody but who is to keep its memory refers to it
        box.clear()
        parts = owned(payload, buffers)
        keeper, manager = self._station.keeper, work.waiting.manager
        keeper.keep(manager, id, parts, lambda: self._stops.flag is not None)
        told = [id, nbytes_of(parts), refs]
        self._escaped.note(refs)
        return encoded("kept", told, self._max_bytes)


def resident_bytes() -> int:
    """Return the memory that is resident for this process alone, 0 if it is unknown.

    What it shares counts for nobody: it may lie in arrays that others made.
    """
    with contextlib.suppress(OSError):
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
        pages = int(resident) - int(shared)
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
