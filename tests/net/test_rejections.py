from __future__ import annotations

import logging

import pytest

from opencluster.net import rejections
from opencluster.net.rejections import Rejections
from opencluster.net.transport import TransportCounts

log = logging.getLogger("test.rejections")


def test_all_are_counted_and_few_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(rejections.time, "monotonic", lambda: now)
    counts = TransportCounts()
    noted = Rejections(counts, log)
    for number in range(1000):
        noted.note(ValueError(f"number {number}"))
    assert counts.rejected_messages == 1000
    assert caplog.messages == ["rejected a message: number 0"]
    now += rejections.WARN_INTERVAL_S
    noted.note(ValueError("another"))
    assert caplog.messages[1:] == ["rejected 1000 messages, the last one: another"]


def test_where_it_went_wrong_is_told_to_who_looks_closely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, log.name)
    try:
        [].pop()  # type: ignore[var-annotated]
    except IndexError as error:
        Rejections(TransportCounts(), log).note(error)
    assert "test_rejections.py" in caplog.text and "pop from empty list" in caplog.text
