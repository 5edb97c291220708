"""What OpenCluster makes of a network is measured; how much that is is not judged."""

from __future__ import annotations

import math

import pytest

from bench import lan


@pytest.mark.processes
def test_both_directions_are_measured_beside_plain_tcp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lan, "KEYS", (True,))
    monkeypatch.setattr(lan, "WORKERS", 1)
    monkeypatch.setattr(lan, "QUICK_BLOCKS", 2)
    figures = lan.measure(is_quick=True)
    assert {figure.measure for figure in figures} == {"1000 Mbit/s, keys"}
    assert [figure.unit for figure in figures] == ["MB/s", "MB/s", "", "%"] * 2
    assert all(math.isfinite(r) and r > 0 for f in figures for r in f.runs)
    # the limit of the line holds, but for what a switch lets through at once
    assert all(max(f.runs) < 250 for f in figures if f.unit == "MB/s")
