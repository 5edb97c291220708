"""Dead letters on disk: whole or not there, bounded, unharmed by strange files."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from opencluster import WorkPiece
from opencluster.errors import LetterError, RequestRefused
from opencluster.store import letter_reading
from opencluster.store.dead_letters import (
    MARK,
    MAX_HEAD_BYTES,
    STALE_S,
    DeadLetters,
    new_id,
)
from opencluster.wire import codec, stored

DEATH = {"reason": "killed by signal SIGKILL", "worker": "Fit-1", "host": "node1"}
HEAD: dict[str, Any] = {
    "at": 5.0,
    "type": "Fit",
    "number": 3,
    "job": {"id": "j1", "name": "FitManager"},
    "host": "node1",
    "user": "ann",
    "options": {"retries": 3},
    "deaths": [DEATH, DEATH | {"reason": "killed by signal SIGSEGV"}],
    "refs": [],
}
ID = "0123456789ab"


@pytest.fixture
def kept(tmp_path: Path) -> DeadLetters:
    return DeadLetters(tmp_path / "letters")


def write(kept: DeadLetters, id: str = "", value: Any = 1, **head: Any) -> str:
    id = id or new_id()
    data, buffers = codec.encode(value)
    kept.write(id, HEAD | head, data, buffers)
    return id


def test_a_letter_has_the_work_with_its_arrays_and_the_evidence(
    kept: DeadLetters,
) -> None:
    work = WorkPiece(array=np.arange(100_000.0), name="Sun")
    id = write(kept, value=work)
    found = stored.unpack(kept.work(id))
    assert found["name"] == "Sun"
    assert np.array_equal(found["array"], work["array"])
    head = kept.head(id)
    assert head["id"] == id
    assert [death | DEATH for death in head["deaths"][:1]] == head["deaths"][:1]
    (row,) = kept.rows()
    assert (row["deaths"], row["reason"]) == (2, "killed by signal SIGSEGV")


def test_the_work_is_read_in_parts(kept: DeadLetters) -> None:
    id = write(kept, value=b"x" * 1000)
    whole = kept.work(id)
    parts = [kept.work(id, offset, 300) for offset in range(0, len(whole), 300)]
    assert b"".join(parts) == whole
    assert kept.work(id, len(whole), 300) == b""
    assert kept.work(id, -5, -5) == b""


def test_only_its_owner_can_look_into_a_letter(
    kept: DeadLetters, tmp_path: Path
) -> None:
    write(kept)
    (path,) = (tmp_path / "letters").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_deleted_letter_is_gone(kept: DeadLetters) -> None:
    id = write(kept)
    kept.delete(id)
    assert kept.rows() == [] and not kept.has(id)
    for ask in (kept.delete, kept.head, kept.work):
        with pytest.raises(LetterError, match="there is no dead letter"):
            ask(id)


# --- bounds -------------------------------------------------------------------


def test_the_oldest_letter_makes_room_for_a_new_one(tmp_path: Path) -> None:
    kept = DeadLetters(tmp_path, most=3)
    ids = []
    for number in range(5):
        ids.append(write(kept, at=float(number)))
        os.utime(tmp_path / f"{ids[-1]}.letter", (number, number))
    assert [row["id"] for row in kept.rows()] == ids[:1:-1]


def test_letters_take_no_more_room_than_they_may(tmp_path: Path) -> None:
    kept = DeadLetters(tmp_path, most_bytes=3000)
    for number in range(4):
        id = write(kept, value=b"x" * 1000, at=float(number))
        os.utime(tmp_path / f"{id}.letter", (number, number))
    assert 0 < sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000
    with pytest.raises(LetterError, match="letters_bytes"):
        write(kept, value=b"x" * 3000)
    assert kept.rows()[0]["at"] == 3.0


def test_none_are_kept_where_none_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(LetterError, match="letters_kept is 0"):
        write(DeadLetters(tmp_path / "letters", most=0))
    assert not (tmp_path / "letters").exists()


# --- a disk that does not take it ------------------------------------------------


def test_nothing_is_left_of_a_letter_for_which_the_disk_has_no_room(
    kept: DeadLetters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LetterError, match="No space left on device"):
        write(kept)
    assert list((tmp_path / "letters").iterdir()) == []


def test_a_draft_that_nobody_finished_is_removed_in_time(
    kept: DeadLetters, tmp_path: Path
) -> None:
    write(kept)
    old, new = (tmp_path / "letters" / f".{name}.draft" for name in ("old", "new"))
    for draft in (old, new):
        draft.touch()
    os.utime(old, (0, time.time() - 2 * STALE_S))
    write(kept)
    assert (old.exists(), new.exists()) == (False, True)


# --- strange files ----------------------------------------------------------------


def head_of(fields: Any) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return MARK + len(packed).to_bytes(4, "big") + packed


STRANGE: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "endless head": MARK + (MAX_HEAD_BYTES + 1).to_bytes(4, "big"),
    "torn head": MARK + (100).to_bytes(4, "big") + b"\x81",
    "no mapping": head_of([1, 2]),
    "deep": MARK + (2000).to_bytes(4, "big") + b"\x91" * 2000,
    "nothing in it": head_of({}),
    "keys are no texts": head_of({b"a": 1}),
    "evidence is none": head_of(HEAD | {"deaths": ["x"], "nbytes": 0}),
    "no time": head_of(HEAD | {"at": float("nan"), "nbytes": 0}),
    "far future": head_of(HEAD | {"at": 1e300, "nbytes": 0}),
    "torn work": head_of(HEAD | {"nbytes": 1000}) + b"x",
    "negative work": head_of(HEAD | {"nbytes": -1}),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_file_is_no_letter_and_hides_no_other(
    kept: DeadLetters, tmp_path: Path, name: str
) -> None:
    good = write(kept)
    (tmp_path / "letters" / f"{ID}.letter").write_bytes(STRANGE[name])
    with pytest.raises(LetterError, match=f"{ID} cannot be read"):
        kept.head(ID)
    assert [row["id"] for row in kept.rows()] == [good]


MAKERS: dict[str, Callable[[Path], None]] = {
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_no_file_is_neither_followed_nor_waited_for(
    kept: DeadLetters, tmp_path: Path, name: str
) -> None:
    good = write(kept)
    MAKERS[name](tmp_path / "letters" / f"{ID}.letter")
    with pytest.raises(LetterError, match="cannot be read"):
        kept.work(ID)
    assert [row["id"] for row in kept.rows()] == [good]


@pytest.mark.parametrize(
    "id", ["", "../../etc/pass", "0123456789AB", "0123456789ab\n", None, 7]
)
def test_what_is_no_name_of_a_letter_is_no_path(kept: DeadLetters, id: Any) -> None:
    for ask in (kept.head, kept.work, kept.delete, kept.has):
        with pytest.raises(LetterError, match="is no dead letter"):
            ask(id)


def test_evidence_of_strange_types_is_left_out(kept: DeadLetters) -> None:
    strange = {"reason": 7, "peak_memory_bytes": "many", "output": ["x"], "more": 1}
    (death,) = kept.head(write(kept, deaths=[strange]))["deaths"]
    assert death["reason"] == "for an unknown reason"
    assert (death["peak_memory_bytes"], death["output"]) == (0, "")


# --- what a workshop answers ---------------------------------------------------


def test_a_workshop_answers_in_messages_of_bounded_size(kept: DeadLetters) -> None:
    ids = [write(kept, value=b"x" * 5000, at=float(n)) for n in range(5)]
    told = letter_reading.letters(kept, {}, 3 * letter_reading.ROW_BYTES)
    assert [row["id"] for row in told["letters"]] == ids[:1:-1]
    (one,) = letter_reading.letters(kept, {"id": ids[0]}, 1000)["letters"]
    assert [d["reason"] for d in one["deaths"]] == [d["reason"] for d in HEAD["deaths"]]
    asked = {"id": ids[0], "offset": 0, "length": 10**9}
    assert len(letter_reading.work(kept, asked, 1000)) == 1000
    with pytest.raises(RequestRefused, match="two integers"):
        letter_reading.work(kept, asked | {"offset": "0"}, 1000)
    letter_reading.delete(kept, {"id": ids[0]})
    assert not kept.has(ids[0])
