"""Visibilities as a random-groups FITS file.

A group is one baseline at one time, with all bands as IFs. Conventions, which the tests
hold against independent programs: a baseline is *first minus second* antenna, numbered
256 first + second with antennas from 1, so both the vector and the visibility are the
opposites (the conjugate) of those in memory, and on disk as in memory

    V = sum of S exp(+2 pi i (u l + v m + w (n - 1)))

with u, v, w in seconds of light, v to the north of J2000. Channels ascend.

Source: AIPS memo 117, Greisen 2012; FITS standard 4.0, chapter 6.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import (
    CHANNEL_WIDTH_HZ,
    CHANNELS,
    SPEED_OF_LIGHT_M_PER_S,
    load_array,
)
from muser_pipeline.errors import FrameValueError
from muser_pipeline.geometry import Day, EarthOrientation, Track, antenna_uvw_m, day_of
from muser_pipeline.integration import Visibilities
from muser_pipeline.uvfits.cards import Card, header, padding
from muser_pipeline.uvfits.tables import (
    FrequencySetup,
    PhaseCentre,
    antenna_table,
    centre_of,
    frequency_setup,
    frequency_table,
    source_table,
)

_PARAMETERS = (
    *("UU", "VV", "WW", "DATE", "DATE", "BASELINE", "SOURCE", "FREQSEL", "INTTIM"),
)
_DAY_NS = 86_400 * 10**9
_STOKES = {"RR": -1, "LL": -2}
_COARSE_PER_DAY = 1 << 20
"""The first DATE counts in 2^-20 days (0.08 s), which is exact in float32; the second
is the rest, good to 2^-45 days (2.5 ns)."""


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written.

    Attributes
    ----------
    path : Path
        Where it is.
    size_bytes : int
        How large.
    sha256 : str
        Of its content, hexadecimal.
    """

    path: Path
    size_bytes: int
    sha256: str


class UvfitsWriter:
    """Writes files of one array.

    Parameters
    ----------
    array : int
        1 or 2.
    orientation : EarthOrientation, optional
        UT1 and polar motion, for the antenna table; the packaged table by default.
    """

    def __init__(self, array: int, orientation: EarthOrientation | None = None) -> None:
        self._array = load_array(array)
        self._first, self._second = self._array.baseline_inputs()
        self._positions = self._array.positions_geocentric_m()
        self._orientation = orientation
        self._days: dict[int, Day] = {}
        self._tables: dict[tuple[str, float, bytes], bytes] = {}

    def write(
        self, path: Path, visibilities: Visibilities, track: Track
    ) -> WrittenFile:
        """Write a file beside its place and rename it, so that it is whole or not.

        The same arguments give the same bytes.

        Parameters
        ----------
        path : Path
            Of the file; one that is there is replaced.
        visibilities : Visibilities
            What goes in.
        track : Track
            The phase centre at ``visibilities.time_utc_ns``.
        """
        parts = self.encode(visibilities, track)
        digest = hashlib.sha256()
        beside = path.with_name(
            f".{path.name}.{os.getpid()}-{threading.get_ident()}.part"
        )
        try:
            with beside.open("wb", buffering=0) as file:
                for part in parts:
                    digest.update(part)
                    _write_all(file.fileno(), part)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        size = sum(len(part) for part in parts)
        return WrittenFile(path, size, digest.hexdigest())

    def encode(
        self, visibilities: Visibilities, track: Track
    ) -> list[bytes | memoryview]:
        """Return the content of a file in pieces.

        Raises
        ------
        FrameValueError
            When there is nothing, or the track is of other times or of another site.
        """
        self._check(visibilities, track)
        day = self._day(int(visibilities.time_utc_ns[0]))
        setup = frequency_setup(visibilities.frequency_hz)
        centre = centre_of(track)
        groups = self._groups(visibilities, track, day)
        data = groups.reshape(-1).view(np.uint8).data
        return [
            header(_cards(visibilities, centre, day, setup, len(groups))),
            data,
            padding(data.nbytes),
            self._fixed_tables(day, setup),
            source_table(centre, setup),
        ]

    def _check(self, visibilities: Visibilities, track: Track) -> None:
        if visibilities.array != self._array.number:
            raise FrameValueError(
                f"visibilities of array {visibilities.array}, not {self._array.number}"
            )
        if not len(visibilities):
            raise FrameValueError("there are no visibilities to write")
        if not np.array_equal(visibilities.time_utc_ns, track.time_utc_ns):
            raise FrameValueError("the track is of other times than the visibilities")
        if track.site != self._array.site:
            raise FrameValueError(f"the track is seen from {track.site}")

    def _day(self, time_utc_ns: int) -> Day:
        number = time_utc_ns // _DAY_NS
        if number not in self._days:
            self._days[number] = day_of(time_utc_ns, self._orientation)
        return self._days[number]

    def _fixed_tables(self, day: Day, setup: FrequencySetup) -> bytes:
        """Return the tables that are the same for all files of a day and setup."""
        key = (day.date, setup.reference_hz, setup.band_offsets_hz.tobytes())
        if key not in self._tables:
            self._tables[key] = frequency_table(setup) + antenna_table(
                self._array, day, setup
            )
        return self._tables[key]

    def _groups(
        self, visibilities: Visibilities, track: Track, day: Day
    ) -> NDArray[np.float32]:
        """Return all groups, big-endian; shape (t baseline, parameters + data)."""
        times, bands, hands, baselines = visibilities.data.shape[:4]
        count = len(_PARAMETERS)
        width = count + bands * CHANNELS * hands * 3
        groups = np.empty((times, baselines, width), dtype=np.float32)
        antennas = antenna_uvw_m(track, self._positions) / SPEED_OF_LIGHT_M_PER_S
        groups[..., :3] = antennas[:, self._first] - antennas[:, self._second]
        coarse, fine = _dates(visibilities.time_utc_ns, day)
        groups[..., 3] = coarse[:, np.newaxis]
        groups[..., 4] = fine[:, np.newaxis]
        groups[..., 5] = 256 * (self._first + 1) + self._second + 1
        groups[..., 6:8] = 1  # source and frequency setup: the only ones
        groups[..., 8] = visibilities.integration_s[:, np.newaxis]
        cells = groups[..., count:].reshape(
            times, baselines, bands, CHANNELS, hands, 3, copy=False
        )
        for band in range(bands):
            for hand in range(hands):
                data = visibilities.data[:, band, hand]
                cells[:, :, band, :, hand, 0] = data.real
                np.negative(data.imag, out=cells[:, :, band, :, hand, 1])
                cells[:, :, band, :, hand, 2] = visibilities.weights[:, band, hand]
        groups = groups.reshape(times * baselines, width)
        return groups if _IS_BIG_ENDIAN else groups.byteswap(inplace=True)


_IS_BIG_ENDIAN = np.dtype(np.float32) == np.dtype(">f4")


def _dates(
    time_utc_ns: NDArray[np.int64], day: Day
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the two parts of times in days since the beginning of a day."""
    start = int(np.datetime64(day.date, "ns").astype(np.int64))
    since_ns = time_utc_ns - start
    coarse = np.rint(since_ns * (_COARSE_PER_DAY / _DAY_NS)).astype(np.int64)
    # coarse / 2^20 days in ns is not whole: the rest is counted in ns 2^20
    rest = since_ns * _COARSE_PER_DAY - coarse * _DAY_NS
    return (
        (coarse / _COARSE_PER_DAY).astype(np.float32),
        (rest / (_DAY_NS * _COARSE_PER_DAY)).astype(np.float32),
    )


def _cards(
    visibilities: Visibilities,
    centre: PhaseCentre,
    day: Day,
    setup: FrequencySetup,
    groups: int,
) -> list[Card]:
    """Return the primary header."""
    _, bands, hands, _, _ = visibilities.data.shape
    array = visibilities.describe()
    first_hand = _STOKES[visibilities.polarizations[0]]
    axes: list[tuple[str, int, float, float]] = [
        ("COMPLEX", 3, 1.0, 1.0),
        ("STOKES", hands, float(first_hand), -1.0),
        ("FREQ", CHANNELS, setup.reference_hz, CHANNEL_WIDTH_HZ),
        ("IF", bands, 1.0, 1.0),
        ("RA", 1, centre.ra_deg, 1.0),
        ("DEC", 1, centre.dec_deg, 1.0),
    ]
    cards: list[Card] = [
        ("SIMPLE", True, ""),
        ("BITPIX", -32, ""),
        ("NAXIS", 1 + len(axes), ""),
        ("NAXIS1", 0, "random groups"),
        *((f"NAXIS{n}", size, "") for n, (_, size, _, _) in enumerate(axes, 2)),
        ("EXTEND", True, ""),
        ("GROUPS", True, ""),
        ("PCOUNT", len(_PARAMETERS), "parameters of a group"),
        ("GCOUNT", groups, "baselines times times"),
    ]
    for n, (name, _, value, step) in enumerate(axes, 2):
        cards += [
            (f"CTYPE{n}", name, ""),
            (f"CRVAL{n}", value, ""),
            (f"CDELT{n}", step, ""),
            (f"CRPIX{n}", 1.0, ""),
            (f"CROTA{n}", 0.0, ""),
        ]
    for n, name in enumerate(_PARAMETERS, 1):
        zero = day.julian_date if n == 4 else 0.0
        cards += [
            (f"PTYPE{n}", name, ""),
            (f"PSCAL{n}", 1.0, ""),
            (f"PZERO{n}", zero, ""),
        ]
    return [
        *cards,
        ("OBJECT", centre.name, ""),
        ("TELESCOP", "MUSER", ""),
        ("INSTRUME", array.name, ""),
        ("OBSERVAT", "Mingantu", "Inner Mongolia, China"),
        ("ORIGIN", "OpenCluster", ""),
        ("TIMESYS", "UTC", ""),
        ("DATE-OBS", _iso(visibilities.start_utc_ns[0]), "first frame"),
        ("STRT-OBS", _iso(visibilities.start_utc_ns[0]), "first frame"),
        ("END-OBS", _iso(visibilities.end_utc_ns[-1]), "last frame"),
        ("EPOCH", 2000.0, ""),
        ("OBSRA", centre.ra_deg, "phase centre, topocentric, deg"),
        ("OBSDEC", centre.dec_deg, ""),
        ("BUNIT", "UNCALIB", ""),
        ("BSCALE", 1.0, ""),
        ("BZERO", 0.0, ""),
    ]


def _iso(time_utc_ns: np.int64) -> str:
    return str(np.datetime64(int(time_utc_ns), "ns"))


def _write_all(descriptor: int, part: bytes | memoryview) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
