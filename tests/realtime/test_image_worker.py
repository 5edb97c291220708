"""Slices become images, whatever is in them and however little memory there is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from imaging_scene import (
    JANSKY_PER_UNIT,
    SPOT,
    START_NS,
    bytes_of,
    frames_of,
    observation,
)

from muser_pipeline.array import load_array
from muser_pipeline.imaging.backend import cupy_or_none
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.pipeline import Progress, make_image
from muser_pipeline.imaging.visibilities import Snapshot
from muser_pipeline.raw import encode_frames
from muser_pipeline.realtime.cutting import cut, read_item
from muser_pipeline.realtime.devices import Computer
from muser_pipeline.realtime.image_worker import MUSERImageWorker, sees_gpu
from muser_pipeline.realtime.index import ImageRecord
from muser_pipeline.realtime.making import IN_PARTS, ON_CPU, ImageMaker
from muser_pipeline.realtime.naming import folder_of, name_of
from muser_pipeline.realtime.options import ImageRequest
from opencluster import WorkPiece

SIZE = 256
ASKED: dict[str, Any] = {
    "size": SIZE,
    "cell_arcsec": 18.0,
    "iterations": 100,
    "bands": [0],
    "polarizations": ["RR"],
    "flag_known": False,
    "disk": False,
    "register": False,
    "jansky_per_unit": JANSKY_PER_UNIT,
}


class CoolWorker(MUSERImageWorker):
    """One that is not warmed up: that takes longer than these images."""

    worker_type = "MUSERImageOfTests"

    def startup(self) -> None:
        self._maker = self.make_maker()


class ShortWorker(CoolWorker):
    """One whose GPU has so much memory."""

    def __init__(self, nbytes: int) -> None:
        super().__init__("cuda")
        self.nbytes = nbytes

    def make_maker(self) -> ImageMaker:
        return ImageMaker([ShortGpu(self.nbytes), Computer("cpu")], self.show)


class ShortGpu(Computer):
    """Stands in for a GPU: it computes on the CPU, but its allocator is CuPy's.

    An image needs so much, and what is kept from others is there besides.
    """

    NEEDED = 100

    def __init__(self, nbytes: int) -> None:
        super().__init__("cuda")
        self.nbytes = nbytes
        self.kept = 0

    def make(
        self, snapshot: Snapshot, options: ImageOptions, progress: Progress | None
    ) -> Image:
        if self.kept + self.NEEDED > self.nbytes:
            raise MemoryError(f"Out of memory allocating {self.NEEDED} bytes")
        self.kept += self.NEEDED
        return make_image(snapshot, options, shelf=self.shelf, progress=progress)

    def free(self) -> None:
        self.shelf.clear()
        self.kept = 0

    def memory(self) -> dict[str, int]:
        return {"gpu_memory_used": self.kept, "gpu_memory_total": self.nbytes}


def started(worker: MUSERImageWorker) -> MUSERImageWorker:
    worker.startup()
    return worker


@pytest.fixture(scope="module")
def worker() -> MUSERImageWorker:
    return started(CoolWorker("cpu"))


def results(
    worker: MUSERImageWorker, data: bytes, out: Path, **asked: object
) -> Iterator[WorkPiece]:
    request = ImageRequest.read({"out": out, **ASKED, **asked})
    item = read_item(data, 1, request)
    for piece in cut(item, request, together=True):
        yield worker.perform(WorkPiece(request=request.plain(), slice=piece.plain()))


def records(
    worker: MUSERImageWorker, data: bytes, out: Path, **asked: object
) -> list[ImageRecord]:
    found = results(worker, data, out, **asked)
    return [ImageRecord(**record) for each in found for record in each["records"]]


def test_a_slice_becomes_files_and_a_record(
    worker: MUSERImageWorker, tmp_path: Path
) -> None:
    (record,) = records(worker, bytes_of(observation(), 8), tmp_path)
    jansky = 50 * 1.5 * 1e4
    assert record.status == "image"
    assert (record.array, record.band, record.polarization) == (1, 0, "RR")
    assert record.time_utc_ns == START_NS + 1_562_500
    assert record.frequency_hz == 600e6
    assert record.peak == pytest.approx(jansky, rel=0.02)
    assert record.dynamic_range == pytest.approx(record.peak / record.rms)
    assert record.unit == "Jy"
    assert (record.size, record.iterations) == (SIZE, 100)
    assert record.cell_arcsec == pytest.approx(18.0)
    assert record.beam_major_arcsec > record.beam_minor_arcsec > 60
    assert {"prepare", "clean", "publish"} < record.timings.keys()
    assert record.fits == "20151101/04/MUSER-I_20151101T040000.001_b0c00_RR.fits"
    for name in (record.fits, record.png, record.thumbnail, record.json):
        assert (tmp_path / name).stat().st_size > 0
    assert json.loads((tmp_path / record.json).read_text())["peak"] == record.peak
    with fits.open(tmp_path / record.fits) as file:
        image = file[0].data
        place = np.unravel_index(np.argmax(image), image.shape)
    x, y = SPOT.x_arcsec / 18, SPOT.y_arcsec / 18
    assert place == (round(SIZE / 2 + y), round(SIZE / 2 + x))


def test_channels_may_be_imaged_apart(worker: MUSERImageWorker, tmp_path: Path) -> None:
    found = records(worker, bytes_of(observation(), 8), tmp_path, channels=8)
    assert [record.first_channel for record in found] == [0, 8]
    assert [record.frequency_hz for record in found] == [500e6, 700e6]
    assert len({record.fits for record in found}) == 2
    widths = [record.beam_major_arcsec for record in found]
    assert widths[0] == pytest.approx(widths[1] * 7 / 5, rel=0.05)


def test_the_same_slice_gives_the_same_image(
    worker: MUSERImageWorker, tmp_path: Path
) -> None:
    data = bytes_of(observation(), 8)
    first, second = (
        records(worker, data, tmp_path / name)[0] for name in ("first", "second")
    )
    assert first.fits == second.fits
    images = [
        fits.getdata(tmp_path / name / first.fits) for name in ("first", "second")
    ]
    assert np.array_equal(*images)


SPOILT = [
    ({"flag_inputs": list(range(40))}, "flagged: all 12480 visibilities of RR are"),
    ({"flag_inputs": list(range(2, 40))}, "one-baseline: all visibilities of RR are"),
    ({"size": 64}, "field: 64 pixels of 18 arcsec are 19.2 arcmin: the Sun"),
    ({"calibration": "/nowhere.cal"}, "frames: [Errno 2] No such file"),
]


@pytest.mark.parametrize(("asked", "told"), SPOILT)
def test_what_gives_no_image_gives_a_record(
    worker: MUSERImageWorker, tmp_path: Path, asked: dict[str, Any], told: str
) -> None:
    (record,) = records(worker, bytes_of(observation(), 8), tmp_path, **asked)
    assert record.status == "refused"
    assert record.reason.startswith(told)
    assert (record.fits, record.peak, record.band) == ("", 0.0, 0)
    assert record.frequency_hz == 600e6
    assert list(tmp_path.iterdir()) == []


def test_visibilities_of_zero_give_a_record(
    worker: MUSERImageWorker, tmp_path: Path
) -> None:
    frames = frames_of(observation(), 8)
    data = encode_frames(frames.replace(visibilities=0 * frames.visibilities)).tobytes()
    (record,) = records(worker, data, tmp_path)
    assert record.status == "refused"
    assert record.reason.startswith("zero: all 12480 visibilities of RR are zero")


def test_delays_that_cannot_be_give_a_record(
    worker: MUSERImageWorker, tmp_path: Path
) -> None:
    coded = encode_frames(frames_of(observation(fringes_stopped=False), 8))
    # the delays in the last block: 0xFF has no meaning in them
    start = 2944 + 7 * 12128 + 11392
    for group in range(11):
        coded[:, start + 64 * group + 40 : start + 64 * group + 56] = 0xFF
    (record,) = records(worker, coded.tobytes(), tmp_path)
    assert record.status == "refused"
    assert record.reason.startswith("flagged: ")


def test_a_saturated_antenna_is_left_out_and_told(
    worker: MUSERImageWorker, tmp_path: Path
) -> None:
    frames = frames_of(observation(), 8)
    first, second = load_array(1).baseline_inputs()
    values, autos = frames.visibilities.copy(), frames.autocorrelations.copy()
    values[:, (first == 9) | (second == 9)] = (1 << 23) - 1
    autos[:, :, 9] = (1 << 32) - 1
    data = encode_frames(
        frames.replace(visibilities=values, autocorrelations=autos)
    ).tobytes()
    (clean,) = records(worker, bytes_of(observation(), 8), tmp_path / "clean")
    (record,) = records(worker, data, tmp_path)
    assert record.status == "image"
    assert "inputs saturated: 9" in record.reason
    assert record.peak == pytest.approx(clean.peak, rel=0.01)
    # were it used, it would be seen
    (blind,) = records(worker, data, tmp_path / "blind", flag_saturated=False)
    assert "9" in blind.reason or blind.status == "refused"


def test_memory_of_the_gpu_that_is_enough_is_not_spoken_of(tmp_path: Path) -> None:
    short = started(ShortWorker(nbytes=250))
    (result,) = results(short, bytes_of(observation(), 8), tmp_path, channels=8)
    assert [record["reason"] for record in result["records"]] == ["", ""]
    assert result["device"] == "cuda"
    assert (result["gpu_memory_used"], result["gpu_memory_total"]) == (200, 250)


@pytest.mark.parametrize(
    ("nbytes", "told"), [(150, ["", IN_PARTS]), (50, [ON_CPU, ON_CPU])]
)
def test_without_memory_images_are_made_apart_or_on_the_cpu(
    worker: MUSERImageWorker, tmp_path: Path, nbytes: int, told: list[str]
) -> None:
    data = bytes_of(observation(), 8)
    found = records(started(ShortWorker(nbytes)), data, tmp_path, channels=8)
    assert [record.reason for record in found] == told
    usual = records(worker, data, tmp_path / "usual", channels=8)
    assert [r.peak for r in found] == [r.peak for r in usual]
    assert json.loads((tmp_path / found[1].json).read_text())["notes"] == told[1:]


class Stopped(BaseException):
    pass


class StoppedWorker(CoolWorker):
    """One whose piece is interrupted while it cleans."""

    def progress(self, done: float, total: float = 1.0) -> None:
        if 0 < done < total and total > 1:
            raise Stopped


def test_a_piece_that_is_cut_short_leaves_nothing(tmp_path: Path) -> None:
    stopped = started(StoppedWorker("cpu"))
    with pytest.raises(Stopped):
        records(stopped, bytes_of(observation(), 8), tmp_path, iterations=10_000)
    assert list(tmp_path.iterdir()) == []


CUPY = "raise SystemExit('cupy is imported')"
CUPY_WITH = """
class cuda:
    class runtime:
        class CUDARuntimeError(Exception): pass
        @staticmethod
        def getDeviceCount(): return {count}
"""


@pytest.mark.parametrize(
    ("cupy", "visible", "device", "expected"),
    [
        (CUPY, "", "auto", "cpu"),
        (CUPY, None, "cpu", "cpu"),
        (CUPY_WITH.format(count=0), None, "auto", "cpu"),
        (CUPY_WITH.format(count=1), "GPU-5", "auto", "cuda"),
    ],
)
def test_the_device_is_what_cupy_sees_where_it_may_be_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cupy: str,
    visible: str | None,
    device: Any,
    expected: str,
) -> None:
    (tmp_path / "cupy.py").write_text(cupy)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cupy_or_none.cache_clear()
    try:
        assert MUSERImageWorker(device).device == expected
    finally:
        cupy_or_none.cache_clear()
        sys.modules.pop("cupy", None)


def test_no_gpu_is_seen_where_all_are_hidden() -> None:
    assert not sees_gpu({"CUDA_VISIBLE_DEVICES": ""})


def test_names_tell_what_images_are_of() -> None:
    time = START_NS + 3_723_987_654_321
    assert folder_of(time) == Path("20151101/05")
    assert name_of(2, time, 30, 8, "V") == "MUSER-II_20151101T050203.987_b30c08_V"
