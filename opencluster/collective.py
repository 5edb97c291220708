"""What a manager does with data that stays in the workers, many pieces at a time.

These are the verbs behind those of `Manager`: scatter, gather, broadcast, reduce. They
know an engine by its protocol alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from opencluster.core.reduction import Join, Place, Reduction
from opencluster.engines.base import Engine, Where
from opencluster.errors import PieceCancelled
from opencluster.references import DataRef
from opencluster.workpiece import WorkPiece

Submit = Callable[[WorkPiece], "Future[Any]"]
"""Has one piece performed; the future's result is a `DataRef`."""


def where(to: Any, everywhere: bool = False) -> Where:
    """Return who is meant by a worker type, a worker, several, or ``None`` for all.

    Raises
    ------
    TypeError
        When it is something else.
    """
    if to is None:
        return Where(everywhere=everywhere)
    if isinstance(to, str):
        return Where(type=to, everywhere=everywhere)
    handles = list(to) if isinstance(to, Iterable) else [to]
    names = tuple(str(getattr(handle, "id", "")) for handle in handles)
    if not names or not all(names):
        raise TypeError(
            f"`to` is a worker type or workers that get_available_workers() returned, "
            f"not {to!r:.60}"
        )
    return Where(workers=names, everywhere=everywhere)


def gather(engine: Engine, refs: Any) -> Any:
    """Return the value of a reference, or the list of those of several.

    Futures of references are waited for.

    Raises
    ------
    TypeError
        When something is no reference.
    """
    if isinstance(refs, DataRef | Future):
        return engine.fetch([_ref(refs)])[0]
    return engine.fetch([_ref(ref) for ref in refs])


def listed(refs: Any) -> list[DataRef]:
    """Return one or several references as a list."""
    if isinstance(refs, DataRef | Future):
        return [_ref(refs)]
    return [_ref(ref) for ref in refs]


def _ref(ref: Any) -> DataRef:
    found = ref.result() if isinstance(ref, Future) else ref
    if not isinstance(found, DataRef):
        raise TypeError(
            f"a DataRef is wanted, not {type(found).__name__}: get one by scatter(), "
            "or with keep=True"
        )
    return found


class Tree:
    """Joins many values into one, as soon as their neighbours are there.

    Parameters
    ----------
    engine : Engine
        What is waited with.
    submit : callable
        Has a piece with the item ``inputs`` performed, whose result is kept.
    arity : int
        How many values are joined at a time.
    """

    def __init__(self, engine: Engine, submit: Submit, arity: int) -> None:
        self._engine = engine
        self._submit = submit
        self._tree: Reduction[DataRef] = Reduction(arity)
        # results come in whichever thread serves the sockets
        self._lock = threading.RLock()
        self._under_way: set[Future[Any]] = set()
        self._error: BaseException | None = None

    def run(self, refs: Iterable[Any]) -> DataRef:
        """Return the reference to what came of all.

        Parameters
        ----------
        refs : iterable of DataRef or Future
            What is joined; it is read to its end while joining goes on.

        Raises
        ------
        WorkError
            When a piece failed; the others are withdrawn.
        """
        try:
            count = 0
            for count, ref in enumerate(refs, 1):
                self._take((0, count - 1), ref)
                if self._error is not None:
                    break
            else:
                with self._lock:
                    self._join(self._tree.ended(count))
            self._engine.wait(self._is_over)
            if self._error is not None:
                raise self._error
            assert self._tree.result is not None
            return self._tree.result
        finally:
            self._withdraw()

    def _is_over(self) -> bool:
        return self._tree.is_over or self._error is not None

    def _take(self, place: Place, item: Any) -> None:
        """Take in what stands at a place of the tree, when it is there."""
        if not isinstance(item, Future):
            ref = _ref(item)
            with self._lock:
                self._join(self._tree.joined(place, ref))
            return
        with self._lock:
            self._under_way.add(item)
        item.add_done_callback(lambda done: self._came(place, done))

    def _came(self, place: Place, future: Future[Any]) -> None:
        with self._lock:
            self._under_way.discard(future)
            if self._error is not None:
                return
            try:
                self._join(self._tree.joined(place, _ref(future)))
            except BaseException as error:
                self._error = error
        self._engine.nudge()

    def _join(self, joins: Sequence[Join[DataRef]]) -> None:
        for join in joins:
            future = self._submit(WorkPiece(inputs=list(join.inputs)))
            self._take(join.place, future)

    def _withdraw(self) -> None:
        with self._lock:
            left, self._under_way = self._under_way, set()
            self._error = self._error or PieceCancelled("the reduction is over")
        for future in left:
            future.cancel()
