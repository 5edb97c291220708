"""A sky that is known goes in as raw frames over TCP, and comes out as images.

Everything is real: the server and its spool, a cluster of processes, the files and the
index. What is looked at is what users get.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from image_programs import HOLD
from imaging_scene import JANSKY_PER_UNIT, START_NS, bytes_of, observation
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.signal import fftconvolve

from muser_pipeline.array import load_array
from muser_pipeline.array.quiet_sun import RADII, profiles_k
from muser_pipeline.calibration import static_delays_ns
from muser_pipeline.realtime import ImageIndex, ImageRecord, MUSERImageManager
from muser_pipeline.realtime.index import default_url
from muser_pipeline.realtime.server import MUSERSocketServer
from muser_pipeline.simulator import Instrument, Sky, SkySource
from muser_pipeline.simulator.disk import QuietSun
from opencluster import WorkPiece
from opencluster.testing import LocalCluster

WORKER = f"{Path(__file__).with_name('image_programs.py')}:HeldWorker"
DEADLINE_S = 90.0
COUNT = 16
"""Frames: two loops."""
BAND = 1
FREQUENCY_HZ = 1e9
SFU_JY = 1e4
BURSTS = (
    SkySource(300.0, -200.0, 50.0, polarization=0.5),
    SkySource(-520.0, 410.0, 30.0, polarization=-0.8),
    SkySource(110.0, 640.0, 20.0),
)
SIZE, CELL = 400, 12.0
OPTIONS: dict[str, Any] = {
    "bands": [BAND],
    "polarizations": ["I", "V", "RR", "LL"],
    "size": SIZE,
    "cell_arcsec": CELL,
    "iterations": 400,
    "threshold_sigma": 3.0,
    "flag_known": False,
    "jansky_per_unit": JANSKY_PER_UNIT,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("held")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOLD, str(folder))
        with LocalCluster({WORKER: 2}) as here:
            yield here


@pytest.fixture(scope="module")
def frames() -> bytes:
    instrument = Instrument.random(
        load_array(1),
        np.random.default_rng(0),
        static_delays_ns=static_delays_ns(1, START_NS),
        system_temperature_k=300.0,
    )
    seen = observation(
        sky=Sky(BURSTS, sun=1.0), instrument=instrument, fringes_stopped=False
    )
    return bytes_of(seen, COUNT)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def send(address: tuple[str, int], data: bytes) -> None:
    """Send bytes as they may come: in parts of any length."""
    with socket.create_connection(address) as connection:
        for start in range(0, len(data), 77_777):
            connection.sendall(data[start : start + 77_777])


@pytest.fixture(scope="module")
def published(
    cluster: LocalCluster, frames: bytes, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[ImageRecord, Any]]:
    """Return what was published of the frames: record and map of each polarisation."""
    import sunpy.map

    out = tmp_path_factory.mktemp("images")
    spool = tmp_path_factory.mktemp("spool")
    with (
        ImageIndex(default_url(out), out) as index,
        MUSERSocketServer(
            1, MUSERImageManager, spool, options=OPTIONS | {"out": out}
        ) as server,
    ):
        send(server.address, frames)
        wait_until(lambda: len(index.since(0)) == 4)
        records = index.latest()
    return {
        record.polarization: (record, sunpy.map.Map(out / record.fits, hdus=0))
        for record in records
    }


def peak_near(image: Any, source: SkySource, beam_arcsec: float) -> tuple[Any, float]:
    """Return place and height of the peak near a source, finer than pixels."""
    sky = SkyCoord(
        source.x_arcsec * u.arcsec,
        source.y_arcsec * u.arcsec,
        frame=image.coordinate_frame,
    )
    x, y = (float(each.value) for each in image.world_to_pixel(sky))
    data = image.data.astype(float)
    rows, columns = np.indices(data.shape)
    far = np.hypot(columns - x, rows - y) * CELL > beam_arcsec
    j, i = np.unravel_index(np.argmax(np.where(far, -np.inf, np.abs(data))), data.shape)
    # the logarithm of a Gaussian is a parabola
    logs = np.log(np.abs(data[j - 1 : j + 2, i - 1 : i + 2]))
    grid = np.array([[a, b] for b in (-1, 0, 1) for a in (-1, 0, 1)], dtype=float)
    a, b = grid.T
    terms = np.stack([np.ones(9), a, b, a * a, a * b, b * b], axis=1)
    c, *_ = np.linalg.lstsq(terms, logs.ravel(), rcond=None)
    curve = np.array([[2 * c[3], c[4]], [c[4], 2 * c[5]]])
    step = -np.linalg.solve(curve, c[1:3])
    top = np.exp(c[0] + c[1:3] @ step / 2) * np.sign(data[j, i])
    place = image.pixel_to_world((i + step[0]) * u.pix, (j + step[1]) * u.pix)
    return place, float(top)


def stokes(source: SkySource, polarization: str) -> float:
    """Return the flux density that an image of a polarisation has, in janskys."""
    v = source.polarization
    share = {"I": 1.0, "V": v, "RR": 1 + v, "LL": 1 - v}[polarization]
    return source.flux_sfu * SFU_JY * share


@pytest.mark.processes
@pytest.mark.parametrize("polarization", ["I", "V", "RR", "LL"])
def test_bursts_are_where_they_are_and_as_bright(
    published: dict[str, tuple[ImageRecord, Any]], polarization: str
) -> None:
    record, image = published[polarization]
    assert record.status == "image", record.reason
    beam = record.beam_major_arcsec
    tenth = record.beam_minor_arcsec / 10
    for source in BURSTS:
        expected = stokes(source, polarization)
        if abs(expected) < 0.3 * SFU_JY * 50:
            # the weaker hand of a burst drowns in what the others leave
            continue
        place, flux = peak_near(image, source, beam)
        assert place.Tx.arcsec == pytest.approx(source.x_arcsec, abs=tenth)
        assert place.Ty.arcsec == pytest.approx(source.y_arcsec, abs=tenth)
        assert flux == pytest.approx(expected, rel=0.05)


@pytest.mark.processes
def test_images_say_when_and_of_what_they_are(
    published: dict[str, tuple[ImageRecord, Any]],
) -> None:
    assert set(published) == {"I", "V", "RR", "LL"}
    times = {record.time_utc_ns for record, _ in published.values()}
    assert len(times) == 1
    record, image = published["I"]
    # frames 2, 3, 10 and 11 of 3.125 ms, on the average
    assert record.time_utc_ns == START_NS + 13 * 3_125_000 // 2
    assert image.date.isot == "2015-11-01T04:00:00.020"
    assert record.frequency_hz == FREQUENCY_HZ
    assert image.wavelength.to_value(u.cm) == pytest.approx(29.98, abs=0.1)
    assert record.unit == "Jy"
    # bursts with the left and the right hand cancel in none
    _, of_v = published["V"]
    assert of_v.data.max() == pytest.approx(25 * SFU_JY, rel=0.05)
    assert of_v.data.min() == pytest.approx(-24 * SFU_JY, rel=0.05)


def limb_radius(image: Any, record: ImageRecord) -> float:
    """Return the solar radius with which the quiet profile fits an image best.

    Compared is the mean over position angles without bursts, about the limb, with the
    profile of the simulator as the beam of the record blurs it.
    """

    def ring_means(pixels: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
        x = centre + radii[:, np.newaxis] / CELL * np.sin(angles)
        y = centre + radii[:, np.newaxis] / CELL * np.cos(angles)
        values = map_coordinates(pixels, [y, x], order=3)
        return np.asarray(values.mean(axis=1))

    angles = np.radians(np.arange(160, 270))
    radii = np.arange(700.0, 1400.0, 6.0)
    seen = ring_means(image.data.astype(float), SIZE / 2)
    y, x = (np.indices((SIZE, SIZE)) - SIZE / 2) * CELL
    # of the beam's long axis, from the north through the east, which is to the left
    angle = np.radians(record.beam_angle_deg)
    along = y * np.cos(angle) - x * np.sin(angle)
    across = x * np.cos(angle) + y * np.sin(angle)
    widths = record.beam_major_arcsec, record.beam_minor_arcsec
    squares = (along / widths[0]) ** 2 + (across / widths[1]) ** 2
    beam = np.exp(-4 * np.log(2) * squares)
    profile = profiles_k(np.array([FREQUENCY_HZ]))[0]
    best = (np.inf, 0.0)
    for radius in np.arange(912.0, 1030.0, 8.0):
        sun = np.interp(np.hypot(x, y) / radius, RADII, profile, right=0.0)
        model = ring_means(fftconvolve(sun, beam, mode="same"), SIZE / 2)
        height = model @ seen / (model @ model)
        best = min(best, (float(((seen - height * model) ** 2).sum()), radius))
    return best[1]


@pytest.mark.processes
def test_the_disk_is_as_large_as_the_sun(
    published: dict[str, tuple[ImageRecord, Any]],
) -> None:
    record, image = published["I"]
    true = image.rsun_obs.to_value(u.arcsec)
    assert true == pytest.approx(966.4, abs=1.0)
    assert limb_radius(image, record) == pytest.approx(true, rel=0.02)
    assert image.meta["diskrad"] == pytest.approx(true, rel=0.02)
    whole = QuietSun.at(np.array([FREQUENCY_HZ])).flux_sfu(
        np.zeros((1, 1)), true * np.pi / 180 / 3600
    )
    assert image.meta["diskflux"] == pytest.approx(whole[0, 0] * SFU_JY, rel=0.02)


@pytest.mark.processes
def test_the_sun_is_not_turned_or_mirrored(
    published: dict[str, tuple[ImageRecord, Any]],
) -> None:
    _, image = published["I"]
    assert (image.coordinate_system.axis1, image.coordinate_system.axis2) == (
        "HPLN-SIN",
        "HPLT-SIN",
    )
    assert np.allclose(image.rotation_matrix, np.eye(2))
    assert image.scale.axis1.value == pytest.approx(CELL)
    assert image.scale.axis2.value == pytest.approx(CELL)
    # each quadrant has the bursts that were put there
    half = SIZE // 2
    quadrants = {
        (west, north): image.data[
            half if north else 0 : None if north else half,
            half if west else 0 : None if west else half,
        ].max()
        for west in (False, True)
        for north in (False, True)
    }
    ordered = sorted(quadrants, key=lambda each: -quadrants[each])
    assert ordered[:3] == [(True, False), (False, True), (True, True)]


@pytest.mark.processes
def test_a_worker_that_is_killed_while_it_cleans_costs_no_image(
    cluster: LocalCluster, folder: Path, frames: bytes, tmp_path: Path
) -> None:
    options = OPTIONS | {"out": tmp_path, "polarizations": ["I"]}
    results: list[WorkPiece] = []

    def run() -> None:
        task = WorkPiece(frames=frames, array=1, options=options)
        results.append(MUSERImageManager().run(task))

    (folder / "hold").touch()
    running = threading.Thread(target=run)
    running.start()
    wait_until(lambda: any(path.name.isdigit() for path in folder.iterdir()))
    (held,) = (int(path.name) for path in folder.iterdir() if path.name.isdigit())
    os.kill(held, signal.SIGKILL)
    (folder / "hold").unlink()
    running.join(DEADLINE_S)
    (result,) = results
    assert (result["images"], result["refused"]) == (1, 0)
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        (record,) = index.since(0)
    files = sorted(path.name for path in tmp_path.rglob("MUSER*"))
    assert files == sorted(
        Path(name).name
        for name in (record.fits, record.png, record.thumbnail, record.json)
    )
    hidden = [path for path in tmp_path.rglob(".*") if path.is_file()]
    assert hidden == []


@pytest.mark.processes
def test_a_worker_without_a_gpu_registers_as_one_for_cpus(
    cluster: LocalCluster,
) -> None:
    types = [row["type"] for row in cluster.ask_factory("find", {"kind": "worker"})]
    assert set(types) == {"MUSERImage"}
