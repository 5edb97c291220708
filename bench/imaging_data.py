"""A snapshot of MUSER-I to make images of, and the same as a Measurement Set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.muser_data import START_NS
from muser_pipeline.array import load_array
from muser_pipeline.geometry import Sun, follow, uvw_m
from muser_pipeline.imaging.visibilities import Snapshot
from muser_pipeline.simulator import Instrument, Observation, Sky, SkySource
from muser_pipeline.simulator.observation import SkyModel

BAND = 3
"""1.6 to 2.0 GHz."""
SKY = Sky(
    (
        SkySource(300.0, -200.0, 60.0),
        SkySource(-650.0, 350.0, 25.0),
        SkySource(120.0, 500.0, 10.0, fwhm_arcsec=(60.0, 40.0)),
    ),
    sun=1.0,
)
RECEIVER_K = 300.0
MJD_OF_1970_S = 40587 * 86_400.0
"""Measurement Sets count seconds of modified Julian days."""
_STOKES_I = 1


def make_snapshot() -> Snapshot:
    """Return what one frame of one hand sees of three bursts on the quiet Sun."""
    array = load_array(1)
    instrument = Instrument.perfect(array, RECEIVER_K)
    observation = Observation(1, SKY, instrument, START_NS)
    seen = SkyModel(observation).seen(0, 2 * BAND + 1)
    rng = np.random.default_rng(1)
    shape = seen.values.shape
    noise = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    time = START_NS + observation.update_ns // 2
    track = follow(Sun(), np.array([time]), array.site)
    first, second = array.baseline_inputs()
    return Snapshot(
        uvw_m=uvw_m(track, array.positions_geocentric_m(), first, second)[0],
        frequency_hz=array.channel_centres_hz(BAND),
        data=(seen.values + noise * seen.noise).astype(np.complex64)[np.newaxis],
        weights=np.ones((1, *shape), dtype=np.float32),
        polarizations=("I",),
        antenna1=first,
        antenna2=second,
        time_utc_ns=np.full(len(first), time),
        ra_rad=np.radians(float(track.ra_deg[0])),
        dec_rad=np.radians(float(track.dec_deg[0])),
    )


def write_measurement_set(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot of Stokes I as a Measurement Set.

    Needs python-casacore.
    """
    from casacore.tables import default_ms

    array = load_array(1)
    rows, channels = snapshot.data.shape[1:]
    seconds = snapshot.time_utc_ns * 1e-9 + MJD_OF_1970_S
    with default_ms(str(path)) as table:
        table.addrows(rows)
        description = table.getcoldesc("FLAG")
        table.addcols({"name": "DATA", "desc": {**description, "valueType": "complex"}})
        values = snapshot.data[0][:, :, np.newaxis]
        columns: dict[str, Any] = {
            "DATA": values,
            "FLAG": np.zeros(values.shape, dtype=bool),
            "UVW": snapshot.uvw_m,
            "ANTENNA1": snapshot.antenna1,
            "ANTENNA2": snapshot.antenna2,
            "TIME": seconds,
            "TIME_CENTROID": seconds,
            "EXPOSURE": np.full(rows, 0.003),
            "INTERVAL": np.full(rows, 0.003),
            "WEIGHT": np.ones((rows, 1), dtype=np.float32),
            "SIGMA": np.ones((rows, 1), dtype=np.float32),
            "FLAG_ROW": np.zeros(rows, dtype=bool),
        }
        for name, column in columns.items():
            table.putcol(name, column)
    width = np.full(channels, np.diff(snapshot.frequency_hz).mean())
    place = np.array([[[snapshot.ra_rad, snapshot.dec_rad]]])
    _fill(
        path / "ANTENNA",
        {
            "NAME": [str(number) for number in range(array.antennas)],
            "STATION": [str(number) for number in range(array.antennas)],
            "POSITION": array.positions_geocentric_m(),
            "DISH_DIAMETER": np.full(array.antennas, 4.5),
            "MOUNT": ["EQUATORIAL"] * array.antennas,
        },
    )
    _fill(
        path / "SPECTRAL_WINDOW",
        {
            "CHAN_FREQ": snapshot.frequency_hz[np.newaxis],
            "CHAN_WIDTH": width[np.newaxis],
            "EFFECTIVE_BW": width[np.newaxis],
            "RESOLUTION": width[np.newaxis],
            "NUM_CHAN": [channels],
            "REF_FREQUENCY": snapshot.frequency_hz[:1],
            "TOTAL_BANDWIDTH": [width.sum()],
        },
    )
    _fill(
        path / "POLARIZATION",
        {
            "NUM_CORR": [1],
            "CORR_TYPE": np.array([[_STOKES_I]], dtype=np.int32),
            "CORR_PRODUCT": np.zeros((1, 1, 2), dtype=np.int32),
        },
    )
    _fill(path / "DATA_DESCRIPTION", {"SPECTRAL_WINDOW_ID": [0]})
    _fill(
        path / "FIELD",
        {
            "NAME": ["Sun"],
            "PHASE_DIR": place,
            "DELAY_DIR": place,
            "REFERENCE_DIR": place,
        },
    )
    _fill(
        path / "OBSERVATION",
        {
            "TELESCOPE_NAME": ["MUSER"],
            "TIME_RANGE": np.array([[seconds.min(), seconds.max()]]),
        },
    )


def _fill(path: Path, columns: dict[str, Any]) -> None:
    from casacore.tables import table

    with table(str(path), readonly=False, ack=False) as part:
        part.addrows(len(next(iter(columns.values()))))
        for name, column in columns.items():
            part.putcol(name, column)
