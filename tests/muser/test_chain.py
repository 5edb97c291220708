"""From a simulated sky through raw files to an image, with all that lies between."""

from __future__ import annotations

from math import atan, cos, pi, radians, sin, tan
from pathlib import Path

import ducc0
import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from muser_pipeline.array import SPEED_OF_LIGHT_M_PER_S, load_array
from muser_pipeline.calibration import (
    apply_calibration,
    correct_delays,
    dead_inputs,
    flag_inputs,
    make_calibration,
    read_calibration,
    solve_antennas,
    static_delays_ns,
    write_calibration,
)
from muser_pipeline.geometry import FixedSource, Sun
from muser_pipeline.raw import Frames, open_raw
from muser_pipeline.simulator import Instrument, Observation, Sky, SkySource, simulate
from muser_pipeline.uvfits import write_files

ARCSEC = pi / 180 / 3600
START_NS = int(np.datetime64("2015-11-02T04:30:00.000000020", "ns").astype(np.int64))
CALIBRATOR = FixedSource("Test", 200.0, 10.0)
CALIBRATOR_SFU = 40.0
DEAD = (5, 31)
WEST, NORTH, FLUX, POLARIZATION = 480.0, -390.0, 25.0, 0.25


def solar_p_deg(time_utc_ns: int) -> float:
    """Meeus, Astronomical Algorithms, chapters 25 (low accuracy) and 29."""
    jde = 2_440_587.5 + (time_utc_ns / 1e9 + 68.2) / 86_400
    t = (jde - 2_451_545.0) / 36_525
    mean = 280.46646 + 36_000.76983 * t
    anomaly = radians(357.52911 + 35_999.05029 * t)
    centre = 1.914602 * sin(anomaly) + 0.019993 * sin(2 * anomaly)
    longitude = radians(mean + centre - 0.00569)
    node = radians(125.04 - 1934.136 * t)
    apparent = longitude - radians(0.00478) * sin(node)
    obliquity = radians(23.439291 - 0.0130042 * t + 0.00256 * cos(node))
    ascending = radians(73.6667 + 1.3958333 * (jde - 2_396_758) / 36_525)
    x = atan(-cos(apparent) * tan(obliquity))
    y = atan(-cos(longitude - ascending) * tan(radians(7.25)))
    return (x + y) * 180 / pi


def observed(observation: Observation, count: int, folder: Path) -> Frames:
    """Simulate, write and read raw frames, and correct their delays."""
    folder.mkdir()
    (path,) = simulate(observation, count, folder, seed=3).files
    frames = correct_delays(open_raw(path).read())
    assert len(frames) == count
    return frames


def image(path: Path, band: int, hand: int, cell: float) -> NDArray[np.float64]:
    """Return the mean visibility turned to each place, x to the east."""
    with fits.open(path) as file:
        data, head = file[0].data, file[0].header
        cells = data.data[:, 0, 0, band, :, hand].astype(np.float64)
        uvw = np.stack([data.par(n) for n in ("UU", "VV", "WW")], axis=1)
        low = head["CRVAL4"] + file["AIPS FQ"].data["IF FREQ"].reshape(-1)[band]
    is_good = cells[..., 2] > 0
    assert 0 < is_good.mean() < 1
    dirty = ducc0.wgridder.vis2dirty(
        uvw=uvw.astype(np.float64) * SPEED_OF_LIGHT_M_PER_S,
        freq=low + 25e6 * np.arange(16),
        vis=np.where(is_good, cells[..., 0] + 1j * cells[..., 1], 0),
        npix_x=1536,
        npix_y=1536,
        pixsize_x=cell,
        pixsize_y=cell,
        epsilon=1e-6,
        do_wgridding=True,
        divide_by_n=False,
        flip_u=True,
        flip_v=True,
    )
    return dirty / is_good.sum()


@pytest.mark.parametrize("array", [1, 2])
def test_a_simulated_source_is_seen_where_it_is(array: int, tmp_path: Path) -> None:
    described = load_array(array)
    instrument = Instrument.random(
        described,
        np.random.default_rng(12),
        gain_scatter=0.2,
        phase_scatter_deg=60.0,
        delay_scatter_ns=1.0,
        static_delays_ns=static_delays_ns(1, START_NS) if array == 1 else None,
        dead=DEAD,
        system_temperature_k=100.0,
    )
    fixed = {"mode": "fixed", "band": 6, "polarization": "RR"} if array == 2 else {}
    calibrator = Observation(
        array,
        Sky((SkySource(0.0, 0.0, CALIBRATOR_SFU),)),
        instrument,
        START_NS,
        fringes_stopped=False,
        source=CALIBRATOR,
        **fixed,
    )
    seen = observed(calibrator, 16, tmp_path / "calibrator")
    assert tuple(dead_inputs(seen)) == DEAD
    seen = flag_inputs(seen, DEAD)
    gains = solve_antennas(make_calibration(seen, model=CALIBRATOR_SFU))
    write_calibration(tmp_path / "test.cal", gains.table())

    spot = SkySource(WEST, NORTH, FLUX, polarization=POLARIZATION)
    sun = Observation(
        array, Sky((spot,)), instrument, START_NS, fringes_stopped=False, **fixed
    )
    frames = flag_inputs(observed(sun, 16, tmp_path / "sun"), DEAD)
    table = read_calibration(tmp_path / "test.cal", array)
    frames = apply_calibration(frames, table, amplitude=True)
    (written,) = write_files(frames, tmp_path, Sun(), "range", 10**9)

    angle = radians(solar_p_deg(START_NS))
    east = -WEST * cos(angle) + NORTH * sin(angle)
    north = WEST * sin(angle) + NORTH * cos(angle)
    cell = 1.0
    hands = [1 + POLARIZATION, 1 - POLARIZATION] if array == 1 else [1 + POLARIZATION]
    for hand, part in enumerate(hands):
        dirty = image(written.path, 3 if array == 1 else 0, hand, cell * ARCSEC)
        peak = np.unravel_index(np.argmax(dirty), dirty.shape)
        assert dirty[peak] == pytest.approx(FLUX * part, rel=0.05)
        # the north of date and that of J2000 differ by 0.06 degrees: 0.6 arcseconds
        found = [(place - 768) * cell for place in peak]
        assert found == pytest.approx([east, north], abs=1.7)
