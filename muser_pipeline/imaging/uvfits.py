"""Visibilities from UVFITS files, whoever wrote them.

What differs between writers: the order and number of axes; frequencies in the IF axis,
with a table of offsets, some counted downwards; parameters with a scale and a zero;
a date in one part or in two; antennas in one number (256 or 2048 times the first, plus
the second) or in two; several subarrays; seconds of light or wavelengths.

Source: AIPS memo 117, Greisen 2012 (AIPS FITS file format); FITS standard 4.0,
chapter 6; for 2048, the convention of MIRIAD that pyuvdata documents.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.uvfits_tables import Tables, Unreadable
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S, Snapshot

SUBARRAY_STEP = 10_000
"""Antenna n of subarray k, counted from 0, is number n + k times this."""
_DAY_NS = 86_400 * 10**9
_JULIAN_DAY_OF_1970 = 2_440_587.5
_LATEST_DAY = 100_000
"""Days from 1970 that nanoseconds in 64 bits can count."""
_POLARIZATIONS = {
    **{1: "I", 2: "Q", 3: "U", 4: "V"},
    **{-1: "RR", -2: "LL", -3: "RL", -4: "LR"},
    **{-5: "XX", -6: "YY", -7: "XY", -8: "YX"},
}
_AXES = ("COMPLEX", "STOKES", "FREQ", "IF")
_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
_MOST_BYTES = 64 << 30
_OF_DAMAGED_CARDS = (
    *(AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError),
)
"""What comes out of astropy besides its own errors where a header is garbled."""


def read_uvfits(path: str | Path) -> Snapshot:
    """Return the visibilities of a UVFITS file of one source and one setup.

    Channels of all IFs follow each other. Autocorrelations are left out.

    Parameters
    ----------
    path : str or Path
        A random-groups file, not compressed.

    Raises
    ------
    ImagingError
        When it is none, or holds what an image cannot be made of; its reason is
        "file", and the message names the file.
    """
    from astropy.io.fits import VerifyError

    path = Path(path)
    try:
        # astropy warns of what it mends; what it cannot is an error below
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Reader(path).snapshot()
    except Unreadable as wrong:
        raise ImagingError("file", f"{path}: {wrong}") from None
    except OSError as wrong:
        reason = wrong.strerror or str(wrong)
        raise ImagingError("file", f"{path}: {reason}") from wrong
    except (VerifyError, *_OF_DAMAGED_CARDS) as wrong:
        raise ImagingError("file", f"{path}: is damaged: {wrong!r}") from wrong


@dataclass(frozen=True)
class _Axis:
    """One axis of the data, as its header describes it."""

    name: str
    size: int
    value: float
    step: float
    pixel: float

    def values(self) -> NDArray[np.float64]:
        """Return the coordinates of all its pixels."""
        return self.value + self.steps() * self.step

    def steps(self) -> NDArray[np.float64]:
        """Return how many steps each pixel is from the reference."""
        return np.arange(1, self.size + 1, dtype=np.float64) - self.pixel


@dataclass(frozen=True)
class _Parameter:
    """A random parameter of all groups: raw * scale + zero."""

    name: str
    raw: NDArray[np.float64]
    zero: float

    def values(self) -> NDArray[np.float64]:
        return self.raw + self.zero


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header, start = _primary_header(path)
        self._axes = self._read_axes()
        self._parameters, self._data = self._read_groups(start)
        self._tables = Tables(path)

    def snapshot(self) -> Snapshot:
        """Return everything that is not an autocorrelation."""
        first, second = self._antennas()
        crossed = first != second
        if not crossed.any():
            raise Unreadable("holds autocorrelations only")
        self._one_only("SOURCE", "sources", "split it by source")
        self._one_only("FREQSEL", "frequency setups", "split it by setup")
        frequency_hz = self._frequency_hz()
        data, weights = self._visibilities(crossed)
        ra_rad, dec_rad = self._centre()
        return Snapshot(
            uvw_m=self._uvw_m()[crossed],
            frequency_hz=frequency_hz.ravel(),
            data=data,
            weights=weights,
            polarizations=self._hands(),
            antenna1=first[crossed],
            antenna2=second[crossed],
            time_utc_ns=self._time_utc_ns()[crossed],
            ra_rad=ra_rad,
            dec_rad=dec_rad,
            unit="Jy" if self._text("BUNIT").upper() == "JY" else "arbitrary",
            telescope=self._telescope(),
            target=self._text("OBJECT"),
            observer=self._text("OBSERVER"),
        )

    def _read_axes(self) -> dict[str, _Axis]:
        """Return the axes by name, in the order of the file: the first is fastest."""
        header = self._header
        axes = {}
        for n in range(2, self._count("NAXIS") + 1):
            size = self._count(f"NAXIS{n}")
            name = str(header.get(f"CTYPE{n}", "")).strip().upper() or f"axis {n}"
            if name not in _AXES and size != 1:
                raise Unreadable(f"its axis {name} has {size} elements instead of 1")
            axes[name] = _Axis(
                name,
                size,
                self._number(f"CRVAL{n}", 0.0),
                self._number(f"CDELT{n}", 1.0),
                self._number(f"CRPIX{n}", 1.0),
            )
        for name in _AXES[:3]:
            if name not in axes:
                raise Unreadable(f"has no axis {name} but {', '.join(axes)}")
        if axes["COMPLEX"].size not in (2, 3):
            raise Unreadable(
                f"its axis COMPLEX has {axes['COMPLEX'].size} elements instead of 3"
            )
        return axes

    def _read_groups(
        self, start: int
    ) -> tuple[list[_Parameter], NDArray[np.float32] | NDArray[np.float64]]:
        """Return the parameters, and the data as (IF, channel, hand, row, part)."""
        header = self._header
        groups, count = self._count("GCOUNT"), self._count("PCOUNT")
        shape = [axis.size for axis in reversed(self._axes.values())]
        width = count + math.prod(shape)
        kind = np.dtype(_TYPES[header["BITPIX"]])
        there = (self._path.stat().st_size - start) // (width * kind.itemsize)
        if there < groups:
            raise Unreadable(f"is cut: {there} of {groups} groups are there")
        if groups * width * kind.itemsize > _MOST_BYTES:
            raise Unreadable(f"is larger than {_MOST_BYTES >> 30} GiB")
        table = np.fromfile(self._path, kind, groups * width, offset=start)
        table = table.reshape(groups, width)
        parameters = []
        for n in range(1, count + 1):
            scale = self._number(f"PSCAL{n}", 1.0)
            parameters.append(
                _Parameter(
                    self._text(f"PTYPE{n}").upper(),
                    table[:, n - 1].astype(np.float64) * scale,
                    self._number(f"PZERO{n}", 0.0),
                )
            )
        return parameters, self._ordered(table[:, count:].reshape(groups, *shape))

    def _ordered(self, cells: NDArray[Any]) -> NDArray[Any]:
        """Return cells of all groups as (hand, row, IF, channel, part), scaled."""
        if "IF" not in self._axes:
            cells = cells[..., np.newaxis]
        names = ["row", *reversed(self._axes), "IF"]
        wanted = ["STOKES", "row", "IF", "FREQ", "COMPLEX"]
        order = [names.index(name) for name in wanted]
        rest = [n for n in range(cells.ndim) if n not in order]
        cells = cells.transpose(*order, *rest)
        cells = cells.reshape(cells.shape[: len(wanted)])
        scale, zero = self._number("BSCALE", 1.0), self._number("BZERO", 0.0)
        return cells if (scale, zero) == (1.0, 0.0) else cells * scale + zero

    def _visibilities(
        self, crossed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Return data and weights, (hand, row, channel)."""
        cells = self._data[:, crossed]
        shape = (*cells.shape[:2], -1)
        data = np.empty(cells.shape[:-1], dtype=np.complex64)
        data.real, data.imag = cells[..., 0], cells[..., 1]
        if cells.shape[-1] == 2:
            weights = np.ones(data.shape, dtype=np.float32)
        else:
            weights = cells[..., 2].astype(np.float32)
            weights[~(np.isfinite(weights) & (weights > 0))] = 0
        return data.reshape(shape), weights.reshape(shape)

    def _uvw_m(self) -> NDArray[np.float64]:
        columns = []
        for name in ("UU", "VV", "WW"):
            found = [each for each in self._parameters if each.name.startswith(name)]
            if not found:
                raise Unreadable(f"its groups have no parameter {name}")
            metres = SPEED_OF_LIGHT_M_PER_S
            if found[0].name.startswith(f"{name}-L"):
                metres /= self._axes["FREQ"].value
            columns.append(found[0].values() * metres)
        uvw = np.stack(columns, axis=1)
        if not np.isfinite(uvw).all():
            raise Unreadable("has baselines that are not finite")
        return uvw

    def _antennas(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        baseline = self._parameter("BASELINE")
        if baseline is None:
            first, second = self._parameter("ANTENNA1"), self._parameter("ANTENNA2")
            if first is None or second is None:
                raise Unreadable("its groups have no parameter BASELINE")
            subarray = self._parameter("SUBARRAY")
            offset = 0 if subarray is None else _whole(subarray) - 1
            offset = np.maximum(offset, 0) * SUBARRAY_STEP
            return _whole(first) + offset, _whole(second) + offset
        number = np.floor(baseline + 0.001).astype(np.int64)
        offset = np.rint((baseline - number) * 100).astype(np.int64) * SUBARRAY_STEP
        large = number > 1 << 16
        unit = np.where(large, 2048, 256)
        number = number - np.where(large, 1 << 16, 0)
        return number // unit + offset, number % unit + offset

    def _time_utc_ns(self) -> NDArray[np.int64]:
        """Return times; days and their parts are summed apart, to lose no digit."""
        dates = [each for each in self._parameters if each.name.startswith("DATE")]
        if not dates:
            raise Unreadable("its groups have no parameter DATE")
        count = self._data.shape[1]
        days = np.full(count, -math.floor(_JULIAN_DAY_OF_1970), dtype=np.int64)
        parts = np.full(count, -(_JULIAN_DAY_OF_1970 % 1))
        for date in dates:
            if not np.isfinite(date.values()).all():
                raise Unreadable("has dates that are not finite")
            whole = np.floor(date.raw) + math.floor(date.zero)
            days += whole.astype(np.int64)
            parts += date.raw % 1 + date.zero % 1
        if np.max(np.abs(days)) > _LATEST_DAY:
            raise Unreadable("has dates that are no Julian days")
        ahead_ns = round(self._tables.ahead_of_utc_s() * 1e9)
        days *= _DAY_NS
        days += np.rint(parts * _DAY_NS).astype(np.int64) - ahead_ns
        return days

    def _hands(self) -> tuple[str, ...]:
        codes = np.rint(self._axes["STOKES"].values()).astype(int).tolist()
        for code in codes:
            if code not in _POLARIZATIONS:
                raise Unreadable(f"has the unknown Stokes code {code}")
        return tuple(_POLARIZATIONS[code] for code in codes)

    def _frequency_hz(self) -> NDArray[np.float64]:
        """Return the centres of channels, shape (IF, channel)."""
        axis = self._axes["FREQ"]
        bands = self._axes["IF"].size if "IF" in self._axes else 1
        setup = self._parameter("FREQSEL")
        offsets, widths = self._tables.bands(
            bands, 1 if setup is None else int(_whole(setup)[0]), axis.step
        )
        frequency_hz: NDArray[np.float64] = np.multiply.outer(widths, axis.steps())
        frequency_hz += axis.value + offsets[:, np.newaxis]
        if not (frequency_hz > 0).all():
            raise Unreadable(f"has a channel at {frequency_hz.min()} Hz")
        return frequency_hz

    def _centre(self) -> tuple[float, float]:
        """Return the phase centre in the ICRS, radians."""
        place = self._tables.centre(self._parameter("SOURCE"))
        if place is None:
            names = ("RA", "DEC")
            if set(names) <= set(self._axes):
                ra, dec = (self._axes[name].value for name in names)
            else:
                ra, dec = (self._number(f"OBS{name}", math.nan) for name in names)
            place = (ra, dec, self._epoch())
        ra, dec, epoch = place
        if not (math.isfinite(ra) and -90 <= dec <= 90):
            raise Unreadable(f"has a source at right ascension {ra}, declination {dec}")
        return _to_icrs(ra, dec, epoch)

    def _epoch(self) -> float:
        given = self._header.get("EPOCH", self._header.get("EQUINOX", 2000.0))
        try:
            return float(str(given).strip().lstrip("JBjb") or 2000.0)
        except ValueError:
            raise Unreadable(f"has the unknown epoch {given!r}") from None

    def _parameter(self, name: str) -> NDArray[np.float64] | None:
        """Return a parameter, or None; those with the same name are summed."""
        found = [each.values() for each in self._parameters if each.name == name]
        if not found:
            return None
        total: NDArray[np.float64] = np.sum(found, axis=0)
        return total

    def _one_only(self, name: str, plural: str, advice: str) -> None:
        values = self._parameter(name)
        if values is not None and len(np.unique(values)) > 1:
            count = len(np.unique(values))
            raise Unreadable(f"holds {count} {plural}: {advice}")

    def _telescope(self) -> str:
        telescope, instrument = self._text("TELESCOP"), self._text("INSTRUME")
        return instrument if instrument.startswith(telescope) else telescope

    def _count(self, keyword: str) -> int:
        value = self._header.get(keyword)
        if type(value) is not int or not 0 < value < 1 << 40:
            raise Unreadable(f"its {keyword} is {value!r}")
        return value

    def _text(self, keyword: str) -> str:
        return str(self._header.get(keyword, "")).strip()

    def _number(self, keyword: str, default: float) -> float:
        value = self._header.get(keyword, default)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise Unreadable(f"its {keyword} is no number but {value!r}") from None


def _primary_header(path: Path) -> tuple[Any, int]:
    """Return the primary header, and where its data begin."""
    from astropy.io import fits

    with path.open("rb") as file:
        if file.read(9) != b"SIMPLE  =":
            raise Unreadable("is no FITS file: it does not begin with SIMPLE")
        file.seek(0)
        try:
            header = fits.Header.fromfile(file, endcard=True)
        except OSError:
            raise Unreadable("is cut: its header has no END") from None
        start = file.tell()
    if header.get("GROUPS") is not True or header.get("NAXIS1") != 0:
        raise Unreadable("holds no random groups, so it is no UVFITS file")
    if header.get("BITPIX") not in _TYPES:
        raise Unreadable(f"its BITPIX is {header.get('BITPIX')}")
    return header, start


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.rint(values).astype(np.int64)


def _to_icrs(ra_deg: float, dec_deg: float, epoch: float) -> tuple[float, float]:
    """Return a place in the ICRS, radians, of one in the FK5 or the FK4."""
    if epoch == 2000.0:
        import erfa

        # the frame of Hipparcos is the ICRS, without proper motion
        ra, dec, *_ = erfa.fk52h(
            math.radians(ra_deg), math.radians(dec_deg), 0, 0, 0, 0
        )
        return float(ra) % (2 * math.pi), float(dec)
    from astropy.coordinates import FK4, FK5, SkyCoord

    frame = FK4(equinox=f"B{epoch}") if epoch < 1984 else FK5(equinox=f"J{epoch}")
    place = SkyCoord(ra_deg, dec_deg, unit="deg", frame=frame).icrs
    return float(place.ra.rad), float(place.dec.rad)
