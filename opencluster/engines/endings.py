"""How pieces end: whoever submitted one is told once, and its job counts it.

For use while holding the reactor. Must not decide whether a piece runs again.
"""

from __future__ import annotations

from collections.abc import Callable

from opencluster.core.dispatch import Piece, Verdict
from opencluster.engines.base import Outcome
from opencluster.engines.bonds import Bonds
from opencluster.engines.job_orders import CANCELLED, cancelled
from opencluster.engines.quarantine import Quarantine
from opencluster.engines.roster import Roster
from opencluster.engines.tickets import Ticket, closed, failure_in
from opencluster.engines.timelines import Timelines
from opencluster.engines.verdicts import error_for
from opencluster.errors import NoSuitableWorker, PoisonPiece, WorkError
from opencluster.references import DataRef


class Endings:
    """Ends the pieces of one engine.

    Parameters
    ----------
    tickets : dict of int to Ticket
        All pieces that are not over; those that end are taken out.
    bonds : Bonds
        What ties some of them to values.
    adopt : callable
        Makes references in a result ones that hold their values.
    roster : Roster
        Who is here and who is not reached, for messages that help.
    explained : callable
        Adds to the error of a piece for which there is no worker why that is.
    timelines : Timelines
        Records failures.
    quarantine : Quarantine
        Keeps pieces that nobody survives.
    """

    def __init__(
        self,
        tickets: dict[int, Ticket],
        bonds: Bonds,
        adopt: Callable[[DataRef], DataRef],
        roster: Roster,
        explained: Callable[[NoSuitableWorker, str], NoSuitableWorker],
        timelines: Timelines,
        quarantine: Quarantine,
    ) -> None:
        self._tickets = tickets
        self._bonds = bonds
        self._adopt = adopt
        self._roster = roster
        self._explained = explained
        self._timelines = timelines
        self._quarantine = quarantine

    def done(self, number: int, outcome: Outcome, retried: int = 0) -> None:
        """End a piece with its result.

        Parameters
        ----------
        number : int
            The piece.
        outcome : Outcome
            The result.
        retried : int
            How often it had run before.
        """
        outcome.on_ref = self._adopt
        ticket = self._tickets.pop(number)
        if ticket.job is not None:
            statistics = ticket.job.statistics
            statistics.pieces_done += 1
            statistics.pieces_retried += retried
            statistics.bytes_received += outcome.nbytes
        ticket.done(number, outcome)

    def with_error(self, number: int, error: WorkError) -> None:
        """End a piece that is not with the dispatcher."""
        ticket = self._tickets.pop(number, None)
        if ticket is None:
            return
        self._bonds.over(number, False)
        if ticket.job is not None:
            ticket.job.statistics.pieces_failed += 1
        ticket.done(number, Outcome(error=error))

    def badly(
        self,
        piece: Piece,
        verdict: Verdict,
        detail: str = "",
        outcome: Outcome | None = None,
    ) -> None:
        """End a piece, or those of a bundle that are not over, without a result.

        Parameters
        ----------
        piece : Piece
            What ends.
        verdict : Verdict
            How.
        detail : str
            What the dispatcher adds.
        outcome : Outcome or None
            What its worker says of that, if it says anything.
        """
        failure = failure_in(outcome) if outcome is not None else None
        worker = outcome.worker if outcome is not None else piece.last_worker
        for number in piece.numbers:
            ticket = self._tickets.pop(number, None)
            if ticket is None:
                # of a bundle, and over already
                continue
            unreached = self._roster.unreached.of(piece.type)
            types = self._roster.directory.types()
            error = error_for(piece, verdict, detail, failure, worker, types, unreached)
            if isinstance(error, NoSuitableWorker):
                error = self._explained(error, piece.type)
            job = ticket.job
            if job is not None and job.state == CANCELLED:
                error = cancelled(job)
            elif isinstance(error, PoisonPiece):
                error = self._quarantine.keep(error, piece, ticket)
            self._bonds.over(number, False)
            if job is not None:
                self._timelines.failed(job, number, error)
                statistics = job.statistics
                statistics.pieces_failed += 1
                was_lost = verdict in (Verdict.DIED, Verdict.POISONED)
                statistics.pieces_retried += piece.losses + piece.errors - was_lost
            ticket.done(number, Outcome(error=error, worker=worker))

    def end_all(self, cause: BaseException | None) -> None:
        """End every piece, as nobody will attend to any of them any more."""
        while self._tickets:
            number, ticket = self._tickets.popitem()
            ticket.done(number, closed(cause))
