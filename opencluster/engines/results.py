"""What workers say of pieces: what came of them, how far they are, which come back.

Rows of messages become verdicts for the dispatcher, which decides what is over, and
outcomes for whoever submitted the pieces. For use while holding the reactor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opencluster.core.dispatch import Dispatch, Effect, EndPiece, Verdict
from opencluster.core.inbox import CUT_SHORT
from opencluster.engines.base import Job, Outcome
from opencluster.engines.bonds import Bonds
from opencluster.engines.directory import Contact
from opencluster.engines.endings import Endings
from opencluster.engines.roster import Runs
from opencluster.engines.tickets import Ticket
from opencluster.engines.timelines import Timelines
from opencluster.engines.values import Values
from opencluster.errors import PieceFailed, RemoteProtocolError
from opencluster.wire.batches import ResultRow, numbers_in, results_in

_VERDICTS = {
    "done": Verdict.DONE,
    "failed": Verdict.FAILED,
    "timeout": Verdict.TIMED_OUT,
    "interrupted": Verdict.INTERRUPTED,
    "cancelled": Verdict.CANCELLED,
    "kept": Verdict.DONE,
    "missing": Verdict.MISSING,
}
_ENDED_BY_ORDER = (Verdict.INTERRUPTED, Verdict.CANCELLED)
_OF_BONDS = ("kept", "missing")
"""What makes sense of pieces alone that are tied to values."""


class Results:
    """Takes in what the workers of one engine say of its pieces.

    Parameters
    ----------
    tickets : mapping of int to Ticket
        All pieces that are not over.
    dispatch : Dispatch
        Decides what a verdict leads to.
    do : callable
        Carries that out.
    endings : Endings
        Ends the pieces that are over.
    bonds : Bonds
        What ties some of them to values.
    values : Values
        What is known of these.
    timelines : Timelines
        Records every run.
    """

    def __init__(
        self,
        tickets: dict[int, Ticket],
        dispatch: Dispatch,
        do: Callable[[Iterable[Effect]], None],
        endings: Endings,
        bonds: Bonds,
        values: Values,
        timelines: Timelines,
    ) -> None:
        self._tickets = tickets
        self._dispatch = dispatch
        self._do = do
        self._endings = endings
        self._bonds = bonds
        self._values = values
        self._timelines = timelines

    def received(self, contact: Contact, rows: Any, buffers: Sequence[Any]) -> None:
        """Take in what came of pieces that a worker has run.

        Raises
        ------
        RemoteProtocolError, TypeError, IndexError
            When a row is malformed.
        """
        now = _now()
        if self._timelines.is_on:
            self._timelines.answered([row[4] for row in rows])
        for row, own in results_in(rows, buffers):
            payload = row.payload
            if isinstance(payload, list):
                self._bundle(contact, row, payload, own)
            elif row.status == "drained":
                self._do(self._dispatch.returned(now, contact.id, row.number))
            elif row.status == CUT_SHORT:
                self._cut_short(now, contact.id, row.number)
            else:
                self._piece(now, contact, row, payload, own)
        self._do(self._dispatch.assign(now))

    def returned(self, contact: Contact, numbers: Any) -> None:
        """Take back pieces that a worker has not begun.

        Raises
        ------
        RemoteProtocolError
            When that is no list of numbers.
        """
        for number in numbers_in(numbers):
            self._do(self._dispatch.returned(_now(), contact.id, number))
        self._do(self._dispatch.assign(_now()))

    def progress(self, number: Any, done: Any, total: Any) -> None:
        """Pass on how far a piece is.

        Raises
        ------
        RemoteProtocolError
            When these are no numbers.
        """
        if (type(number), type(done), type(total)) != (int, float, float):
            raise RemoteProtocolError("a message of progress is malformed")
        ticket = self._tickets.get(number)
        if ticket is not None and ticket.options.on_progress is not None:
            ticket.options.on_progress(done, total)

    def runs_lost(self, contact: Contact, runs: Runs, effects: list[Effect]) -> None:
        """Record what a worker ran that is gone, given what the dispatcher decided."""
        ends = {e.piece.id: e.verdict for e in effects if isinstance(e, EndPiece)}
        for number, since in runs:
            job = self._recorded_job(number)
            if job is None:
                continue
            elapsed_s, verdict = _now() - since, ends.get(number)
            self._timelines.answered([elapsed_s])
            status = "cancelled" if verdict in _ENDED_BY_ORDER else "lost"
            is_retried = verdict is None
            self._timelines.span(
                job, contact, number, status, elapsed_s, is_retried=is_retried
            )

    # --- inside --------------------------------------------------------------

    def _recorded_job(self, number: int) -> Job | None:
        """Return in whose record a run of a piece is to stand."""
        ticket = self._tickets.get(number) if self._timelines.is_on else None
        return None if ticket is None else ticket.job

    def _piece(
        self,
        now: float,
        contact: Contact,
        row: ResultRow,
        payload: bytes,
        buffers: Sequence[Any],
    ) -> None:
        number, status, _, _, elapsed_s = row
        # of a status that this version does not know we know that it is no result
        verdict = _VERDICTS.get(status, Verdict.FAILED)
        if status in _OF_BONDS and number not in self._bonds:
            verdict = Verdict.FAILED
        effects = self._dispatch.finished(now, contact.id, number, verdict, elapsed_s)
        job = self._recorded_job(number)
        if job is not None:
            self._timelines.span(
                job, contact, number, status, elapsed_s, is_retried=not effects
            )
        for effect in effects:
            if isinstance(effect, EndPiece):
                name = contact.entry.name
                outcome = Outcome(payload, buffers, None, elapsed_s, name)
                self._deliver(effect, outcome, contact)
        if not effects and status == "kept":
            self._values.unwanted(contact, payload)

    def _deliver(self, end: EndPiece, outcome: Outcome, contact: Contact) -> None:
        number = end.piece.id
        is_bound = bool(self._bonds) and number in self._bonds
        try:
            if end.verdict is Verdict.MISSING and is_bound:
                if end.piece.interrupted_at is None:
                    self._bonds.not_found(number, outcome.payload)
                    return
            elif end.verdict is Verdict.DONE and is_bound:
                outcome = self._bonds.delivered(contact, number, outcome)
        except RemoteProtocolError as error:
            failure = PieceFailed(str(error), worker=outcome.worker)
            self._endings.with_error(number, failure)
            return
        if end.verdict is Verdict.DONE:
            self._endings.done(number, outcome, end.piece.losses + end.piece.errors)
        elif end.verdict is Verdict.MISSING:
            self._endings.badly(end.piece, Verdict.INTERRUPTED, end.detail)
        else:
            self._endings.badly(end.piece, end.verdict, end.detail, outcome)

    def _cut_short(self, now: float, worker: str, number: int) -> None:
        """Take back a piece that made way for a real-time piece, and count that."""
        ticket = self._tickets.get(number)
        is_held = number in self._dispatch.pieces_at(worker)
        if is_held and ticket is not None and ticket.job is not None:
            ticket.job.statistics.pieces_cut += 1
        self._do(self._dispatch.cut_short(now, worker, number))

    def _bundle(
        self,
        contact: Contact,
        row: ResultRow,
        members: list[Any],
        buffers: Sequence[Any],
    ) -> None:
        """Take in what came of the pieces of a bundle, as far as they are over."""
        first, status, _, _, elapsed_s = row
        job = self._recorded_job(first)
        if job is not None:
            done = len(members)
            self._timelines.span(job, contact, first, status, elapsed_s, done)
        bundle = self._dispatch.bundle_at(contact.id, first)
        if bundle is None:
            return
        is_running = status == "cut"
        del members[bundle.count - is_running :]
        if members and type(members[-1]) is list and members[-1][0] == "drained":
            # it was given up for the end of the worker, and runs again
            members.pop()
        each_s, taken = elapsed_s / max(1, len(members)), 0
        for number, member in zip(bundle.numbers, members, strict=False):
            how, payload, count = (
                ("done", member, 0) if type(member) is bytes else member
            )
            own = buffers[taken : taken + count] if count else ()
            taken += count
            if number not in self._tickets:
                continue
            outcome = Outcome(payload, own, None, each_s, contact.entry.name)
            verdict = _VERDICTS.get(how, Verdict.FAILED)
            if how in _OF_BONDS:
                verdict = Verdict.FAILED
            if verdict is Verdict.DONE:
                self._endings.done(number, outcome)
            else:
                self._endings.badly(bundle.alone(number), verdict, "", outcome)
        self._do(
            self._dispatch.bundle_done(
                _now(), contact.id, first, len(members), elapsed_s, is_running
            )
        )


def _now() -> float:
    return time.monotonic()
