"""The values that a piece refers to, and the references that leave with its result."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from opencluster.errors import WorkError
from opencluster.keeping import Claim, Keeper, ShouldStop, Wanted
from opencluster.references import DataRef
from opencluster.wire import codec


class Missing(WorkError):
    """Values of a piece cannot be had.

    Attributes
    ----------
    rows : list
        For each of them: its identity, why, and which holders said so themselves.
    """

    def __init__(self, rows: list[Any]) -> None:
        super().__init__(f"{len(rows)} values cannot be had")
        self.rows = rows


class Stopped(WorkError):
    """The piece is to end, and its values are waited for no longer."""


class Inputs:
    """The values of one piece, which stay here until they are let go.

    Parameters
    ----------
    keeper : Keeper
        What gets them.
    wanted : sequence of Wanted
        Those that the manager told of.
    should_stop : callable
        Whether the piece is to end.
    """

    def __init__(
        self, keeper: Keeper, wanted: Sequence[Wanted], should_stop: ShouldStop
    ) -> None:
        self._keeper = keeper
        self._should_stop = should_stop
        self._claim = Claim()
        self._get(wanted)

    def decode(self, payload: bytes, buffers: Sequence[Any]) -> Any:
        """Return an encoded value, with values in the place of its references.

        Raises
        ------
        Missing
            When one cannot be had.
        Stopped
            When the piece is to end meanwhile.
        """
        self._check()
        return codec.decode(payload, buffers, self._value)

    def let_go(self) -> None:
        """Need the values no longer."""
        self._keeper.give_up(self._claim)

    def _get(self, wanted: Sequence[Wanted]) -> None:
        self._keeper.claim(self._claim, wanted, self._should_stop)

    def _check(self) -> None:
        if self._should_stop():
            raise Stopped("the piece is to end")
        failed = self._claim.failed
        if failed:
            raise Missing([[id, why, at] for id, (why, at) in failed.items()])

    def _value(self, ref: DataRef) -> Any:
        if ref.id not in self._claim.parts:
            # inside a value, and of somebody else than the manager of this piece
            self._get([Wanted(ref.id, ref.nbytes, (ref.holder,))])
            self._check()
        parts = self._claim.parts[ref.id]
        return codec.decode(parts[0], parts[1:], self._value)


ESCAPE_S = 30.0
"""How long a reference is held that left with a result: till then who got it has told
the holder of it."""


class Escaped:
    """References of this process that left it with results."""

    def __init__(self) -> None:
        self._refs: deque[tuple[float, tuple[DataRef, ...]]] = deque()

    def note(self, refs: Iterable[DataRef]) -> None:
        """Hold references for a while, and let go of those held before."""
        now = time.monotonic()
        while self._refs and self._refs[0][0] <= now:
            self._refs.popleft()
        held = tuple(ref for ref in refs if ref.lease is not None)
        if held:
            self._refs.append((now + ESCAPE_S, held))
