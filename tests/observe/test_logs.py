"""The logs of all computers in one place; they outlive those who wrote them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster import Manager, WorkPiece
from opencluster.core.log_lines import Wanted, head_of
from opencluster.errors import FactoryUnreachable, WorkError
from opencluster.node.log_reading import passages
from opencluster.observe.logs import (
    MAX_LINE,
    MAX_MESSAGE,
    Positions,
    harmless,
    look_at,
    moment,
    newest,
    question,
    shown,
)
from opencluster.testing import LocalCluster

PROGRAM = f"{Path(__file__).with_name('talking_workers.py')}:TalkingWorker"
SETTINGS = {
    "workshop.log_bytes": 20_000,
    "workshop.log_files": 3,
    "manager.max_kills": 1,
}
LINES = 1000


def line(second: int, text: str) -> str:
    return f"2026-11-30T00:00:{second:02}.000Z INFO a.b {text}"


def answers(**logs: list[str]) -> Any:
    """Return a computer with these logs."""

    def look(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "logs": [
                {
                    "name": name,
                    "lines": lines,
                    "position": [1, 2, 3],
                    "changed": "2026-11-30T00:00:30.000Z",
                }
                for name, lines in logs.items()
            ]
        }

    return look


def away(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    raise FactoryUnreachable("no answer in 3 s")


def test_messages_of_all_computers_stand_by_time() -> None:
    looks = {
        "h1": answers(W=[line(3, "three"), "printed", line(5, "five"), "    more"]),
        "h2": answers(V=[line(4, "four")], P=["only printed"]),
    }
    positions: Positions = {}
    seen = look_at(looks, question(Wanted(), 5), positions)
    found = [(m.computer, m.process, m.lines[-1][-7:]) for m in seen.messages()]
    assert found == [
        ("h1", "W", "b three"),
        ("h1", "W", "printed"),
        ("h2", "V", ".b four"),
        ("h1", "W", "   more"),
        ("h2", "P", "printed"),
    ]
    assert positions == {"h1": {"W": (1, 2, 3)}, "h2": dict.fromkeys("VP", (1, 2, 3))}


def test_a_computer_that_does_not_answer_is_named() -> None:
    looks = {"h1": answers(W=[line(1, "here")]), "h2": away}
    seen = look_at(looks, question(Wanted(), 5), {})
    assert len(seen.messages()) == 1
    assert seen.silent == {"h2": "no answer in 3 s"}


def test_nothing_is_missing_between_messages_of_logs_that_were_cut_off() -> None:
    long = answers(W=[line(n, "w") for n in (7, 8, 9)], V=[line(2, "v"), line(8, "v")])
    seen = look_at({"h1": long}, question(Wanted(), 3), {})
    times = [m.time[17:19] for m in seen.messages(3)]
    assert times == ["07", "08", "08", "09"]
    # who goes on before the first of the newest sees all of its moment again
    assert [m.time[17:19] for m in newest(seen.messages(3), 2)] == ["08", "08", "09"]


def test_what_is_asked_leaves_out_what_nobody_wants() -> None:
    asked = question(Wanted("ERROR", until="2026"), 3, ["W"])
    wanted = {"level": "ERROR", "until": "2026"}
    assert asked == {"wanted": wanted, "lines": 3, "names": ["W"]}


@given(st.text(st.characters(), max_size=100))
def test_nothing_in_a_line_is_obeyed(text: str) -> None:
    clean = harmless(f"a\x1b[31m{text}\x1b]0;title\x07\u202eb")
    assert not re.search(
        "[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", clean
    )
    clean.encode()


def test_long_lines_and_messages_are_cut() -> None:
    assert harmless("\x1b[1mbold\x1b[0m\tx") == "bold\tx"
    assert len(harmless("x" * 10**6)) < MAX_LINE + 50
    many = shown([str(n) for n in range(10**4)])
    assert len(many) <= MAX_MESSAGE + 1
    assert (many[0], many[-1]) == ("0", "9999")


def test_moments() -> None:
    assert moment("") == ""
    assert moment("2026-11-30T02:00") == "2026-11-30T02:00"
    ago = time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() - 7200))
    assert moment("2h")[:13] == ago
    assert moment("999999999d") == "1970-01-01T00:00:00"
    for text in ("soon", "2h ago", "2026-11-30T02:00'", "2026-11-30T02:00\n"):
        with pytest.raises(ValueError, match="neither such as 10min"):
            moment(text)


def test_a_long_log_is_looked_into_before_a_time(tmp_path: Path) -> None:
    def written(number: int) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(number))
        return f"{moment}.000Z INFO a.b number {number}\n"

    lines = [written(n) + "printed\n" * (n % 7) for n in range(20_000)]
    (tmp_path / "W.log.1").write_text("".join(lines[:10_000]))
    (tmp_path / "W.log").write_text("".join(lines[10_000:]))
    for number in (5, 9_999, 10_000, 10_001, 15_000, 19_999):
        wanted = Wanted("INFO", "number", until=written(number)[:23] + "Z")
        (passage,) = passages(tmp_path, wanted, 3, {})
        found = [text for text in passage.lines if "number" in text]
        assert found[-1] == written(number - 1).rstrip()


@pytest.mark.processes
def test_a_log_is_turned_over_and_outlives_the_process_that_was_killed() -> None:
    with LocalCluster({PROGRAM: 1}, SETTINGS) as cluster:
        worker = Manager().get_available_workers("Talking")[0]
        with pytest.raises(WorkError, match="SIGKILL"):
            worker.submit(WorkPiece(lines=LINES)).result(60)
        logs = cluster.place.logs
        sizes = [path.stat().st_size for path in logs.glob("Talking-1.log*")]
        assert len(sizes) == 3
        assert max(sizes) <= SETTINGS["workshop.log_bytes"]
        (seen,) = passages(logs, Wanted(), LINES, {}, ["Talking-1"])
        said = [m for m in map(head_of, seen.lines) if m is not None]
        numbers = [
            int(text.rpartition(" ")[2]) for text in seen.lines if "said" in text
        ]
        # to the very last word before the kill, and none is missing before it
        assert numbers[-1] == LINES - 1
        assert numbers == list(range(numbers[0], LINES))
        assert len(numbers) > LINES // 4
        assert {head.level for head in said} == {"WARNING"}
        assert all(re.fullmatch(r"[0-9a-f]{8}:\d+", head.piece) for head in said)
