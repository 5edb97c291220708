"""The index of images, in both kinds of database."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from postgres_server import PostgresServer

from muser_pipeline.errors import ImageIndexError
from muser_pipeline.realtime import index as index_module
from muser_pipeline.realtime.index import ImageIndex, ImageRecord, default_url

START_NS = 1_446_350_400 * 10**9
SECOND = 10**9
NEXT = (*index_module.STEPS, ["ALTER TABLE muser_images ADD COLUMN seen INTEGER"])


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return default_url(tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.fresh_url()


@pytest.fixture
def index(url: str, tmp_path: Path) -> Iterator[ImageIndex]:
    with ImageIndex(url, tmp_path) as opened:
        yield opened


def image(second: int = 0, band: int = 0, hand: str = "RR", **rest: object):
    known = ImageRecord(
        array=1,
        time_utc_ns=START_NS + second * SECOND,
        band=band,
        polarization=hand,
        frequency_hz=4e8 + 4e8 * band,
        published_at=1000.0 + second,
    )
    return replace(known, **rest)  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was(index: ImageIndex) -> None:
    record = image(
        first_channel=8,
        unit="Jy/beam",
        peak=1.25e7,
        rms=0.1,
        dynamic_range=125.5,
        flux=-3.0,
        beam_major_arcsec=30.0,
        beam_minor_arcsec=20.5,
        beam_angle_deg=-45.0,
        iterations=1000,
        size=512,
        cell_arcsec=5.5,
        fits="a/b.fits",
        png="a/b.png",
        thumbnail="a/b-small.png",
        json="a/b.json",
        timings={"grid": 0.25, "clean": 1e-3},
    )
    number = index.add(record)
    assert index.get(number) == replace(record, id=number)
    assert index.get(number + 1) is None


def test_the_same_image_is_there_once(index: ImageIndex) -> None:
    first = index.add(image(peak=1.0))
    assert index.add(image(peak=2.0, status="refused")) == first
    others = [image(1), image(band=1), image(hand="LL"), image(first_channel=8)]
    others.append(image(array=2))
    numbers = index.add_all([*others, *others])
    assert numbers[:5] == numbers[5:]
    assert [found.peak for found in index.since(0)] == [1.0, 0, 0, 0, 0, 0]


def test_the_latest_is_that_of_the_latest_time(index: ImageIndex) -> None:
    for second in (0, 2, 1):
        index.add_all([image(second, band, hand) for band in (1, 0) for hand in "VI"])
    index.add(image(7, array=2))
    index.add(image(3, 0, "I", status="refused", reason="all antennas are flagged"))
    found = index.latest()
    assert [(f.array, f.band, f.polarization) for f in found] == [
        *((1, 0, "I"), (1, 0, "V"), (1, 1, "I"), (1, 1, "V"), (2, 0, "RR")),
    ]
    assert {f.time_utc_ns for f in found[:4]} == {START_NS + 2 * SECOND}
    assert index.latest(2) == found[4:]
    (refused,) = index.latest(status="refused")
    assert refused.reason == "all antennas are flagged"


def test_the_latest_is_found_without_a_look_at_the_others(
    index: ImageIndex, url: str
) -> None:
    """The plan of SQLite tells that no table of all images is gone through."""
    index.add_all([image(n) for n in range(50)])
    if not url.startswith("sqlite"):
        assert len(index.latest()) == 1
        return
    statements: list[str] = []

    def note(connection: object, cursor: object, text: str, *_: object) -> None:
        statements.append(text)

    index_module.event.listen(index._engine, "before_cursor_execute", note)
    assert len(index.latest()) == 1
    (query,) = (text for text in statements if text.startswith("SELECT"))
    with index._engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", ("image",))
        steps = [row[3] for row in plan]
    assert [s for s in steps if s.startswith("SCAN") and "latest" not in s] == []


def test_what_is_new_is_seen_once(index: ImageIndex) -> None:
    index.add_all([image(n) for n in range(5)])
    first = index.since(0, limit=3)
    rest = index.since(first[-1].id)
    times = [found.time_utc_ns for found in first + rest]
    assert times == [START_NS + n * SECOND for n in range(5)]
    assert index.since(rest[-1].id) == []


def test_a_time_range(index: ImageIndex) -> None:
    index.add_all([image(n, band) for n in (3, 1, 2, 0) for band in (0, 1)])
    found = index.between(START_NS + SECOND, START_NS + 3 * SECOND, band=1)
    assert [f.time_utc_ns - START_NS for f in found] == [SECOND, 2 * SECOND]
    assert {f.band for f in found} == {1}
    latest = index.between(START_NS, START_NS + 10 * SECOND, 0, "RR", limit=2)
    assert [f.time_utc_ns - START_NS for f in latest] == [2 * SECOND, 3 * SECOND]
    assert index.between(START_NS, START_NS + SECOND, polarization="LL") == []
    assert index.between(START_NS, START_NS + SECOND, array=2) == []


def test_the_neighbours_of_an_image_are_of_its_band(index: ImageIndex) -> None:
    index.add_all([image(9), image(1), image(5), image(4, band=1)])
    index.add_all([image(4, hand="LL"), image(6, first_channel=8), image(6, array=2)])
    records = {record.time_utc_ns: record for record in index.since(0)[:3]}
    first, middle, last = (records[START_NS + s * SECOND] for s in (1, 5, 9))
    assert index.neighbours(middle) == (first, last)
    assert index.neighbours(first) == (None, middle)
    assert index.neighbours(last) == (middle, None)


def test_a_light_curve_has_one_point_for_each_step(index: ImageIndex) -> None:
    index.add_all([image(s, peak=float(s), flux=10.0 * s) for s in (0, 1, 9, 10, 25)])
    index.add_all([image(3, peak=99.0, status="refused"), image(60)])
    index.add_all([image(4, hand="LL", peak=7.0), image(5, array=2)])
    points = index.curve(START_NS, START_NS + 60 * SECOND, 10 * SECOND, array=1)
    seen = [
        (p.polarization, (p.time_utc_ns - START_NS) / SECOND, p.peak, p.flux, p.images)
        for p in points
    ]
    assert seen == [
        ("LL", 4, 7.0, 0.0, 1),
        ("RR", pytest.approx(10 / 3), 9.0, pytest.approx(100 / 3), 3),
        ("RR", 10, 10.0, 100.0, 1),
        ("RR", 25, 25.0, 250.0, 1),
    ]
    assert {(p.array, p.band, p.first_channel) for p in points} == {(1, 0, 0)}


def test_old_records_go_with_their_files(index: ImageIndex, tmp_path: Path) -> None:
    for n in range(4):
        names = {kind: f"{n}.{kind}" for kind in ("fits", "png", "json")}
        for name in names.values():
            (tmp_path / name).touch()
        index.add(image(n, **names))
    index.add(image(0, 5))
    assert index.prune(1003.5) == 3
    assert {f.name for f in tmp_path.glob("[0-9]*")} == {"3.fits", "3.png", "3.json"}
    assert [f.band for f in index.latest()] == [0, 5]
    assert len(index.since(0)) == 2
    assert index.prune(1003.5) == 0


def test_more_records_go_than_one_transaction_takes(
    index: ImageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "PRUNED_AT_ONCE", 3)
    index.add_all([image(n) for n in range(11)])
    assert index.prune(5000.0) == 10


def add_many(url: str, folder: Path, hand: str) -> None:
    with ImageIndex(url, folder) as index:
        for n in range(20):
            index.add_all([image(n, 0, hand), image(n, 0, "I")])


def test_several_processes_write_at_the_same_time(url: str, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    hands = ("RR", "LL")
    writers = [
        spawn.Process(target=add_many, args=(url, tmp_path, hand)) for hand in hands
    ]
    for writer in writers:
        writer.start()
    seen: list[ImageRecord] = []
    with ImageIndex(url, tmp_path) as index:
        while any(writer.is_alive() for writer in writers):
            seen += index.since(seen[-1].id if seen else 0)
        seen += index.since(seen[-1].id if seen else 0)
        assert [writer.exitcode for writer in writers] == [0, 0]
        # whoever reads meanwhile sees all, each once
        assert seen == index.since(0)
        assert len(seen) == 60
        assert len(index.latest()) == 3


def test_a_process_that_is_forked_has_connections_of_its_own(
    index: ImageIndex, url: str, tmp_path: Path
) -> None:
    index.add(image(0))
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=index.add, args=(image(1),))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert len(index.since(0)) == 2


def test_the_tables_are_as_queries_know_them(index: ImageIndex) -> None:
    for table in (index_module._IMAGES, index_module._LATEST):
        with index._engine.connect() as connection:
            there = index_module.sql.inspect(connection).get_columns(table.name)
        assert {column["name"] for column in there} == set(table.columns.keys())


def test_an_index_is_brought_to_the_next_version(
    index: ImageIndex, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(image())
    with monkeypatch.context() as newer:
        newer.setattr(index_module, "STEPS", NEXT)
        with ImageIndex(url, tmp_path), ImageIndex(url, tmp_path):
            pass
    with pytest.raises(ImageIndexError, match="of version 2, and this program knows"):
        ImageIndex(url, tmp_path)


def test_a_step_that_fails_leaves_the_version_before(
    index: ImageIndex, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(index_module, "STEPS", (*NEXT, ["DROP TABLE of_no_such_name"]))
        with pytest.raises(ImageIndexError, match="of_no_such_name"):
            ImageIndex(url, tmp_path)
    with ImageIndex(url, tmp_path) as again:
        again.add(image())


def test_many_open_a_new_index_at_the_same_time(url: str, tmp_path: Path) -> None:
    gate = threading.Barrier(6)
    numbers: list[int] = []
    with ExitStack() as stack:

        def open_it() -> None:
            gate.wait()
            opened = stack.enter_context(ImageIndex(url, tmp_path))
            numbers.append(opened.add(image(len(numbers))))

        threads = [threading.Thread(target=open_it) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(numbers) == 6


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("no url", "is no URL of an index of images"),
        ("sqlite://", "must begin with postgresql://"),
        ("mysql://user:secret@host/name", r"not mysql://user:\*\*\*@host/name"),
        ("sqlite:////of/no/such/folder/images.db", "unable to open database file"),
        ("postgresql://nobody@/x?host=/of/no/such/folder", "cannot be used"),
    ],
)
def test_an_index_that_cannot_be(url: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ImageIndexError, match=told) as caught:
        ImageIndex(url, tmp_path)
    assert "secret" not in str(caught.value)
