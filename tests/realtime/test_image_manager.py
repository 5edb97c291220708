"""Items become images and records, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imaging_scene import START_NS, bytes_of, frames_of, observation

from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.errors import ImageIndexError, RequestError
from muser_pipeline.raw import encode_frames
from muser_pipeline.realtime import ImageIndex, MUSERImageManager, making
from muser_pipeline.realtime.index import default_url
from opencluster import WorkPiece
from opencluster.engines.choice import close_engines
from opencluster.errors import PieceFailed

OPTIONS: dict[str, Any] = {
    "size": 128,
    "cell_arcsec": 36.0,
    "iterations": 20,
    "polarizations": ["RR"],
    "bands": [0, 1],
    "flag_known": False,
    "disk": False,
    "register": False,
}


@pytest.fixture(scope="module")
def manager() -> Iterator[MUSERImageManager]:
    yield MUSERImageManager("local")
    close_engines()


@pytest.fixture(scope="module")
def item() -> bytes:
    return bytes_of(observation(), 8)


def run(
    manager: MUSERImageManager, out: Path, frames: object, **rest: Any
) -> WorkPiece:
    options = OPTIONS | {"out": out} | rest.pop("options", {})
    return manager.run(WorkPiece(frames=frames, options=options, **rest))


def times_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.fits")}


def test_an_item_becomes_images_that_are_in_the_index(
    manager: MUSERImageManager, item: bytes, tmp_path: Path
) -> None:
    result = run(manager, tmp_path, item, item="first")
    assert (result["images"], result["refused"], result["skipped"]) == (2, 0, 0)
    assert result["item"] == "first"
    made = [(r["band"], r["polarization"], r["status"]) for r in result["records"]]
    assert sorted(made) == [(band, "RR", "image") for band in (0, 1)]
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        there = {record.id: record for record in index.latest()}
        assert len(there) == 2
        for record in result["records"]:
            assert there[record["id"]].fits == record["fits"]
            assert (tmp_path / record["fits"]).exists()
    # all images of a band have one time
    assert {r["time_utc_ns"] - START_NS for r in result["records"]} == {
        FRAME_PERIOD_NS // 2,
        5 * FRAME_PERIOD_NS // 2,
    }


def test_the_same_item_twice_is_done_once(
    manager: MUSERImageManager, item: bytes, tmp_path: Path
) -> None:
    first = run(manager, tmp_path, item)
    before = times_of(tmp_path)
    # bytes may come as any buffer
    second = run(manager, tmp_path, np.frombuffer(item, np.uint8))
    assert [r["id"] for r in second["records"]] == [r["id"] for r in first["records"]]
    assert times_of(tmp_path) == before
    assert len(before) == 2


def test_of_an_item_that_was_broken_off_the_rest_is_made(
    manager: MUSERImageManager, item: bytes, tmp_path: Path
) -> None:
    run(manager, tmp_path, item, options={"bands": [1]})
    before = times_of(tmp_path)
    result = run(manager, tmp_path, item)
    assert result["images"] == 2
    after = times_of(tmp_path)
    assert len(after) == 2
    assert before.items() < after.items()


def test_frames_that_cannot_be_read_are_counted(
    manager: MUSERImageManager, item: bytes, tmp_path: Path
) -> None:
    spoilt = bytearray(item)
    spoilt[300_000:300_028] = bytes(28)
    result = run(manager, tmp_path, bytes(spoilt))
    assert result["skipped"] == 1
    # frame 3 is the right hand of band 1: of that there is the left one alone
    assert [(r["band"], r["polarization"]) for r in result["records"]] == [
        *((0, "RR"), (1, "LL")),
    ]


@pytest.mark.parametrize(
    ("frames", "array", "told"),
    [
        (b"", 1, "frames: received frames: there is nothing in them"),
        (bytes(range(256)) * 800, 1, "no frame of MUSER is in it: there is no sync"),
        (None, 2, "received frames: of MUSER-I, not of MUSER-II"),
    ],
)
def test_an_item_without_frames_is_a_record(
    manager: MUSERImageManager,
    item: bytes,
    tmp_path: Path,
    frames: bytes | None,
    array: int,
    told: str,
) -> None:
    data = item if frames is None else frames
    for _ in range(2):
        result = run(manager, tmp_path, data, array=array, time_utc_ns=START_NS)
        (record,) = result["records"]
        assert (record["status"], record["band"]) == ("refused", -1)
        assert told in record["reason"]
        assert (result["images"], result["refused"]) == (0, 1)
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        assert len(index.since(0)) == 1
        assert index.latest() == []
        assert index.latest(status="refused")[0].time_utc_ns == START_NS


def test_images_that_are_refused_are_records(
    manager: MUSERImageManager, tmp_path: Path
) -> None:
    frames = frames_of(observation(), 8)
    values = frames.visibilities.copy()
    values[frames.band == 1] = 0
    data = encode_frames(frames.replace(visibilities=values)).tobytes()
    result = run(manager, tmp_path, data)
    assert (result["images"], result["refused"]) == (1, 1)
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        assert {record.band for record in index.latest()} == {0}
        refused = index.latest(status="refused")
    assert {record.band for record in refused} == {1}
    assert all(record.reason.startswith("zero: all") for record in refused)


def test_where_nothing_can_be_written_the_item_is_to_be_done_again(
    manager: MUSERImageManager, item: bytes, tmp_path: Path
) -> None:
    (tmp_path / "20151101").touch()
    with pytest.raises(PieceFailed, match=r"(FileExists|NotADirectory)Error"):
        run(manager, tmp_path, item)
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        assert index.since(0) == []
    (tmp_path / "20151101").unlink()
    assert run(manager, tmp_path, item)["images"] == 2


def test_a_slice_that_fails_does_not_take_the_others_with_it(
    manager: MUSERImageManager,
    item: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish = making.publish

    def fail(image: Any, folder: Path, name: str) -> Any:
        if "_b1" in name:
            raise RuntimeError("the pens are dry")
        return publish(image, folder, name)

    monkeypatch.setattr(making, "publish", fail)
    result = run(manager, tmp_path, item)
    assert (result["images"], result["refused"]) == (1, 1)
    reasons = {r["reason"] for r in result["records"] if r["status"] == "refused"}
    (reason,) = reasons
    assert reason.startswith("RuntimeError: the pens are dry")


def test_progress_tells_how_many_images_there_are(item: bytes, tmp_path: Path) -> None:
    class Shown(MUSERImageManager):
        seen: list[tuple[float, float]] = []  # noqa: RUF012

        def progress(self, done: float, total: float = 1.0) -> None:
            self.seen.append((done, total))

    run(Shown("local"), tmp_path, item)
    assert Shown.seen[-1] == (2, 2)
    assert sorted(Shown.seen) == Shown.seen


@pytest.mark.parametrize(
    ("task", "error", "told"),
    [
        ({"size": 512}, RequestError, "an item has no size: it has item, frames"),
        ({"array": 3}, RequestError, "array: 3 is not one of 1, 2"),
        ({"options": {"out": ""}}, RequestError, "out: '' is no path"),
        ({"options": {"bands": [9]}}, RequestError, "bands: MUSER-I has the bands"),
        ({"options": {"index": "x"}}, ImageIndexError, "no URL of an index"),
    ],
)
def test_what_is_wrong_with_a_task_is_told(
    manager: MUSERImageManager,
    tmp_path: Path,
    task: dict[str, Any],
    error: type[Exception],
    told: str,
) -> None:
    with pytest.raises(error, match=told):
        run(manager, tmp_path, b"", **task)
