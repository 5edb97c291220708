"""Pieces as they come in: rows of a message become what waits in an inbox.

Owns what a piece consists of while it waits and when it is taken. Must not decide
whether it is taken in.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from opencluster.core.inbox import Waiting
from opencluster.keeping import Wanted, wanted_in
from opencluster.net.transport import Peer
from opencluster.tracing import Trace, trace_in
from opencluster.wire.batches import pieces_in, size_of_members
from opencluster.wire.refs import id_in


class Work(NamedTuple):
    """A piece that was taken to be run, its payload still encoded.

    Attributes
    ----------
    waiting : Waiting
        Whose it is, and how it is to be run.
    payload, buffers
        The encoded piece; of a bundle, what `members_in` takes apart.
    keep : bytes or None
        Under which identity its result is to be kept, if it is.
    wanted : sequence of Wanted
        The values that it refers to.
    trace : Trace or None
        The trace that it belongs to, if it is traced.
    """

    waiting: Waiting
    payload: Any
    buffers: Sequence[Any]
    keep: bytes | None = None
    wanted: Sequence[Wanted] = ()
    trace: Trace | None = None


class Arrivals(NamedTuple):
    """What came in with one message.

    Attributes
    ----------
    pieces : list of Waiting
        The pieces, the data of each being that of a `Work`.
    wanted : list of sequence of Wanted
        The values that those refer to which refer to any.
    has_urgent : bool
        There are real-time pieces among them.
    """

    pieces: list[Waiting]
    wanted: list[Sequence[Wanted]]
    has_urgent: bool


def arrivals_in(peer: Peer, rows: Any, buffers: Sequence[Any], extras: Any) -> Arrivals:
    """Return what came in from a manager.

    Parameters
    ----------
    peer : bytes
        The manager.
    rows
        The rows of its message.
    buffers : sequence
        Their buffers.
    extras
        What ties some of them to values and traces, by number.

    Raises
    ------
    RemoteProtocolError, ValueError, TypeError, AttributeError
        When it is malformed; then nothing of it counts.
    """
    ties = {number: _ties_in(extra) for number, extra in extras.items()}
    pieces = []
    has_urgent = False
    for (number, priority, timeout_s, payload, _), own in pieces_in(rows, buffers):
        data: tuple[Any, ...] = (payload, own)
        if type(payload) is list:
            nbytes, count = size_of_members(payload), len(payload)
        else:
            nbytes, count = len(payload), 1
        if own:
            nbytes += sum(map(len, own))
        if ties and number in ties:
            data += ties[number]
        if not isinstance(priority, list):
            pieces.append(
                Waiting(peer, number, priority, timeout_s, nbytes, data, count)
            )
            continue
        order, wait_s = priority
        due_at = None if wait_s is None else time.monotonic() + wait_s
        has_urgent |= due_at is not None
        pieces.append(
            Waiting(
                *(peer, number, order, timeout_s, nbytes, data, count),
                due_at=due_at,
                may_be_cut=False,
            )
        )
    return Arrivals(pieces, [wanted for _, wanted, _ in ties.values()], has_urgent)


def _ties_in(extra: Any) -> tuple[bytes | None, list[Wanted], Trace | None]:
    """Return what ties a piece to values and to a trace, as a manager tells it.

    Raises
    ------
    RemoteProtocolError, ValueError, TypeError
        When it is malformed.
    """
    keep, wanted, *trace = extra
    return (
        None if keep is None else id_in(keep),
        wanted_in(wanted),
        trace_in(trace[0], time.time_ns()) if trace else None,
    )
