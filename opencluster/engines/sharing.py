"""Scatter and fetch, as the threads of managers call them: they wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opencluster.engines.base import Where
from opencluster.engines.giving import Put
from opencluster.engines.values import Gather, Values
from opencluster.errors import PieceCancelled
from opencluster.references import DataRef
from opencluster.wire import codec
from opencluster.wire.batches import check_size

Wait = Callable[[Callable[[], bool]], bool]
"""Waits until something holds; ``False`` means that it never will."""


class Sharing:
    """Gives values to workers, and gets them back.

    Parameters
    ----------
    values : Values
        What does it.
    wait : callable
        What is waited with.
    next_numbers : callable
        Returns so many numbers that nothing else has.
    max_bytes : int
        Largest part of a value.
    """

    def __init__(
        self,
        values: Values,
        wait: Wait,
        next_numbers: Callable[[int], list[int]],
        max_bytes: int,
    ) -> None:
        self._values = values
        self._wait = wait
        self._next_numbers = next_numbers
        self._max_bytes = max_bytes

    def scatter(self, values: Sequence[Any], where: Where) -> list[DataRef]:
        """Give values to workers to hold, and wait until they do.

        Raises
        ------
        LocalProtocolError
            When a value cannot be sent; none is given to anybody then.
        WorkError
            When nobody holds one in the end.
        """
        numbers = self._next_numbers(len(values))
        puts = [self._put_of(*row, where) for row in zip(numbers, values, strict=True)]
        for put in puts:
            self._values.put(put)
        return [self._ref_of(put) for put in puts]

    def fetch(self, refs: Sequence[DataRef]) -> list[Any]:
        """Return the values that references stand for, and wait for them.

        Raises
        ------
        DataLost
            When one is gone, and cannot be made again.
        """
        gather = Gather(tuple(refs))
        self._values.gather(gather)
        try:
            if not self._wait(lambda: gather.is_over):
                raise PieceCancelled("the engine was closed before a value came")
        except BaseException:
            self._values.forget(gather)
            raise
        if gather.error is not None:
            raise gather.error
        found = [gather.parts[ref.id] for ref in refs]
        return [codec.decode(p[0], p[1:], self._values.adopt) for p in found]

    def _put_of(self, number: int, value: Any, where: Where) -> Put:
        refs: list[DataRef] = []
        payload, buffers = codec.encode(value, "value", refs)
        check_size(payload, buffers, self._max_bytes)
        id = self._values.id_of(number)
        return Put(id, [payload, *buffers], tuple(refs), where)

    def _ref_of(self, put: Put) -> DataRef:
        if not self._wait(lambda: put.is_over):
            raise PieceCancelled("the engine was closed before a value was held")
        if put.ref is None:
            raise put.error or PieceCancelled("the value was not held")
        return put.ref
