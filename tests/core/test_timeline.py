"""Timelines: what a recorder tells is what a reader finds, and it is bounded."""

from __future__ import annotations

import pytest

from opencluster.core.timeline import (
    DONE,
    FAILED,
    MAX_ERRORS,
    OUTCOMES,
    RETRIED,
    Recorder,
    Timeline,
    extend,
    rows,
    summary,
)


def told(recorder: Recorder, timeline: Timeline, is_over: bool = False) -> Timeline:
    news = recorder.take(is_over)
    if news is not None:
        extend(timeline, news)
    return timeline


def fill(recorder: Recorder, count: int, workers: int = 2) -> None:
    """Take in runs of 1 s, on workers that are always busy."""
    for number in range(count):
        ended_at = 100.0 + number // workers + 1
        name = f"A-{number % workers}"
        recorder.span(ended_at, 1.0, name, "h1", "A", 1, DONE, number)


def test_spans_come_in_any_number_of_parts() -> None:
    recorder = Recorder(100.0, 1000)
    timeline = Timeline()
    assert recorder.take(False) is None
    fill(recorder, 4)
    told(recorder, timeline)
    recorder.span(103.5, 0.5, "B-1", "h2", "B", 64, RETRIED, 9)
    told(recorder, timeline, is_over=True)
    assert timeline.workers == ["A-0", "A-1", "B-1"]
    assert timeline.hosts == ["h1", "h1", "h2"]
    assert timeline.start_s == [0.0, 0.0, 1.0, 1.0, 3.0]
    assert timeline.length_s == 3.5 and not timeline.is_merged
    last = list(rows(timeline))[-1]
    assert last == {
        **{"piece": 9, "pieces": 64, "type": "B", "worker": "B-1", "host": "h2"},
        **{"start_s": 3.0, "duration_s": 0.5, "outcome": "retried", "error": ""},
    }
    assert recorder.take(True) is None


def test_a_run_has_its_error_though_it_is_told_later() -> None:
    recorder, timeline = Recorder(0.0, 1000), Timeline()
    recorder.span(1.0, 1.0, "A-1", "h1", "A", 1, RETRIED, 7)
    recorder.span(2.0, 1.0, "A-1", "h1", "A", 1, FAILED, 7)
    told(recorder, timeline)
    for number in (7, 8, 8):
        recorder.error(number, "ValueError", "no antennas", "Traceback...", "A-1")
    told(recorder, timeline, is_over=True)
    assert timeline.error == [-1, 0]
    (group,) = summary(timeline)["errors"]
    assert group == {
        **{"kind": "ValueError", "message": "no antennas", "count": 3},
        **{"traceback": "Traceback...", "first_piece": 7, "worker": "A-1"},
    }


def test_many_spans_are_taken_together_and_none_is_lost() -> None:
    recorder, timeline = Recorder(100.0, 100), Timeline()
    for _ in range(20):
        fill(recorder, 1000, workers=1)
        told(recorder, timeline)
    recorder.span(2000.0, 1.0, "A-0", "h1", "A", 1, FAILED, 5)
    told(recorder, timeline, is_over=True)
    assert timeline.is_merged
    figures = summary(timeline)
    assert figures["pieces"] == 20_001
    assert figures["busy_s"] == pytest.approx(20_001)
    assert len(timeline) < 12_000
    # who failed is always told apart
    assert timeline.outcome.count(FAILED) == 1


def test_runs_without_a_result_are_bounded_too() -> None:
    recorder, timeline = Recorder(0.0, 100), Timeline()
    for number in range(20_000):
        recorder.span(number + 1.0, 1.0, "A-1", "h1", "A", 1, RETRIED, number)
        recorder.error(number, "ValueError", "no antennas", "", "A-1")
    told(recorder, timeline, is_over=True)
    assert timeline.is_merged and len(timeline) < 5000
    assert sum(timeline.pieces) == timeline.errors[0]["count"] == 20_000
    assert timeline.error.count(0) == 100


def test_errors_of_all_kinds_are_bounded() -> None:
    recorder, timeline = Recorder(0.0, 10), Timeline()
    for number in range(1000):
        recorder.error(number, "ValueError", f"frame {number}" + "x" * 10_000, "", "")
    told(recorder, timeline)
    assert len(timeline.errors) == MAX_ERRORS
    assert sum(group["count"] for group in timeline.errors) == 1000
    assert all(len(group["message"]) <= 2000 for group in timeline.errors)


def test_figures_are_those_of_pieces() -> None:
    recorder, timeline = Recorder(100.0, 1000), Timeline()
    fill(recorder, 10)
    recorder.span(106.0, 3.0, "A-0", "h1", "A", 3, DONE, 20)
    told(recorder, timeline)
    figures = summary(timeline)
    kind = figures["types"]["A"]
    assert kind["pieces"] == 13 and kind["mean_s"] == 1.0 and kind["longest_s"] == 1.0
    assert figures["workers"]["A-0"]["busy_s"] == 8.0
    assert figures["slowest"][0]["piece"] == 20
    assert sum(figures["rate"]) * figures["length_s"] / 100 == pytest.approx(13)
    assert summary(Timeline())["pieces"] == 0


@pytest.mark.parametrize("duration_s", [float("nan"), float("inf"), -1.0])
def test_what_is_no_time_counts_as_none(duration_s: float) -> None:
    recorder, timeline = Recorder(100.0, 10), Timeline()
    recorder.span(101.0, duration_s, "A-1", "h1", "A", 1, DONE, 1)
    assert told(recorder, timeline).duration_s == [0.0]


@pytest.mark.parametrize(
    "news",
    [
        {"spans": [[0.0, 1.0, 0, 0, 1, 0, 1]]},
        {"lanes": [["A-1", "h1"]], "types": [], "spans": [[0, 1, 0, 0, 1, 0, 1]]},
        {"lanes": [["A-1"]]},
        {"spans": [[0.0, 1.0]]},
        {"errors": [[5, {}]]},
    ],
)
def test_a_story_that_makes_no_sense_is_turned_down(news: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        extend(Timeline(), news)  # type: ignore[arg-type]


def test_outcomes_have_words() -> None:
    assert OUTCOMES[DONE] == "done" and OUTCOMES[FAILED] == "failed"
