"""Items on disk: what is kept, what a crash costs, and what no room means."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from opencluster.errors import IngestError
from opencluster.store import spool as spool_module
from opencluster.store.spool import (
    DONE,
    DROPPED,
    FAILED,
    SMALL_BYTES,
    Draft,
    Ending,
    ItemDamaged,
    Spool,
    SpoolFull,
    Stored,
)

LARGE = bytes(range(256)) * 1000
"""Larger than what goes into the book."""
Opening = Callable[..., Spool]


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Opening]:
    opened: list[Spool] = []

    def open_spool(folder: Path | None = None, **settings: Any) -> Spool:
        given = {
            "max_bytes": 10**9,
            "margin_bytes": 0,
            "kept_s": 1e6,
            "failed_bytes": 10**6,
        }
        opened.append(Spool(folder or tmp_path / "spool", **{**given, **settings}))
        return opened[-1]

    yield open_spool
    for spool in opened:
        spool.close()


def draft(spool: Spool, id: str, data: bytes) -> Draft:
    made = spool.begin(id, len(data))
    for start in range(0, len(data), 50_000):
        made.write(memoryview(data)[start : start + 50_000])
    return made


def kept(spool: Spool, id: str, data: bytes) -> Stored:
    (item,) = spool.commit([draft(spool, id, data)], [])
    assert item is not None
    return item


def reopened(spool: Spool, opening: Opening) -> Spool:
    """Open the spool as it would be found if everything ended now."""
    copy = spool.folder.with_name("copy")
    shutil.copytree(spool.folder, copy)
    return opening(copy)


@pytest.mark.parametrize(
    "data", [b"", b"small", LARGE], ids=["empty", "small", "large"]
)
def test_what_is_kept_is_there_after_a_crash(data: bytes, opening: Opening) -> None:
    spool = opening()
    made = draft(spool, "a", data)
    made.about = {"array": 1}
    (item,) = spool.commit([made], [])
    after = reopened(spool, opening)
    assert after.waiting() == [item]
    (found,) = after.waiting()
    assert (found.id, found.size, found.about) == ("a", len(data), {"array": 1})
    assert bytes(after.read(found)) == data
    assert after.used_bytes == spool.used_bytes == len(data)
    assert bool(found.file) == (len(data) > SMALL_BYTES)


def test_items_keep_their_order_and_each_name_counts_once(opening: Opening) -> None:
    spool = opening()
    drafts = [draft(spool, id, LARGE) for id in ("b", "a", "b")]
    found = spool.commit(drafts, [])
    assert [item and item.id for item in found] == ["b", "a", None]
    assert [item.id for item in spool.waiting()] == ["b", "a"]
    assert spool.used_bytes == 2 * len(LARGE)
    assert len(list(spool.folder.glob("*.item"))) == 2
    assert spool.knows("a") and not spool.knows("c")
    assert spool.commit([draft(spool, "a", b"other")], []) == [None]


def test_what_has_ended_is_gone_and_not_forgotten(opening: Opening) -> None:
    spool = opening()
    items = [kept(spool, id, LARGE) for id in "abc"]
    endings = [Ending(items[0], DONE), Ending(items[1], DROPPED, "too much")]
    spool.commit([], endings)
    after = reopened(spool, opening)
    for each in (spool, after):
        assert [item.id for item in each.waiting()] == ["c"]
        assert each.used_bytes == len(LARGE)
        assert len(list(each.folder.glob("*.item"))) == 1
        assert each.knows("a") and each.knows("b")


def test_names_are_forgotten_in_time(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opening(kept_s=100.0)
    now = [spool_module.time.time()]
    monkeypatch.setattr(spool_module.time, "time", lambda: now[0])
    first, second = (kept(spool, id, b"x") for id in "ab")
    spool.commit([], [Ending(first, DONE)])
    now[0] += 101.0
    spool.commit([], [Ending(second, DONE)])
    assert not spool.knows("a")
    assert spool.knows("b")


def test_items_that_failed_are_put_aside_and_the_oldest_go(opening: Opening) -> None:
    spool = opening(failed_bytes=2 * len(LARGE))
    items = [kept(spool, id, data) for id, data in zip("abc", [LARGE] * 3, strict=True)]
    small = kept(spool, "d", b"small")
    for item in [*items, small]:
        spool.commit([], [Ending(item, FAILED, "ValueError: no")])
    there = sorted((spool.folder / "failed").iterdir())
    assert [path.read_bytes() for path in there] == [LARGE, b"small"]
    assert spool.waiting() == []
    assert spool.used_bytes == 0


def test_files_that_nobody_accepted_are_removed(opening: Opening) -> None:
    spool = opening()
    item = kept(spool, "a", LARGE)
    draft(spool, "half", LARGE)
    assert len(list(spool.folder.glob("*.item"))) == 2
    after = reopened(spool, opening)
    assert [path.name for path in after.folder.glob("*.item")] == [item.file]
    assert not after.knows("half")


@pytest.mark.parametrize("part", [0.3, 0.99])
def test_the_torn_end_of_the_book_is_cut_off(part: float, opening: Opening) -> None:
    spool = opening()
    kept(spool, "a", b"first")
    log = spool.folder / "items.db-wal"
    before = log.stat().st_size
    kept(spool, "b", b"second" * 1000)
    whole = log.read_bytes()
    copy = spool.folder.with_name("torn")
    shutil.copytree(spool.folder, copy)
    # a crash while the second one was written down
    end = before + int(part * (len(whole) - before))
    (copy / "items.db-wal").write_bytes(whole[:end])
    after = opening(copy)
    assert [item.id for item in after.waiting()] == ["a"]
    assert kept(after, "b", b"again").number == 2


def test_a_wrong_byte_in_the_end_of_the_book_is_seen(opening: Opening) -> None:
    spool = opening()
    kept(spool, "a", b"first")
    before = (spool.folder / "items.db-wal").stat().st_size
    kept(spool, "b", b"second" * 1000)
    copy = spool.folder.with_name("torn")
    shutil.copytree(spool.folder, copy)
    log = bytearray((copy / "items.db-wal").read_bytes())
    log[before + 2000] ^= 1
    (copy / "items.db-wal").write_bytes(log)
    assert [item.id for item in opening(copy).waiting()] == ["a"]


def test_an_item_that_the_disk_has_changed_is_not_taken_for_good(
    opening: Opening,
) -> None:
    spool = opening()
    changed, short = kept(spool, "a", LARGE), kept(spool, "b", LARGE)
    with (spool.folder / changed.file).open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    os.truncate(spool.folder / short.file, 1000)
    with pytest.raises(ItemDamaged, match="item a: its checksum is wrong"):
        spool.read(changed)
    with pytest.raises(ItemDamaged, match="item b: 1000 of 256000 bytes are there"):
        spool.read(short)


def test_bytes_stay_when_their_item_is_removed(opening: Opening) -> None:
    spool = opening()
    item = kept(spool, "a", LARGE)
    data = spool.read(item)
    spool.commit([], [Ending(item, DONE)])
    assert not list(spool.folder.glob("*.item"))
    assert bytes(data) == LARGE


def test_many_read_what_has_just_been_kept(opening: Opening) -> None:
    spool = opening()
    kept_items: SimpleQueue[Stored | None] = SimpleQueue()
    problems = []

    def read() -> None:
        while (item := kept_items.get()) is not None:
            try:
                assert spool.knows(item.id)
                assert bytes(spool.read(item)) == item.id.encode() * 5000
            except (OSError, AssertionError) as problem:
                problems.append(problem)

    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    for n in range(150):
        drafts = [draft(spool, f"{n}-{k}", f"{n}-{k}".encode() * 5000) for k in "abc"]
        for item in spool.commit(drafts, []):
            kept_items.put(item)
    for _ in readers:
        kept_items.put(None)
    for reader in readers:
        reader.join()
    assert not problems


def test_room_is_kept_from_the_beginning_and_given_back(opening: Opening) -> None:
    spool = opening(max_bytes=500_000)
    first = spool.begin("a", 300_000)
    with pytest.raises(SpoolFull, match="the 500,000 bytes of the spool are used"):
        spool.begin("b", 300_000)
    first.discard()
    second = draft(spool, "b", LARGE)
    second.write(bytes(200_000))
    with pytest.raises(SpoolFull):
        second.write(bytes(100_000))
    # what could not be written leaves nothing, and is tried again
    second.write(bytes(1000))
    (item,) = spool.commit([second], [])
    assert item is not None
    assert bytes(spool.read(item)) == LARGE + bytes(201_000)
    assert spool.used_bytes == item.size == 457_000


def test_an_item_gets_the_room_that_it_needs_and_no_more(opening: Opening) -> None:
    spool = opening(max_bytes=1_000_000)
    made = spool.begin("a", 900_000)
    made.write(b"little")
    spool.commit([made], [])
    assert spool.used_bytes == 6
    spool.begin("b", 900_000).discard()
    assert spool.used_bytes == 6


def test_a_folder_has_one_owner(opening: Opening) -> None:
    spool = opening()
    with pytest.raises(IngestError, match="in use by another server"):
        opening(spool.folder)


def test_a_folder_that_cannot_be_used_is_named(
    opening: Opening, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IngestError, match="file/spool cannot be used"):
        opening(tmp_path / "file" / "spool")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "items.db").write_bytes(b"no book of ours" * 1000)
    with pytest.raises(IngestError, match="odd cannot be used: file is not a database"):
        opening(tmp_path / "odd")


def test_nothing_is_half_written_down(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opening()
    item = kept(spool, "a", LARGE)

    def broken(*given: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_forget", broken)
        with pytest.raises(OSError, match="disk I/O error"):
            spool.commit([draft(spool, "b", LARGE)], [Ending(item, DONE)])
    assert not spool.knows("b")
    assert [each.id for each in spool.waiting()] == ["a"]
    assert len(list(spool.folder.glob("*.item"))) == 1
    assert spool.used_bytes == len(LARGE)
    spool.commit([], [Ending(item, DONE)])
    assert spool.waiting() == []
