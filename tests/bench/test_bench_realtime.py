"""What is made of the latencies of real-time pieces."""

from __future__ import annotations

import pytest

from bench.realtime import figures_of

TAKEN = {0.0: [[1.0, 2.0, 5.0], [1.0, 2.0, 3.0]], 0.2: [[10.0, 44.0], [20.0, 104.0]]}


def test_growth_is_counted_in_lengths_of_a_batch_piece() -> None:
    figures = {figure.name: figure for figure in figures_of(TAKEN, {0.2: [0.5, 1.0]})}
    assert figures["no batch load: median"].runs == [2.0, 2.0]
    assert figures["no batch load: p99"].runs == [5.0, 3.0]
    assert figures["batch pieces of 0.2 s: p99"].runs == [44.0, 104.0]
    growth = figures[
        "batch pieces of 0.2 s: growth of p99, in lengths of a batch piece"
    ]
    # beyond 4 ms, which is the median of the runs without load
    assert growth.runs == pytest.approx([0.2, 0.5])
    assert growth.unit == ""
    cuts = figures["batch pieces of 0.2 s: cut short for each real-time piece"]
    assert cuts.runs == [0.5, 1.0]
