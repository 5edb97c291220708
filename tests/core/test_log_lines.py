"""Lines of logs are read as they were written, and found again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.log_lines import (
    INDENT,
    LEVELS,
    Head,
    Sieve,
    Wanted,
    head_of,
    messages,
    written,
)

TIME = "2026-11-30T02:10:41.123Z"
LOG = [
    "2026-11-30T02:10:00.000Z INFO opencluster.worker is ready",
    "a line that was printed",
    "2026-11-30T02:11:00.000Z ERROR sky.clean [1f2e3d4c:17+3] it diverged",
    f"{INDENT}Traceback (most recent call last):",
    f"{INDENT}  ValueError: no Beam",
    "another one",
    "2026-11-30T02:12:00.000Z DEBUG sky.clean [1f2e3d4c:18] gain 0.1",
    "2026-11-30T02:13:00.000Z WARNING sky.clean [99887766:1] slow",
]


def found(**wanted: str) -> list[int]:
    """Return the places in the log of what comes through."""
    lines = list(Sieve(Wanted(**wanted)).through(LOG))
    places = [LOG.index(line) for line in lines]
    assert places == sorted(places)
    return places


@given(
    st.sampled_from(LEVELS),
    st.from_regex(r"[\w.]+", fullmatch=True),
    st.sampled_from(["", "1f2e3d4c:17", "1f2e3d4c:17+3"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n")),
)
def test_what_is_written_is_read(level: str, name: str, piece: str, text: str) -> None:
    line = written(TIME, level, name, piece, text)
    assert head_of(line) == Head(TIME, level, name, piece)
    assert line.endswith(f" {text}")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        TIME,
        f"{TIME} LOUD sky.clean text",
        f"x{TIME} INFO sky.clean text",
        f"{INDENT}{TIME} INFO sky.clean text",
        "2026-11-30 02:10:41,123 INFO sky.clean: text",
    ],
)
def test_other_lines_were_only_printed(line: str) -> None:
    assert head_of(line) is None


def test_the_lines_of_a_message_stay_together() -> None:
    text = written(TIME, "ERROR", "a", "", "one\ntwo\nthree")
    lines = text.split("\n")
    assert len(lines) == 3
    assert list(messages(["before", *lines, "after"])) == [["before"], lines, ["after"]]
    assert list(messages([])) == []


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"level": "INFO"}, [0, 1, 2, 3, 4, 5, 7]),
        ({"level": "WARNING"}, [2, 3, 4, 7]),
        ({"level": "ERROR"}, [2, 3, 4]),
        ({"level": "CRITICAL"}, []),
        ({"text": "no beam"}, [2, 3, 4]),
        ({"text": "DIVERGED"}, [2, 3, 4]),
        ({"text": "printed"}, [1]),
        ({"piece": "1f2e3d4c"}, [2, 3, 4, 6]),
        ({"piece": "1f2e3d4c:18"}, [6]),
        ({"since": "2026-11-30T02:11"}, [2, 3, 4, 5, 6, 7]),
        ({"since": "2026-11-30T02:12:30"}, [7]),
        ({"level": "WARNING", "piece": "1f2e3d4c"}, [2, 3, 4]),
    ],
)
def test_what_is_wanted_comes_through(
    wanted: dict[str, str], places: list[int]
) -> None:
    assert found(**wanted) == places


def test_a_level_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'LOUD' is none of DEBUG, INFO"):
        Wanted(level="LOUD")
