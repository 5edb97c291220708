"""Files of an image: what is in them, and that they are there whole or not at all."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import threading
from math import degrees
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image as Pillow
from sun_tools import ARCSEC, small_image

from muser_pipeline.imaging import publishing
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.fitsfile import fits_bytes
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.picture import HEIGHT, THUMBNAIL, WIDTH, draw
from muser_pipeline.imaging.publishing import publish, write_together
from muser_pipeline.imaging.record import record_of


@pytest.fixture(scope="module")
def image() -> Image:
    return small_image()


@pytest.fixture(scope="module")
def dirty() -> Image:
    return small_image(algorithm="none")


def opened(content: bytes) -> fits.HDUList:
    parts = fits.open(io.BytesIO(content))
    parts.verify("exception")
    return parts


def test_a_fits_file_has_all_planes_as_they_are(image: Image) -> None:
    with opened(fits_bytes(image)) as parts:
        names = [part.name for part in parts]
        assert names == ["PRIMARY", "DIRTY", "PSF", "MODEL", "RESIDUAL", "COMPONENTS"]
        planes = [image.restored, image.dirty, image.psf, image.model, image.residual]
        for part, pixels in zip(parts[:5], planes, strict=True):
            assert np.array_equal(part.data, pixels)
        units = [part.header.get("BUNIT") for part in parts[:5]]
        assert units == ["Jy/beam", "Jy/beam", None, "Jy/pixel", "Jy/beam"]
        rows = parts["COMPONENTS"].data
        assert image.components is not None
        assert rows["FLUX"] == pytest.approx(image.components[:, 2])
        model = np.zeros((300, 300))
        np.add.at(model, (rows["Y"] - 1, rows["X"] - 1), rows["FLUX"])
        assert model == pytest.approx(parts["MODEL"].data, abs=1e-3)
        brightest = rows[np.argmax(rows["FLUX"])]
        assert brightest["WEST"] == pytest.approx(400.0, abs=15.0)
        assert brightest["NORTH"] == pytest.approx(-250.0, abs=15.0)


def test_the_header_says_how_the_image_was_made(image: Image) -> None:
    with opened(fits_bytes(image, planes=False)) as parts:
        assert len(parts) == 1
        header = parts[0].header
    assert header["IMTYPE"] == "restored"
    assert header["DATE-OBS"] == "2015-06-22T05:00:00.000"
    assert header["TIMESYS"] == "UTC"
    assert header["TELESCOP"] == "MUSER-I"
    assert header["BMAJ"] == pytest.approx(degrees(image.beam.major_rad))
    assert header["BMIN"] == pytest.approx(degrees(image.beam.minor_rad))
    assert header["BPA"] == pytest.approx(degrees(image.beam.angle_rad))
    assert header["FREQ"] == pytest.approx(4.375e8)
    assert header["BANDWID"] == pytest.approx(1e8)
    assert header["WAVELNTH"] == pytest.approx(68.52, abs=0.01)
    assert header["RSUN_OBS"] == pytest.approx(944.0)
    assert header["DISKRAD"] == pytest.approx(1.02 * 944.0, rel=1e-3)
    assert header["CLEAN"] == "hogbom"
    assert header["NITER"] == 200
    assert header["STOKES"] == "I"
    assert header["DATAMAX"] == image.peak
    assert header["NVIS"] == 780 * 4


def test_where_nothing_was_cleaned_the_dirty_image_comes_first(dirty: Image) -> None:
    with opened(fits_bytes(dirty)) as parts:
        assert [part.name for part in parts] == ["PRIMARY", "DIRTY", "PSF"]
        assert parts[0].header["IMTYPE"] == "dirty"
        assert np.array_equal(parts[0].data, dirty.dirty)


def test_a_unit_that_is_none_is_not_called_one(image: Image) -> None:
    plain = dataclasses.replace(image, unit="arbitrary", observer="Zhōu\n")
    with opened(fits_bytes(plain)) as parts:
        header = parts[0].header
        assert "BUNIT" not in header
        assert header["FLUXUNIT"] == "arbitrary/beam"
        assert header["OBSERVER"] == "Zh?u?"


def test_pictures_show_the_burst_where_it_is(image: Image) -> None:
    pictures = draw(image)
    with Pillow.open(io.BytesIO(pictures.small)) as small:
        assert small.size == (THUMBNAIL, THUMBNAIL)
        light = np.asarray(small.convert("L"), dtype=float)
    y, x = divmod(int(light.argmax()), THUMBNAIL)
    pixels = 300 * 15 / THUMBNAIL
    assert (x + 0.5) * pixels - 2250 == pytest.approx(400, abs=2 * pixels)
    assert 2250 - (y + 0.5) * pixels == pytest.approx(-250, abs=2 * pixels)
    with Pillow.open(io.BytesIO(pictures.large)) as large:
        assert large.size == (WIDTH, HEIGHT)
        colours = np.asarray(large)
    # paper around it, and ink on the paper
    assert (colours[:20] == 255).all()
    assert (colours[20:70].min(axis=(1, 2)) < 100).any()


def test_a_figure_that_is_used_again_keeps_nothing(image: Image, dirty: Image) -> None:
    first = draw(image)
    other = draw(dirty)
    assert other.large != first.large
    assert draw(image).large == first.large


def test_pictures_may_be_drawn_in_several_threads(image: Image, dirty: Image) -> None:
    expected = [draw(image).large, draw(dirty).large]
    drawn: dict[int, bytes] = {}

    def work(number: int) -> None:
        drawn[number] = draw((image, dirty)[number % 2]).large

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [drawn[n] for n in range(2)] == expected


def test_stokes_v_is_white_where_it_is_nothing_and_has_a_colour_for_each_sign(
    image: Image,
) -> None:
    pixels = np.zeros_like(image.best)
    pixels[200:220, 50:70] = 5.0
    pixels[50:70, 200:220] = -5.0
    signed = dataclasses.replace(image, polarization="V", restored=pixels)
    with Pillow.open(io.BytesIO(draw(signed).small)) as small:
        red, green, blue = np.moveaxis(np.asarray(small, dtype=int), 2, 0)
    assert min(plane[0, 0] for plane in (red, green, blue)) > 240
    left = np.s_[THUMBNAIL // 2 :], np.s_[: THUMBNAIL // 2]
    assert (red - blue)[: THUMBNAIL // 2, : THUMBNAIL // 2].max() > 50
    assert (red - blue)[left].max() < 10
    assert (blue - red)[THUMBNAIL // 2 :, THUMBNAIL // 2 :].max() > 50


def test_the_record_has_the_numbers(image: Image) -> None:
    record = json.loads(json.dumps(record_of(image), allow_nan=False))
    assert record["peak"] == pytest.approx(image.peak)
    assert record["dynamic_range"] == pytest.approx(image.peak / image.rms)
    assert record["peak_west_arcsec"] == pytest.approx(400, abs=15)
    assert record["peak_north_arcsec"] == pytest.approx(-250, abs=15)
    assert record["iterations"] == 200
    assert record["stopped_by"] == "iterations"
    assert record["disk"]["radius_arcsec"] == pytest.approx(963, abs=2)
    assert record["disk"]["flux"] == pytest.approx(500, rel=0.01)
    assert record["flux"] == pytest.approx(800, rel=0.03)
    assert record["time"] == "2015-06-22T05:00:00.000Z"
    major = image.beam.major_rad / ARCSEC
    assert record["beam"]["major_arcsec"] == pytest.approx(major)
    steps = {"check", "disk", "weigh", "beam", "grid", "clean", "restore", "measure"}
    assert steps < set(record["timings"])
    spent = [record["timings"][step] for step in steps]
    assert min(spent) > 0
    assert sum(spent) <= record["timings"]["total"]


def test_a_record_has_no_numbers_that_json_does_not_know(image: Image) -> None:
    odd = dataclasses.replace(image, rms=float("nan"), threshold=float("inf"))
    record = record_of(odd)
    assert record["rms"] is None
    assert record["threshold"] is None
    json.dumps(record, allow_nan=False)


def test_an_image_is_published_with_its_record(image: Image, tmp_path: Path) -> None:
    folder = tmp_path / "2015" / "0622"
    found = publish(image, folder, "MUSER-I_20150622T050000")
    assert sorted(path.name for path in folder.iterdir()) == [
        "MUSER-I_20150622T050000.fits",
        "MUSER-I_20150622T050000.json",
        "MUSER-I_20150622T050000.png",
        "MUSER-I_20150622T050000_thumb.png",
    ]
    assert json.loads(found.json.read_text()) == found.record
    assert (folder / found.record["fits"]) == found.fits
    assert found.record["timings"]["picture"] > 0
    assert fits.getdata(found.fits).max() == pytest.approx(image.peak)
    again = publish(image, folder, "MUSER-I_20150622T050000", planes=False)
    assert again.fits.stat().st_size < 0.3 * 4 * 5 * 300 * 300
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b", "a\n"])
def test_a_name_that_leads_elsewhere_is_refused(
    name: str, image: Image, tmp_path: Path
) -> None:
    with pytest.raises(ImagingError) as caught:
        publish(image, tmp_path, name)
    assert caught.value.reason == "options"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_of_an_image(image: Image, tmp_path: Path) -> None:
    # a device that is always full
    for ending in (".png", ".fits"):
        beside = tmp_path / f".a{ending}.{os.getpid()}"
        beside.symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left"):
            publish(image, tmp_path, "a")
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(image: Image, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        publish(image, tmp_path / "file" / "images", "a")


def test_files_are_renamed_when_all_are_written_and_the_last_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {tmp_path / name: name.encode() for name in ("a", "b", "json")}
    write_together(files)
    renamed: list[str] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        # the record of the old files is gone before they are
        assert not (tmp_path / "json").exists()
        renamed.append(target.name)
        if target.name == "b":
            raise OSError("the disk is gone")
        return replace(self, target)

    monkeypatch.setattr(publishing.Path, "replace", watched)
    with pytest.raises(OSError, match="gone"):
        write_together(files)
    assert renamed == ["a", "b"]
    assert {path.name for path in tmp_path.iterdir()} == {"b"}
