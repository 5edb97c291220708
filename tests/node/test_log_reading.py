"""Nothing of a log is seen twice or missed, however it is turned over meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencluster.core.log_lines import Wanted
from opencluster.errors import RequestRefused
from opencluster.node import log_reading
from opencluster.node.log_reading import passages, read_question
from opencluster.node.output import OutputLog

ALL = Wanted()


def look(folder: Path, positions: dict[str, Any], lines: int = 0) -> list[str]:
    """Look once, and remember where that ended."""
    seen = []
    for passage in passages(folder, ALL, lines, positions):
        positions[passage.name] = passage.position
        seen += passage.lines
    return seen


def test_the_last_lines_and_then_what_is_new(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "W-1.log", 1 << 20, 3)
    log.write(b"one\ntwo\nthree\nfo")
    positions: dict[str, Any] = {}
    assert look(tmp_path, positions, lines=2) == ["two", "three"]
    assert look(tmp_path, positions) == []
    log.write(b"ur\nf")
    assert look(tmp_path, positions) == ["four"]
    log.write("ünf\n".encode())
    assert look(tmp_path, positions) == ["fünf"]
    log.close()


def test_a_log_that_comes_later_is_seen(tmp_path: Path) -> None:
    positions: dict[str, Any] = {}
    assert look(tmp_path, positions, lines=5) == []
    (tmp_path / "W-1.log").write_text("here\n")
    assert look(tmp_path, positions, lines=5) == ["here"]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.one_of(st.none(), st.lists(st.integers(0, 99), max_size=6)), max_size=12
    )
)
def test_rotations_between_looks_lose_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, doings: list[list[int] | None]
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    # so small that it is turned over all the time, and so many that none is removed
    log = OutputLog(folder / "W-1.log", 32, 100)
    log.write(b"begin\n")
    positions: dict[str, Any] = {}
    seen = look(folder, positions, lines=1)
    written = ["begin"]
    for doing in doings:
        if doing is None:
            seen += look(folder, positions)
        else:
            written += [f"line {number}" for number in doing]
            log.write("".join(f"line {number}\n" for number in doing).encode())
    for _ in range(2):
        seen += look(folder, positions)
    log.close()
    # a line that lies in two files is seen as two
    assert "".join(seen) == "".join(written)


def test_a_file_that_was_removed_is_made_up_for(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "W-1.log", 8, 2)
    positions: dict[str, Any] = {}
    log.write(b"first\n\n\n")
    look(tmp_path, positions, lines=1)
    for number in range(8):
        log.write(b"line %d\n\n" % number)
    log.close()
    # of two files, although the inode of the one before was given away again
    assert look(tmp_path, positions) == ["line 6", "", "line 7", ""]


def test_a_look_is_bounded_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reading, "MAX_BYTES", 20)
    path = tmp_path / "W-1.log"
    path.write_text("")
    positions: dict[str, Any] = {}
    look(tmp_path, positions, lines=1)
    lines = [f"line {number}" for number in range(9)]
    path.write_text("".join(f"{line}\n" for line in [*lines, "x" * 50, "end"]))
    looks = [look(tmp_path, positions) for _ in range(9)]
    assert all(len("".join(seen)) <= 20 for seen in looks)
    assert "".join(map("".join, looks)) == "".join([*lines, "x" * 50, "end"])


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"wanted": {}},
        {"wanted": [], "lines": 1},
        {"wanted": {"level": "LOUD"}, "lines": 1},
        {"wanted": {"depth": "1"}, "lines": 1},
        {"wanted": {}, "lines": None},
        {"wanted": {}, "lines": 1, "positions": {"a": [1]}},
        {"wanted": {}, "lines": 1, "positions": {"a": ["x", 1, 0]}},
    ],
)
def test_questions_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match="no question about logs"):
        read_question(wrong)
