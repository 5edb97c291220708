"""UVFITS files of our own and of others, as images need them."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import FK4, FK5, SkyCoord
from astropy.io import fits
from field_tools import LIGHT
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.geometry import Sun, follow, uvw_m
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.uvfits import SUBARRAY_STEP, read_uvfits
from muser_pipeline.integration import Visibilities
from muser_pipeline.uvfits import UvfitsWriter

START_NS = int(np.datetime64("2015-11-02T04:08:49.354161240", "ns").astype(np.int64))


def our_visibilities() -> Visibilities:
    """Return three averages of two bands with both hands."""
    array = load_array(1)
    rng = np.random.default_rng(0)
    shape = (3, 2, 2, array.baselines, 16)
    times = START_NS + np.array([0, 25_000_000, 60_000_000_000])
    return Visibilities(
        array=1,
        time_utc_ns=times,
        start_utc_ns=times,
        end_utc_ns=times,
        bands=np.array([1, 3]),
        polarizations=("RR", "LL"),
        frequency_hz=array.channel_centres_hz(np.array([1, 3])),
        data=(rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype("c8"),
        weights=rng.integers(0, 3, shape).astype(np.float32),
        frames=np.ones((3, 2, 2), np.int64),
    )


def test_our_own_files_come_back(tmp_path: Path) -> None:
    truth = our_visibilities()
    array = truth.describe()
    track = follow(Sun(), truth.time_utc_ns, array.site)
    UvfitsWriter(1).write(tmp_path / "own.uvfits", truth, track)
    found = read_uvfits(tmp_path / "own.uvfits")
    # a baseline on disk is the first minus the second antenna
    data = truth.data.conj().transpose(2, 0, 3, 1, 4)
    assert np.array_equal(found.data, data.reshape(found.data.shape))
    weights = truth.weights.transpose(2, 0, 3, 1, 4)
    assert np.array_equal(found.weights, weights.reshape(found.weights.shape))
    assert np.array_equal(found.frequency_hz, truth.frequency_hz.ravel())
    assert found.polarizations == ("RR", "LL")
    first, second = array.baseline_inputs()
    baselines = uvw_m(track, array.positions_geocentric_m(), first, second)
    np.testing.assert_allclose(found.uvw_m, -baselines.reshape(-1, 3), atol=1e-3)
    assert np.array_equal(found.antenna1, np.tile(first + 1, 3))
    assert np.array_equal(found.antenna2, np.tile(second + 1, 3))
    times = np.repeat(truth.time_utc_ns, array.baselines)
    assert np.max(np.abs(found.time_utc_ns - times)) <= 3
    assert np.degrees(found.ra_rad) == pytest.approx(track.ra_deg[1], abs=1e-9)
    assert np.degrees(found.dec_rad) == pytest.approx(track.dec_deg[1], abs=1e-9)
    assert (found.unit, found.telescope, found.target) == (
        "arbitrary",
        "MUSER-I",
        "Sun",
    )


@dataclass
class Foreign:
    """A file as others write them, with all that differs between writers.

    Without changes: 4 groups, 1 IF of 3 channels, RR and LL, one antenna table.
    """

    axes: list[tuple[str, int, float, float, float]] = field(
        default_factory=lambda: [
            ("COMPLEX", 3, 1.0, 1.0, 1.0),
            ("STOKES", 2, -1.0, -1.0, 1.0),
            ("FREQ", 3, 1.4e9, 1e6, 1.0),
            ("RA", 1, 40.0, 1.0, 1.0),
            ("DEC", 1, -25.0, 1.0, 1.0),
        ]
    )
    parameters: dict[str, list[float]] = field(
        default_factory=lambda: {
            "UU": [1e-6, 2e-6, 3e-6, -4e-6],
            "VV": [5e-6, 0.0, -1e-6, 2e-6],
            "WW": [1e-7, -2e-7, 3e-7, 0.0],
            "BASELINE": [258.0, 259.0, 515.0, 260.0],
            "DATE": [2457000.5, 2457000.5, 2457000.5, 2457001.5],
        }
    )
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    cards: dict[str, Any] = field(default_factory=dict)
    tables: list[fits.BinTableHDU] = field(default_factory=list)
    bitpix: int = -32

    @property
    def groups(self) -> int:
        return len(next(iter(self.parameters.values())))

    def cells(self) -> NDArray[np.float64]:
        """Return numbers that tell where they stand: whole, so exact in any type."""
        shape = [size for _, size, *_ in reversed(self.axes)]
        count = int(np.prod(shape)) * self.groups
        return (np.arange(count) % 20_000 + 1.0).reshape(self.groups, *shape)

    def write(self, path: Path) -> Path:
        header = fits.Header()
        header["SIMPLE"], header["BITPIX"] = True, self.bitpix
        header["NAXIS"], header["NAXIS1"] = 1 + len(self.axes), 0
        for n, (_, size, *_) in enumerate(self.axes, 2):
            header[f"NAXIS{n}"] = size
        header["EXTEND"] = header["GROUPS"] = True
        header["PCOUNT"], header["GCOUNT"] = len(self.parameters), self.groups
        for n, (name, _, value, step, pixel) in enumerate(self.axes, 2):
            header[f"CTYPE{n}"], header[f"CRVAL{n}"] = name, value
            header[f"CDELT{n}"], header[f"CRPIX{n}"] = step, pixel
        columns = []
        for n, (name, values) in enumerate(self.parameters.items(), 1):
            scale, zero = self.scales.get(name, (1.0, 0.0))
            header[f"PTYPE{n}"] = name.rstrip("0123456789")
            header[f"PSCAL{n}"], header[f"PZERO{n}"] = scale, zero
            columns.append((np.array(values, dtype=float) - zero) / scale)
        header.update(self.cards)
        kind = {-32: ">f4", -64: ">f8", 16: ">i2"}[self.bitpix]
        cells = self.cells().reshape(self.groups, -1)
        body = np.hstack([np.stack(columns, axis=1), cells]).astype(kind).tobytes()
        content = header.tostring().encode() + body + bytes(-len(body) % 2880)
        behind = BytesIO()
        fits.HDUList([fits.PrimaryHDU(), *self.tables]).writeto(behind)
        path.write_bytes(content + behind.getvalue()[2880:])
        return path


def frequency_table(
    offsets: list[float],
    widths: list[float],
    sidebands: list[int],
    setups: tuple[int, ...] = (1,),
) -> fits.BinTableHDU:
    """Return a table whose setups but the last are elsewhere."""
    count = len(offsets)
    elsewhere = [[9e9] * count] * (len(setups) - 1)
    rows = len(setups)
    columns = [
        fits.Column("FRQSEL", "1J", array=setups),
        fits.Column("IF FREQ", f"{count}D", array=np.array([*elsewhere, offsets])),
        fits.Column("CH WIDTH", f"{count}E", array=np.array([widths] * rows)),
        fits.Column("SIDEBAND", f"{count}J", array=np.array([sidebands] * rows)),
    ]
    return fits.BinTableHDU.from_columns(columns, name="AIPS FQ")


def antenna_table(**cards: Any) -> fits.BinTableHDU:
    table = fits.BinTableHDU.from_columns(
        [fits.Column("NOSTA", "1J", array=[1, 2, 3, 4])], name="AIPS AN"
    )
    table.header.update(cards)
    return table


def test_a_plain_file(tmp_path: Path) -> None:
    file = Foreign(cards={"OBJECT": "3C 84", "BUNIT": "JY", "OBSERVER": "Ryle"})
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    cells = file.cells()[:, 0, 0]
    assert found.polarizations == ("RR", "LL")
    assert found.data[1, 2, 0] == complex(cells[2, 0, 1, 0], cells[2, 0, 1, 1])
    assert found.data[0, 3, 2] == complex(cells[3, 2, 0, 0], cells[3, 2, 0, 1])
    assert found.weights[1, 0, 2] == cells[0, 2, 1, 2]
    assert found.frequency_hz.tolist() == [1.4e9, 1.401e9, 1.402e9]
    expected = np.array(list(file.parameters.values())[:3]).T * LIGHT
    np.testing.assert_allclose(found.uvw_m, expected, rtol=1e-6)
    assert found.antenna1.tolist() == [1, 1, 2, 1]
    assert found.antenna2.tolist() == [2, 3, 3, 4]
    assert found.time_utc_ns.tolist()[::3] == [
        np.datetime64(day, "ns").astype(int) for day in ("2014-12-09", "2014-12-10")
    ]
    assert (found.unit, found.target, found.observer) == ("Jy", "3C 84", "Ryle")
    place = SkyCoord(40, -25, unit="deg", frame=FK5(equinox="J2000")).icrs
    expected_place = (place.ra.rad, place.dec.rad)
    assert (found.ra_rad, found.dec_rad) == pytest.approx(expected_place, abs=1e-12)


def test_axes_in_another_order_and_a_reference_in_the_middle(tmp_path: Path) -> None:
    file = Foreign(
        axes=[
            ("COMPLEX", 3, 1.0, 1.0, 1.0),
            ("FREQ", 4, 5e9, -2e6, 2.5),
            ("IF", 2, 1.0, 1.0, 1.0),
            ("RA", 1, 40.0, 1.0, 1.0),
            ("STOKES", 2, -1.0, -1.0, 1.0),
            ("DEC", 1, -25.0, 1.0, 1.0),
            ("BEAM", 1, 0.0, 1.0, 1.0),
        ],
        tables=[frequency_table([0.0, 1e8], [2e6, 2e6], [1, 1])],
    )
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    cells = file.cells()[:, 0, 0]
    assert found.data.shape == (2, 4, 8)
    # IF 2, channel 3, LL
    assert found.data[1, 2, 6].real == cells[2, 1, 0, 1, 2, 0]
    steps = np.array([-1.5, -0.5, 0.5, 1.5]) * 2e6
    assert found.frequency_hz.tolist() == [*(5e9 + steps), *(5.1e9 + steps)]


@pytest.mark.parametrize(("width", "sideband"), [(-2e6, 1), (2e6, -1), (-2e6, -1)])
def test_channels_that_are_counted_downwards(
    tmp_path: Path, width: float, sideband: int
) -> None:
    file = Foreign(
        tables=[
            antenna_table(),
            frequency_table([1e7], [width], [sideband], setups=(7, 8)),
        ],
    )
    file.parameters["FREQSEL"] = [8.0] * 4
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    assert found.frequency_hz.tolist() == [1.41e9, 1.408e9, 1.406e9]


@pytest.mark.parametrize(
    ("code", "step", "expected"),
    [
        (1.0, 1.0, ("I", "Q", "U", "V")),
        (-1.0, -1.0, ("RR", "LL", "RL", "LR")),
        (-5.0, -1.0, ("XX", "YY", "XY", "YX")),
        (-4.0, 1.0, ("LR", "RL", "LL", "RR")),
    ],
)
def test_hands_and_stokes_parameters(
    tmp_path: Path, code: float, step: float, expected: tuple[str, ...]
) -> None:
    file = Foreign()
    file.axes[1] = ("STOKES", 4, code, step, 1.0)
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    assert found.polarizations == expected


def test_scaled_parameters_and_a_date_in_two_parts(tmp_path: Path) -> None:
    file = Foreign(
        scales={
            "UU": (1 / 8e9, 0.0),
            "VV": (1 / 8e9, 3e-7),
            "DATE1": (1.0, 2457000.5),
            "DATE2": (1 / 86400, 0.0),
        }
    )
    del file.parameters["DATE"]
    file.parameters["DATE1"] = [2457000.5 + day for day in (0, 0.25, 0.5, 1)]
    file.parameters["DATE2"] = [s / 86400 for s in (0.0, 0.001, 1.5, 100.25)]
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    np.testing.assert_allclose(
        found.uvw_m[:, 1], np.array(file.parameters["VV"]) * LIGHT, atol=1e-4
    )
    start = int(np.datetime64("2014-12-09", "ns").astype(np.int64))
    seconds = np.array([0, 21600.001, 43201.5, 86500.25])
    expected = start + np.rint(seconds * 1e9).astype(np.int64)
    assert np.max(np.abs(found.time_utc_ns - expected)) < 10


def test_subarrays_have_antennas_of_their_own(tmp_path: Path) -> None:
    file = Foreign(tables=[antenna_table(), antenna_table()])
    file.parameters["BASELINE"] = [258.0, 258.01, 65279.0, 65279.02]
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    second, third = SUBARRAY_STEP, 2 * SUBARRAY_STEP
    assert found.antenna1.tolist() == [1, 1 + second, 254, 254 + third]
    assert found.antenna2.tolist() == [2, 2 + second, 255, 255 + third]


def test_antennas_beyond_255(tmp_path: Path) -> None:
    file = Foreign()
    file.parameters["BASELINE"] = [
        2048 * first + second + 65536.0
        for first, second in ((1, 2), (1, 300), (299, 300), (40, 2000))
    ]
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    assert found.antenna1.tolist() == [1, 1, 299, 40]
    assert found.antenna2.tolist() == [2, 300, 300, 2000]


def test_antennas_in_parameters_of_their_own(tmp_path: Path) -> None:
    file = Foreign()
    del file.parameters["BASELINE"]
    # names that end in digits are written without them by the helper
    file.parameters |= {"ANTENNA1": [1, 1, 2, 1], "ANTENNA2": [2, 3, 3, 4]}
    path = file.write(tmp_path / "a.uvfits")
    content = path.read_bytes()
    content = content.replace(b"PTYPE5  = 'ANTENNA '", b"PTYPE5  = 'ANTENNA1'")
    path.write_bytes(content.replace(b"PTYPE6  = 'ANTENNA '", b"PTYPE6  = 'ANTENNA2'"))
    found = read_uvfits(path)
    assert found.antenna1.tolist() == [1, 1, 2, 1]
    assert found.antenna2.tolist() == [2, 3, 3, 4]


def test_autocorrelations_are_left_out(tmp_path: Path) -> None:
    file = Foreign()
    file.parameters["BASELINE"] = [257.0, 259.0, 514.0, 260.0]
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    assert found.antenna2.tolist() == [3, 4]
    assert found.data[0, 0, 0].real == file.cells()[1, 0, 0, 0, 0, 0]
    file.parameters["BASELINE"] = [257.0, 514.0, 257.0, 514.0]
    with pytest.raises(ImagingError, match="autocorrelations only"):
        read_uvfits(file.write(tmp_path / "a.uvfits"))


def test_no_weight_unless_above_zero_and_finite(tmp_path: Path) -> None:
    class Flagged(Foreign):
        def cells(self) -> NDArray[np.float64]:
            cells = super().cells()
            cells[0, ..., 2], cells[1, ..., 2] = -1.0, 0.0
            cells[2, ..., 2], cells[3, ..., 2] = nan, 2.0
            return cells

    found = read_uvfits(Flagged().write(tmp_path / "a.uvfits"))
    assert found.weights[:, :, 0].tolist() == [[0, 0, 0, 2], [0, 0, 0, 2]]


def test_data_without_weights(tmp_path: Path) -> None:
    file = Foreign()
    file.axes[0] = ("COMPLEX", 2, 1.0, 1.0, 1.0)
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    assert (found.weights == 1).all()
    assert found.data[0, 0, 0] == 1 + 2j


@pytest.mark.parametrize("bitpix", [16, -64])
def test_other_types_of_number(tmp_path: Path, bitpix: int) -> None:
    file = Foreign(bitpix=bitpix, cards={"BSCALE": 0.5, "BZERO": 3.0})
    file.scales = dict.fromkeys(("UU", "VV", "WW"), (1e-8, 0.0))
    file.scales["DATE"] = (1.0, 2457000.5)
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    assert found.data[0, 0, 0] == 3.5 + 4j
    assert found.uvw_m[0, 0] == pytest.approx(1e-6 * LIGHT)


def test_baselines_in_wavelengths(tmp_path: Path) -> None:
    file = Foreign()
    u, v, w = (file.parameters.pop(name) for name in ("UU", "VV", "WW"))
    for name, seconds in (("UU-L-SIN", u), ("VV-L-SIN", v), ("WW-L-SIN", w)):
        file.parameters[name] = [each * 1.4e9 for each in seconds]
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    np.testing.assert_allclose(found.uvw_m[:, 0], np.array(u) * LIGHT, rtol=1e-6)


@pytest.mark.parametrize(
    "cards",
    [
        {"TIMESYS": "IAT", "IATUTC": 35.0},
        {"TIMESYS": "IAT", "DATUTC": 35.0},
        {"TIMESYS": "UTC", "IATUTC": 35.0},
    ],
)
def test_time_systems(tmp_path: Path, cards: dict[str, Any]) -> None:
    found = read_uvfits(
        Foreign(tables=[antenna_table(**cards)]).write(tmp_path / "a.uvfits")
    )
    midnight = int(np.datetime64("2014-12-09", "ns").astype(np.int64))
    late_s = 0 if cards["TIMESYS"] == "UTC" else 35
    assert found.time_utc_ns[0] == midnight - late_s * 10**9


def test_the_place_of_a_source_of_1950(tmp_path: Path) -> None:
    found = read_uvfits(Foreign(cards={"EPOCH": 1950.0}).write(tmp_path / "a.uvfits"))
    place = SkyCoord(40, -25, unit="deg", frame=FK4(equinox="B1950")).icrs
    assert found.ra_rad == pytest.approx(place.ra.rad, abs=1e-12)
    assert abs(np.degrees(found.ra_rad) - 40) > 0.4


def test_the_place_is_that_of_the_source_in_its_table(tmp_path: Path) -> None:
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("ID. NO.", "1J", array=[3, 5]),
            fits.Column("RAEPO", "1D", array=[1.0, 120.0]),
            fits.Column("DECEPO", "1D", array=[1.0, 60.0]),
            fits.Column("EPOCH", "1D", array=[2000.0, 2000.0]),
        ],
        name="AIPS SU",
    )
    file = Foreign(tables=[table])
    file.parameters["SOURCE"] = [5.0] * 4
    found = read_uvfits(file.write(tmp_path / "a.uvfits"))
    assert np.degrees([found.ra_rad, found.dec_rad]) == pytest.approx(
        [120, 60], abs=1e-4
    )
    file.parameters["SOURCE"] = [5.0, 3.0, 5.0, 5.0]
    with pytest.raises(ImagingError, match="2 sources"):
        read_uvfits(file.write(tmp_path / "a.uvfits"))


def wrong(change: str) -> Foreign:
    file = Foreign()
    match change:
        case "two beams":
            file.axes.append(("BEAM", 2, 1.0, 1.0, 1.0))
        case "no frequency":
            file.axes[2] = ("WAVE", 1, 1.0, 1.0, 1.0)
        case "no baseline":
            del file.parameters["BASELINE"]
        case "no w":
            del file.parameters["WW"]
        case "no date":
            del file.parameters["DATE"]
        case "unknown hand":
            file.axes[1] = ("STOKES", 2, -9.0, -1.0, 1.0)
        case "two setups":
            file.parameters["FREQSEL"] = [1.0, 1.0, 2.0, 1.0]
        case "no table":
            file.axes.append(("IF", 2, 1.0, 1.0, 1.0))
        case "short table":
            file.axes.append(("IF", 2, 1.0, 1.0, 1.0))
            file.tables.append(frequency_table([0.0], [1e6], [1]))
        case "negative frequency":
            file.axes[2] = ("FREQ", 3, 1.0, -1.0, 1.0)
        case "no pole":
            file.axes[4] = ("DEC", 1, 91.0, 1.0, 1.0)
        case "bad scale":
            file.cards["PSCAL1"] = "big"
        case "bad epoch":
            file.cards["EPOCH"] = "now"
        case "far future":
            file.parameters["DATE"] = [9e9] * 4
        case "no date at all":
            file.parameters["DATE"] = [nan] * 4
        case "no place":
            file.parameters["UU"] = [nan] * 4
        case "one part":
            file.axes[0] = ("COMPLEX", 1, 1.0, 1.0, 1.0)
    return file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("two beams", "axis BEAM has 2 elements instead of 1"),
        ("no frequency", "has no axis FREQ but COMPLEX, STOKES"),
        ("no baseline", "no parameter BASELINE"),
        ("no w", "no parameter WW"),
        ("no date", "no parameter DATE"),
        ("unknown hand", "unknown Stokes code -9"),
        ("two setups", "2 frequency setups: split it by setup"),
        ("no table", "2 IFs but no table AIPS FQ"),
        ("short table", "2 IFs but 1 in table AIPS FQ"),
        ("negative frequency", "channel at -1.0 Hz"),
        ("no pole", "declination 91.0"),
        ("bad scale", "PSCAL1 is no number but 'big'"),
        ("bad epoch", "unknown epoch 'now'"),
        ("far future", "no Julian days"),
        ("no date at all", "dates that are not finite"),
        ("no place", "baselines that are not finite"),
        ("one part", "COMPLEX has 1 elements instead of 3"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, change: str, said: str
) -> None:
    path = wrong(change).write(tmp_path / "bad.uvfits")
    with pytest.raises(ImagingError, match=said) as raised:
        read_uvfits(path)
    assert raised.value.reason == "file"
    assert str(raised.value).startswith(f"{path}: ")


def image_file(path: Path) -> None:
    fits.PrimaryHDU(np.zeros((8, 8), np.float32)).writeto(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b""), "no FITS file"),
        (lambda path: path.write_text("hello"), "no FITS file"),
        (lambda path: path.write_bytes(b"SIMPLE  =" + bytes(9000)), "damaged|no END"),
        (image_file, "no random groups"),
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "directory"),
    ],
    ids=["empty", "text", "zeros", "image", "missing", "folder"],
)
def test_what_is_no_uvfits_file_is_said(tmp_path: Path, make: Any, said: str) -> None:
    path = tmp_path / "bad.uvfits"
    make(path)
    with pytest.raises(ImagingError, match=said) as raised:
        read_uvfits(path)
    assert raised.value.reason == "file"
    assert str(path) in str(raised.value)


def test_a_cut_file_is_said_to_be_cut(tmp_path: Path) -> None:
    file = Foreign()
    path = file.write(tmp_path / "a.uvfits")
    content = path.read_bytes()
    group = 4 * (5 + 3 * 2 * 3)
    start = len(content) - 2880
    for size, said in (
        (start + 3 * group + 1, "is cut: 3 of 4 groups"),
        (start - 1, "is cut|damaged"),
        (500, "is cut|damaged"),
    ):
        path.write_bytes(content[:size])
        with pytest.raises(ImagingError, match=said):
            read_uvfits(path)


def test_garbled_headers_raise_nothing_else(tmp_path: Path) -> None:
    file = Foreign(tables=[antenna_table(), frequency_table([0.0], [1e6], [1])])
    content = file.write(tmp_path / "a.uvfits").read_bytes()
    rng = np.random.default_rng(11)
    said = set()
    for _ in range(150):
        garbled = bytearray(content)
        for at in rng.integers(0, len(content), 12):
            garbled[at] = rng.choice([0, 32, 39, 48, 57, 65, 255])
        path = tmp_path / "b.uvfits"
        path.write_bytes(garbled)
        try:
            read_uvfits(path)
        except ImagingError as error:
            said.add(error.reason)
    assert said == {"file"}
