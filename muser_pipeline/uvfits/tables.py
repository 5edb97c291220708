"""The tables of a UVFITS file: antennas, frequencies, source.

Source: AIPS memo 117, Greisen 2012 (AIPS FITS file format), for columns and keywords.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin

import erfa
import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import CHANNEL_WIDTH_HZ, CHANNELS, Array
from muser_pipeline.geometry import Day, Track
from muser_pipeline.uvfits.cards import Card, table

_SIDEREAL_DEG_PER_DAY = 360.98564736629
_ALT_AZ_MOUNT = 0


@dataclass(frozen=True, eq=False)
class FrequencySetup:
    """Frequencies as a UVFITS file counts them.

    Attributes
    ----------
    reference_hz : float
        Centre of channel 1 of the first band in the file.
    band_offsets_hz : ndarray of float64, shape (k,)
        Centres of channel 1 of all bands relative to it.
    """

    reference_hz: float
    band_offsets_hz: NDArray[np.float64]


def frequency_setup(frequency_hz: NDArray[np.float64]) -> FrequencySetup:
    """Return the setup of bands whose channels have these centres, shape (k, 16)."""
    reference = float(frequency_hz[0, 0])
    return FrequencySetup(reference, frequency_hz[:, 0] - reference)


def antenna_table(array: Array, day: Day, setup: FrequencySetup) -> bytes:
    """Return the AIPS AN table.

    Positions are relative to the array's reference point, in axes of the ITRF that are
    turned about the pole by the longitude of this point: X in its meridian, Y east.

    Parameters
    ----------
    array : Array
        Its antennas are numbered from 1, by input.
    day : Day
        The day that sidereal time is given for.
    setup : FrequencySetup
        Of the file.
    """
    longitude = radians(array.site.longitude_deg)
    turn = np.array(
        [
            [cos(longitude), sin(longitude), 0.0],
            [-sin(longitude), cos(longitude), 0.0],
            [0.0, 0.0, 1.0],
        ]
    )
    positions = array.positions_geocentric_m() @ turn.T
    count = array.antennas
    zeros = np.zeros(count, dtype=np.float32)
    nothing = np.zeros((count, 0))
    columns = [
        ("ANNAME", "", np.array(array.antenna_names, dtype="S8")),
        ("STABXYZ", "METERS", positions),
        ("ORBPARM", "", nothing),
        ("NOSTA", "", np.arange(1, count + 1, dtype=np.int32)),
        ("MNTSTA", "", np.full(count, _ALT_AZ_MOUNT, dtype=np.int32)),
        ("STAXOF", "METERS", zeros),
        ("POLTYA", "", np.full(count, b"R", dtype="S1")),
        ("POLAA", "DEGREES", zeros),
        ("POLCALA", "", nothing.astype(np.float32)),
        ("POLTYB", "", np.full(count, b"L", dtype="S1")),
        ("POLAB", "DEGREES", zeros),
        ("POLCALB", "", nothing.astype(np.float32)),
        ("DIAMETER", "METERS", np.full(count, array.dish_diameter_m, np.float32)),
    ]
    x, y, z = array.site.geocentric_m
    cards: list[Card] = [
        ("EXTVER", 1, ""),
        ("ARRAYX", x, "reference point of the array, m"),
        ("ARRAYY", y, ""),
        ("ARRAYZ", z, ""),
        ("GSTIA0", day.sidereal_time_deg, "Greenwich at 0h UTC on RDATE, deg"),
        ("DEGPDY", _SIDEREAL_DEG_PER_DAY, "rotation of the Earth, deg/day"),
        ("FREQ", setup.reference_hz, "reference frequency, Hz"),
        ("RDATE", day.date, "reference date"),
        ("POLARX", day.pole_arcsec[0], "of the pole, arcsec"),
        ("POLARY", day.pole_arcsec[1], ""),
        ("UT1UTC", day.ut1_utc_s, "UT1 - UTC, s"),
        ("DATUTC", 0.0, "time system - UTC, s"),
        ("IATUTC", day.tai_utc_s, "TAI - UTC, s"),
        ("TIMESYS", "UTC", ""),
        ("ARRNAM", array.name, ""),
        ("XYZHAND", "RIGHT", ""),
        ("FRAME", "ITRF", ""),
        ("NUMORB", 0, ""),
        ("NOPCAL", 0, ""),
        ("NO_IF", len(setup.band_offsets_hz), ""),
        ("POLTYPE", "", ""),
        ("FREQID", 1, ""),
    ]
    return table("AIPS AN", columns, cards)


def frequency_table(setup: FrequencySetup) -> bytes:
    """Return the AIPS FQ table: one row, each band an IF."""
    bands = len(setup.band_offsets_hz)
    columns = [
        ("FRQSEL", "", np.ones(1, dtype=np.int32)),
        ("IF FREQ", "HZ", _row(setup.band_offsets_hz, np.float64)),
        ("CH WIDTH", "HZ", _row([CHANNEL_WIDTH_HZ] * bands, np.float32)),
        (
            "TOTAL BANDWIDTH",
            "HZ",
            _row([CHANNEL_WIDTH_HZ * CHANNELS] * bands, np.float32),
        ),
        ("SIDEBAND", "", _row([1] * bands, np.int32)),
    ]
    return table("AIPS FQ", columns, [("NO_IF", bands, "")])


@dataclass(frozen=True)
class PhaseCentre:
    """Where a file says that its source is.

    Attributes
    ----------
    name : str
        The source.
    ra_deg, dec_deg : float
        J2000 in the axes of the FK5, which is what an EPOCH of 2000 means: 0.02
        arcseconds from the ICRS.
    ra_apparent_deg, dec_apparent_deg : float
        Of date.
    motion_deg_per_day : tuple of float
        In right ascension and declination.
    """

    name: str
    ra_deg: float
    dec_deg: float
    ra_apparent_deg: float
    dec_apparent_deg: float
    motion_deg_per_day: tuple[float, float]


def centre_of(track: Track) -> PhaseCentre:
    """Return the place of a source at the middle one of its times.

    Visibilities are relative to where the source is at each time; a source that moves
    among the stars, as the Sun by 2.5 arcseconds in a minute, takes its image along.
    """
    middle = len(track.time_utc_ns) // 2
    ra, dec, *_ = erfa.h2fk5(
        np.radians(track.ra_deg[middle]), np.radians(track.dec_deg[middle]), 0, 0, 0, 0
    )
    return PhaseCentre(
        name=track.name,
        ra_deg=float(np.degrees(ra)) % 360.0,
        dec_deg=float(np.degrees(dec)),
        ra_apparent_deg=float(track.ra_apparent_deg[middle]),
        dec_apparent_deg=float(track.dec_apparent_deg[middle]),
        motion_deg_per_day=_motion_deg_per_day(track),
    )


def source_table(centre: PhaseCentre, setup: FrequencySetup) -> bytes:
    """Return the AIPS SU table: one source."""
    bands = len(setup.band_offsets_hz)
    zeros = [0.0] * bands
    columns = [
        ("ID. NO.", "", np.ones(1, dtype=np.int32)),
        ("SOURCE", "", np.array([centre.name], dtype="S16")),
        ("QUAL", "", np.zeros(1, dtype=np.int32)),
        ("CALCODE", "", np.array([b""], dtype="S4")),
        ("IFLUX", "JY", _row(zeros, np.float32)),
        ("QFLUX", "JY", _row(zeros, np.float32)),
        ("UFLUX", "JY", _row(zeros, np.float32)),
        ("VFLUX", "JY", _row(zeros, np.float32)),
        ("FREQOFF", "HZ", _row(zeros, np.float64)),
        ("BANDWIDTH", "HZ", np.array([CHANNEL_WIDTH_HZ * CHANNELS])),
        ("RAEPO", "DEGREES", np.array([centre.ra_deg])),
        ("DECEPO", "DEGREES", np.array([centre.dec_deg])),
        ("EPOCH", "YEARS", np.array([2000.0])),
        ("RAAPP", "DEGREES", np.array([centre.ra_apparent_deg])),
        ("DECAPP", "DEGREES", np.array([centre.dec_apparent_deg])),
        ("LSRVEL", "M/SEC", _row(zeros, np.float64)),
        ("RESTFREQ", "HZ", _row(zeros, np.float64)),
        ("PMRA", "DEG/DAY", np.array([centre.motion_deg_per_day[0]])),
        ("PMDEC", "DEG/DAY", np.array([centre.motion_deg_per_day[1]])),
    ]
    cards: list[Card] = [
        ("NO_IF", bands, ""),
        ("VELTYP", "TOPOCENT", ""),
        ("VELDEF", "RADIO", ""),
        ("FREQID", 1, ""),
    ]
    return table("AIPS SU", columns, cards)


def _row(values: object, dtype: type[np.generic]) -> NDArray[np.generic]:
    """Return one row with an element for each band."""
    return np.array([values], dtype=dtype)


def _motion_deg_per_day(track: Track) -> tuple[float, float]:
    """Return the mean motion from the first to the last time, 0 if they are one."""
    days = float(track.time_utc_ns[-1] - track.time_utc_ns[0]) / 86_400e9
    if days == 0:
        return 0.0, 0.0
    along = (track.ra_deg[-1] - track.ra_deg[0] + 180.0) % 360.0 - 180.0
    return float(along) / days, float(track.dec_deg[-1] - track.dec_deg[0]) / days
