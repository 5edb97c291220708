"""How a piece is to be run: what can be asked for, and what can not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from opencluster.engines.base import Options
from opencluster.serving.outcomes import encoded, failure_of


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 1.5},
        {"priority": "high"},
        {"priority": 2**70},
        {"retries": None},
        {"error_retries": "2"},
        {"max_kills": 0},
        {"max_kills": 1.0},
        {"timeout_s": -1.0},
        {"timeout_s": math.nan},
    ],
)
def test_what_no_worker_could_take_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        Options(**wrong)


def test_numbers_of_other_types_become_plain_ones() -> None:
    options = Options(priority=np.int64(3), timeout_s=np.float32(2))  # type: ignore[arg-type]
    assert type(options.priority) is int
    assert options.priority == 3
    assert type(options.timeout_s) is float
    assert Options(priority=True).priority == 1


def test_an_endless_time_limit_is_none() -> None:
    assert Options(timeout_s=math.inf).timeout_s == 0.0


class Mute(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_that_has_no_text_is_a_failure_like_any_other() -> None:
    failure = failure_of(Mute())
    assert failure["type"] == "Mute"
    assert "RuntimeError" in failure["message"]


def test_whatever_goes_wrong_with_a_result_is_the_pieces_failure() -> None:
    for result in ({"x": object()}, {"x": np.zeros(1 << 20)}):
        payload, buffers, status = encoded("done", result, 100)
        assert status == "failed"
        assert payload
        assert not buffers
