"""The figures for choosing computers are measured; what they are is not judged."""

from __future__ import annotations

import math

import pytest

from bench import sizing


@pytest.mark.processes
def test_rates_and_idle_processes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "PER_CORE", (1,))
    monkeypatch.setattr(sizing, "IDLE_WORKERS", 1)
    figures = sizing.measure(is_quick=True)
    rates = [f for f in figures if f.measure == "workers per core"]
    idle = [f for f in figures if f.measure == "idle"]
    assert [f.unit for f in rates] == ["pieces/s"] * 2
    assert [f.unit for f in idle] == ["% of a core"] * 3 + ["MiB"] * 3
    assert all(math.isfinite(run) for f in figures for run in f.runs)
    assert all(run > 0 for f in rates + idle[3:] for run in f.runs)
