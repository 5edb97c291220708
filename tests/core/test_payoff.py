"""When compressing pays: lines and data of several kinds."""

from __future__ import annotations

import pytest

from opencluster.core.payoff import (
    AS_IT_IS,
    PROBE_BYTES,
    STALE_S,
    TRY_AGAIN_BYTES,
    Payoff,
)

FAST, SMALL = 1, 2
"""Two ways of compressing: one is quick, the other makes less of it."""
MB = 1_000_000
CHUNK = 1 << 20


def measured(bytes_per_s: float, began: float = 100.0) -> Payoff:
    """Return what is known after a line was measured."""
    payoff = Payoff()
    payoff.begin(began)
    payoff.taken(began + 5.0, CHUNK)
    assert not payoff.wants_trial
    payoff.taken(began + 5.0 + PROBE_BYTES / bytes_per_s, PROBE_BYTES)
    return payoff


def tried(bytes_per_s: float, **trials: tuple[float, float]) -> Payoff:
    payoff = measured(bytes_per_s)
    assert payoff.wants_trial
    for name, (rate, ratio) in trials.items():
        code = {"fast": FAST, "small": SMALL}[name]
        payoff.tried(code, CHUNK, int(ratio * CHUNK), CHUNK / rate)
    assert not payoff.wants_trial
    return payoff


@pytest.mark.parametrize(
    ("line", "fast", "small", "best"),
    [
        # 1 Gbit/s, data that shrink: the one that makes less of them
        (120 * MB, (700 * MB, 0.7), (400 * MB, 0.5), SMALL),
        # 10 Gbit/s: that one cannot keep up
        (1200 * MB, (2500 * MB, 0.5), (400 * MB, 0.3), FAST),
        (1200 * MB, (700 * MB, 0.5), (400 * MB, 0.3), AS_IT_IS),
        # noise does not shrink
        (120 * MB, (700 * MB, 1.0), (700 * MB, 0.96), AS_IT_IS),
        # a little is not worth the processor
        (120 * MB, (700 * MB, 0.85), (400 * MB, 0.81), AS_IT_IS),
        (10 * MB, (700 * MB, 0.2), (100 * MB, 0.1), SMALL),
    ],
)
def test_the_quickest_way_is_chosen(
    line: float,
    fast: tuple[float, float],
    small: tuple[float, float],
    best: int,
) -> None:
    assert tried(line, fast=fast, small=small).best() == best


def test_a_line_is_measured_before_anything_is_compressed() -> None:
    payoff = Payoff()
    payoff.begin(0.0)
    payoff.taken(1.0, 100 * PROBE_BYTES)
    payoff.taken(2.0, PROBE_BYTES - 1)
    assert payoff.best() == AS_IT_IS and not payoff.wants_trial
    payoff.taken(2.0, 1)
    assert payoff.wants_trial


def test_what_was_taken_in_no_time_is_no_measurement() -> None:
    payoff = Payoff()
    payoff.begin(0.0)
    payoff.taken(1.0, CHUNK)
    payoff.taken(1.0, 2 * PROBE_BYTES)
    assert not payoff.wants_trial


def test_data_are_tried_again_after_a_while() -> None:
    payoff = tried(100 * MB, fast=(700 * MB, 0.1))
    payoff.sent(TRY_AGAIN_BYTES - 1)
    assert not payoff.wants_trial
    payoff.sent(1)
    assert payoff.wants_trial
    payoff.tried(FAST, CHUNK, CHUNK, 0.001)
    assert payoff.best() == AS_IT_IS


def test_a_line_is_measured_again_when_that_was_long_ago() -> None:
    payoff = tried(100 * MB, fast=(700 * MB, 0.1))
    assert payoff.best() == FAST
    payoff.begin(100.0 + STALE_S / 2)
    assert payoff.best() == FAST
    payoff.begin(300.0 + STALE_S)
    assert payoff.best() == AS_IT_IS
