"""What each process used lately is kept, and no more of it than is wanted."""

from __future__ import annotations

import pytest

from opencluster.observe import trails as keeping
from opencluster.observe.trails import Trails


def row(identity: str, rss: float | None = 1.0) -> dict[str, object]:
    return {"id": identity, "rss_bytes": rss, "cpu_percent": 50.0}


def test_the_last_figures_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "POINTS", 4)
    trails = Trails()
    for at in range(11):
        trails.note(at, [row("a", float(at))])
        found = trails.of("a")
        assert found["at"] == found["rss_bytes"] == list(range(max(0, at - 3), at + 1))
    assert found["cpu_percent"] == [50.0] * 4


def test_who_is_gone_is_forgotten_and_there_are_not_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "PROCESSES", 2)
    trails = Trails()
    trails.note(1, [row("a", None), row("b"), row("c")])
    assert trails.of("a") == {"at": [1], "rss_bytes": [0], "cpu_percent": [50]}
    assert trails.of("c")["at"] == []
    trails.note(2, [row("b"), row("c")])
    assert [trails.of(name)["at"] for name in "abc"] == [[], [1, 2], [2]]
