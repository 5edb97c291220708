"""What is measured of blocks that all workers read, and of arrays that are joined."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from bench_peers import Honest

from bench import collectives, processes
from bench.tasks import WrongAnswer, total, touch

SIZE = 40_000_000
"""More than malloc keeps of what was freed, which would not count as growth."""
COUNT = 3


class Here(Honest):
    """Has three workers that live in this process, and copy what they read."""

    def __init__(self, error: int = 0) -> None:
        self._error = error

    @contextmanager
    def spread(self, block: Any) -> Iterator[list[int]]:
        copies = [block.copy() for _ in range(3)]
        yield [touch(copy) + self._error for copy in copies]

    def keep_arrays(self, count: int, size: int) -> Any:
        return [np.full(size // 8, float(number)) for number in range(count)]

    def joined(self, arrays: Any) -> Any:
        copies = [array.copy() for array in arrays]
        return total(copies, np.empty_like(copies[0])) + self._error


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "HUGE", SIZE)
    monkeypatch.setattr(collectives, "ARRAY", SIZE)
    monkeypatch.setattr(collectives, "ARRAYS", COUNT)
    monkeypatch.setattr(collectives, "SETTLE_S", 0.0)
    # the processes that count are this one
    monkeypatch.setattr(processes, "marked", lambda mark: [os.getpid()])


def test_each_copy_of_what_all_workers_have_is_counted() -> None:
    (point,) = collectives.copies_in_memory(Here(), 0.01, {})
    assert point.value == pytest.approx(3, abs=0.2)


def test_the_peak_of_what_joining_takes_is_counted() -> None:
    (point,) = collectives.join_memory(Here(), 0.01, {})
    # the arrays themselves, their copies, and the sum
    least_mib = 2 * COUNT * SIZE / processes.MIB
    assert 0.95 * least_mib < point.value < 1.5 * least_mib


@pytest.mark.parametrize("measure", ["broadcast_time", "join_time"])
def test_what_takes_long_is_measured_a_few_times(measure: str) -> None:
    (point,) = getattr(collectives, measure)(Here(), 0.0, {})
    assert point.value > 0 and point.count == collectives.LEAST_RUNS


@pytest.mark.parametrize(
    "measure", ["copies_in_memory", "broadcast_time", "join_memory", "join_time"]
)
def test_a_wrong_answer_is_no_figure(measure: str) -> None:
    with pytest.raises(WrongAnswer):
        getattr(collectives, measure)(Here(error=1), 0.0, {})
