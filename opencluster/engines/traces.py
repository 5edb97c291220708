"""The pieces of an engine as spans: who begins and ends them, what they take along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opencluster.engines.tickets import Ticket
from opencluster.tracing import Tracing


def follow(
    tracing: Tracing, type: str, submitted: Iterable[tuple[int, Ticket]]
) -> None:
    """Begin a span for each piece that this thread submits; its outcome ends it."""
    for number, ticket in submitted:
        ticket.span = tracing.begin(type, number, ticket.nbytes, ticket.job)
        ticket.done = tracing.ending(ticket.span, ticket.done)


def accompany(
    tracing: Tracing,
    worker: str,
    leaving: Mapping[int, Ticket],
    extras: dict[int, list[Any]],
) -> None:
    """Add the traces of pieces to what their worker must know of them."""
    for number, ticket in leaving.items():
        trace = None if ticket.span is None else tracing.sent(ticket.span, worker)
        if trace is not None:
            extras.setdefault(number, [None, []]).append(trace)
