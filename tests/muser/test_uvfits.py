"""UVFITS files read back with independent programs, and imaged.

The sources that are looked for are put into raw correlations by `recorded`, which
turns the Earth with a textbook's polynomial, number by number, and knows nothing of
the pipeline: whatever is wrong with a sign on the way moves them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from math import cos, pi, radians, sin
from pathlib import Path

import astropy.units as u
import ducc0
import numpy as np
import pytest
from astropy.coordinates import FK5, TETE, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from numpy.typing import NDArray
from pyuvdata import UVData
from synthetic import PERIOD_NS, START_NS, make_frames

from muser_pipeline.array import SITE, Site, load_array
from muser_pipeline.calibration import correct_delays, static_delays_ns
from muser_pipeline.errors import FrameValueError
from muser_pipeline.geometry import CALIBRATORS, Sun, follow, uvw_m
from muser_pipeline.integration import Visibilities, integrate
from muser_pipeline.raw import SWITCHED_OFF, Frames
from muser_pipeline.uvfits import UvfitsWriter, name_of, split, write_files

pytestmark = pytest.mark.usefixtures("_astropy_downloads_nothing")

LIGHT = 299_792_458.0
ARCSEC = pi / 180 / 3600


@pytest.fixture(autouse=True)
def _every_warning_is_an_error() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def read(path: Path) -> UVData:
    """Read a file with all checks that pyuvdata has."""
    return UVData.from_file(
        path,
        file_type="uvfits",
        run_check=True,
        check_extra=True,
        run_check_acceptability=True,
        strict_uvw_antpos_check=True,
    )


def julian_date(time_utc_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    days, rest = np.divmod(time_utc_ns, 86_400 * 10**9)
    return 2_440_587.5 + days + rest / 86_400e9


def check_against(read_back: UVData, truth: Visibilities, baselines: list[int]) -> None:
    """Compare what pyuvdata has read with what was written, all of some baselines."""
    array = truth.describe()
    first, second = array.baseline_inputs()
    assert read_back.Ntimes == len(truth)
    assert read_back.Nbls == array.baselines
    # pyuvdata's times are Julian dates in one float64: 40 microseconds
    np.testing.assert_allclose(
        np.unique(read_back.time_array),
        julian_date(truth.time_utc_ns),
        rtol=0,
        atol=1e-9,
    )
    assert np.array_equal(read_back.freq_array, truth.frequency_hz.ravel())
    assert np.array_equal(
        read_back.channel_width, np.full(truth.frequency_hz.size, 25e6)
    )
    stokes = [{"RR": -1, "LL": -2}[hand] for hand in truth.polarizations]
    assert read_back.polarization_array.tolist() == stokes
    assert read_back.telescope.name == "MUSER"
    assert read_back.telescope.instrument == array.name
    assert list(read_back.telescope.antenna_names) == list(array.antenna_names)
    np.testing.assert_allclose(
        read_back.telescope.antenna_positions,
        array.positions_geocentric_m(),
        rtol=0,
        atol=1e-4,
    )
    centre = read_back.telescope.location.geocentric
    np.testing.assert_allclose(
        [each.to_value("m") for each in centre], array.site.geocentric_m, atol=1e-6
    )
    np.testing.assert_allclose(
        read_back.integration_time.reshape(len(truth), -1)[:, 0],
        truth.integration_s,
        rtol=1e-6,
    )
    for b in baselines:
        pair = (int(first[b]) + 1, int(second[b]) + 1)
        # pyuvdata's visibilities are as ours: second minus first antenna
        data = truth.data[:, :, :, b].transpose(0, 1, 3, 2)
        weights = truth.weights[:, :, :, b].transpose(0, 1, 3, 2)
        shape = (len(truth), truth.frequency_hz.size, len(truth.polarizations))
        assert np.array_equal(
            read_back.get_data(pair, squeeze="none"), data.reshape(shape)
        )
        assert np.array_equal(
            read_back.get_nsamples(pair, squeeze="none"), weights.reshape(shape)
        )
        flags = read_back.get_flags(pair, squeeze="none")
        assert np.array_equal(flags, weights.reshape(shape) == 0)


def flagged(frames: Frames) -> Frames:
    flags = frames.flags.copy()
    flags[:, 5] = True
    flags[0, :, 3] = True
    return frames.replace(flags=flags)


KINDS = [
    (1, 16, "frame", None, 16),
    (1, 24, "integration", None, 3),
    (1, 64, "integration", 100_000_000, 3),
    (1, 16, "band", None, 4),
    (1, 16, "range", None, 1),
    (1, 64, "range", 50_000_000, 1),
    (2, 3, "frame", None, 3),
    (2, 70, "range", None, 1),
]


@pytest.mark.parametrize(("array", "count", "by", "interval", "files"), KINDS)
def test_every_kind_of_file_is_read_by_pyuvdata(
    tmp_path: Path, array: int, count: int, by: str, interval: int | None, files: int
) -> None:
    frames = flagged(make_frames(array, count))
    written = write_files(frames, tmp_path, Sun(), by, interval)
    assert len(written) == files
    assert sorted(each.path for each in written) == sorted(tmp_path.iterdir())
    contents = list(split(frames, by, interval))
    for n in {0, len(written) - 1}:
        read_back = read(written[n].path)
        last = frames.describe().baselines - 1
        check_against(read_back, contents[n], [0, 5, 39, 400, last])
        track = follow(Sun(), contents[n].time_utc_ns, SITE)
        expected = uvw_m(
            track,
            frames.describe().positions_geocentric_m(),
            *frames.describe().baseline_inputs(),
        )
        # float32 seconds of light: 3300 m 2^-25
        np.testing.assert_allclose(
            read_back.uvw_array, expected.reshape(-1, 3), rtol=0, atol=2e-4
        )


def test_uvw_are_those_that_pyuvdata_computes_from_the_positions(
    tmp_path: Path,
) -> None:
    frames = make_frames(2, 2)
    read_back = read(write_files(frames, tmp_path, Sun(), "range")[0].path)
    written = read_back.uvw_array.copy()
    with pytest.warns(UserWarning, match="without adjusting visibility phases"):
        # the visibilities are not wanted afterwards
        read_back.set_uvws_from_antenna_positions(update_vis=False)
    off = np.abs(written - read_back.uvw_array).max(axis=0)
    # 0.005 arcseconds of the Sun and 3.3 km make 0.08 mm, float32 0.1 mm; pyuvdata has
    # the north from points half a degree away, which turns u and v by 0.4 arcseconds
    assert (off < [1e-2, 1e-2, 1e-3]).all()


def test_astropy_reads_headers_and_tables(tmp_path: Path) -> None:
    frames = make_frames(1, 16)
    (written,) = write_files(frames, tmp_path, Sun(), "range")
    track = follow(Sun(), frames.time_utc_ns, SITE)
    with fits.open(written.path) as file:
        file.verify("exception")
        assert [hdu.name for hdu in file] == [
            "PRIMARY",
            "AIPS FQ",
            "AIPS AN",
            "AIPS SU",
        ]
        head = file[0].header
        groups, antennas = file[0].data, file["AIPS AN"]
        frequencies, source = file["AIPS FQ"].data[0], file["AIPS SU"].data[0]
        assert groups.parnames == [
            *("UU", "VV", "WW", "DATE", "DATE", "BASELINE"),
            *("SOURCE", "FREQSEL", "INTTIM"),
        ]
        assert groups.data.shape == (2 * 780, 1, 1, 4, 16, 2, 3)
        assert head["OBJECT"] == "Sun"
        assert (head["TELESCOP"], head["INSTRUME"]) == ("MUSER", "MUSER-I")
        assert head["DATE-OBS"] == head["STRT-OBS"] == "2015-11-02T04:08:49.354161240"
        assert head["END-OBS"] == "2015-11-02T04:08:49.401036240"
        assert (head["TIMESYS"], head["EPOCH"]) == ("UTC", 2000.0)
        axes = [head[f"CTYPE{n}"] for n in range(2, 8)]
        assert axes == ["COMPLEX", "STOKES", "FREQ", "IF", "RA", "DEC"]
        assert head["CRVAL4"] == 412.5e6
        # FK5 and ICRS differ by 0.02 arcseconds
        middle = (track.ra_deg[8], track.dec_deg[8])
        assert (head["CRVAL6"], head["CRVAL7"]) == pytest.approx(middle, abs=1e-5)
        assert (head["OBSRA"], head["OBSDEC"]) == (head["CRVAL6"], head["CRVAL7"])
        assert frequencies["IF FREQ"].tolist() == [0, 400e6, 800e6, 1200e6]
        assert frequencies["SIDEBAND"].tolist() == [1, 1, 1, 1]
        assert antennas.data["NOSTA"].tolist() == list(range(1, 41))
        assert set(antennas.data["POLTYA"]) == {"R"}
        assert set(antennas.data["POLTYB"]) == {"L"}
        # two antennas on the reference point's height: X up, Y east, Z north, turned
        # by the latitude
        east, north, up = load_array(1).positions_enu_m[13]
        x, y, z = antennas.data["STABXYZ"][13]
        latitude = radians(SITE.latitude_deg)
        assert x == pytest.approx(up * cos(latitude) - north * sin(latitude))
        assert y == pytest.approx(east)
        assert z == pytest.approx(up * sin(latitude) + north * cos(latitude))
        midnight = Time("2015-11-02T00:00:00", scale="utc")
        assert antennas.header["RDATE"] == "2015-11-02"
        assert antennas.header["GSTIA0"] == pytest.approx(
            midnight.sidereal_time("apparent", "greenwich").deg, abs=1e-5
        )
        assert antennas.header["UT1UTC"] == pytest.approx(
            midnight.delta_ut1_utc, abs=1e-4
        )
        assert (antennas.header["IATUTC"], antennas.header["FRAME"]) == (36.0, "ITRF")
        assert source["RAEPO"] == head["CRVAL6"]
        assert source["RAAPP"] == pytest.approx(track.ra_apparent_deg[8])
        assert source["DECAPP"] == pytest.approx(track.dec_apparent_deg[8])
        # the Sun moves a degree a day to the east, in November to the south
        assert source["PMRA"] * cos(radians(source["DECEPO"])) == pytest.approx(
            0.95, abs=0.05
        )
        assert source["PMDEC"] == pytest.approx(-0.31, abs=0.02)


def test_times_are_kept_to_a_microsecond(tmp_path: Path) -> None:
    # the last frames of one day and the first of the next
    start = int(np.datetime64("2015-11-02T23:59:59.99", "ns").astype(np.int64))
    times = start + np.arange(8) * PERIOD_NS + np.arange(8) * 20
    frames = make_frames(1, 8, time_utc_ns=times, band=np.zeros(8, dtype=int))
    (written,) = write_files(frames, tmp_path, Sun(), "band")
    with fits.open(written.path) as file:
        data, head = file[0].data, file[0].header
        assert head["PZERO4"] == 2_457_328.5
        assert head["PZERO5"] == 0.0
        coarse, fine = (
            np.asarray(data.field(name), dtype=np.float64)[::780]
            for name in (data.columns.names[3], data.columns.names[4])
        )
    midnight = int(np.datetime64("2015-11-02", "ns").astype(np.int64))
    truth = integrate(frames).time_utc_ns - midnight
    coarse -= head["PZERO4"] if coarse[0] > 1e6 else 0.0
    found = (coarse + fine) * 86_400e9
    np.testing.assert_allclose(found, truth, rtol=0, atol=50)


# --- where sources are found ---------------------------------------------------------


def greenwich_deg(time_utc_ns: int, ut1_utc_s: float) -> float:
    """Mean sidereal time; Meeus, Astronomical Algorithms, 12.4.

    What nutation adds, under 1.2 s, turns source and phase centre alike.
    """
    days = time_utc_ns / 86_400e9 - 10_957.5 + ut1_utc_s / 86_400
    return 280.46061837 + 360.98564736629 * days


def towards(ra_deg: float, dec_deg: float, sidereal_deg: float) -> list[float]:
    """Geocentric axes: X to Greenwich, Y to 90 degrees east, Z to the pole."""
    h, d = radians(sidereal_deg - ra_deg), radians(dec_deg)
    return [cos(d) * cos(h), -cos(d) * sin(h), sin(d)]


def along(position: NDArray[np.float64], direction: list[float]) -> float:
    return sum(float(p) * s for p, s in zip(position, direction, strict=True))


def recorded(
    array: int,
    time_utc_ns: int,
    source: tuple[float, float],
    centre: tuple[float, float],
) -> Frames:
    """Two frames, LL and RR, of a source of 1 and 2, whose fringes were not stopped.

    What each antenna receives before the reference point is F t, with t = w / c of
    the source; the hardware has inserted whole nanoseconds at the intermediate
    frequency G, of the delay D = w / c of the phase centre plus 3000 ns plus cables.
    """
    described = load_array(array)
    positions = described.positions_geocentric_m()
    band = 3 if array == 1 else 20
    count, channels = described.antennas, 16
    visibilities = np.zeros((2, described.baselines, channels), dtype=np.complex128)
    delay_ns = np.zeros((2, described.inputs))
    static = static_delays_ns(1, time_utc_ns) if array == 1 else np.zeros(64)
    first, second = described.baseline_inputs()
    units = 10_000 if array == 1 else 100_000
    times = [time_utc_ns, time_utc_ns + PERIOD_NS]
    for n, time in enumerate(times):
        sidereal = greenwich_deg(time, 0.178)
        to_source = towards(*source, sidereal)
        to_centre = towards(*centre, sidereal)
        phases = np.zeros((count, channels))
        for k in range(count):
            early = along(positions[k], to_source) / LIGHT
            tracked = along(positions[k], to_centre) / LIGHT * 1e9 + 3000.0
            tracked = round(tracked * units) / units
            delay_ns[n, k] = tracked + static[k]
            for c in range(channels):
                sky = described.bands[band].low_edge_hz + 25e6 * c + 12.5e6
                low = 62.5e6 + 25e6 * (c if array == 1 else 15 - c)
                sense = 1 if array == 1 else -1
                phases[k, c] = sky * early - sense * low * int(tracked) * 1e-9
        turns = phases[second] - phases[first]
        visibilities[n] = (n + 1) * np.exp(2j * pi * turns)
    return make_frames(
        array,
        2,
        time_utc_ns=np.array(times),
        band=np.full(2, band),
        visibilities=visibilities.astype(np.complex64),
        delay_ns=delay_ns,
        header={"fringe": np.full(2, SWITCHED_OFF, dtype=np.uint32)},
    )


CASES = [
    (1, "2015-11-01T04:08:49.354161240", 500.0, 300.0),
    (1, "2015-11-01T01:10:00.5", -420.0, 610.0),
    (2, "2015-11-01T07:00:00", 250.0, -480.0),
]
"""Array, time, and where the source is: arcseconds east and north of the Sun's
centre, of date."""


def sky(when: str, east: float, north: float) -> tuple[tuple[float, float], ...]:
    """Return the source and the Sun, of date, at a time of 2015-11-01."""
    time = np.array([when], dtype="datetime64[ns]").astype(np.int64)
    track = follow(Sun(), time, SITE)
    sun = (float(track.ra_apparent_deg[0]), float(track.dec_apparent_deg[0]))
    dec = sun[1] + north / 3600
    return (sun[0] + east / 3600 / cos(radians(dec)), dec), sun


def offset_j2000(
    of_date: tuple[float, float], centre: tuple[float, float], time_utc_ns: int
) -> tuple[float, float]:
    """Return l and m in the axes of J2000, turned there by precession alone.

    Nutation turns the field by 7 arcseconds at most, which moves nothing by 0.03.
    """
    equinox = Time(time_utc_ns / 1e9, format="unix")
    source, sun = (
        SkyCoord(*place, unit="deg", frame="fk5", equinox=equinox).transform_to(
            FK5(equinox="J2000")
        )
        for place in (of_date, centre)
    )
    angle = sun.position_angle(source).rad
    distance = np.sin(sun.separation(source).rad)
    return float(distance * np.sin(angle)), float(distance * np.cos(angle))


@pytest.mark.parametrize(("array", "when", "east", "north"), CASES)
def test_a_source_off_centre_is_found_where_it_is(
    tmp_path: Path, array: int, when: str, east: float, north: float
) -> None:
    source, sun = sky(when, east, north)
    time = int(np.datetime64(when, "ns").astype(np.int64))
    frames = correct_delays(recorded(array, time, source, sun))
    (written,) = write_files(frames, tmp_path, Sun(), "band")

    with fits.open(written.path) as file:
        data, head = file[0].data, file[0].header
        cells = data.data[:, 0, 0, 0].astype(np.float64)
        uvw_m = np.stack([data.par(n) for n in ("UU", "VV", "WW")], axis=1) * LIGHT
        frequency = head["CRVAL4"] + 25e6 * np.arange(16)
        centre = (head["CRVAL6"], head["CRVAL7"])
    expected = offset_j2000(source, sun, time)
    assert centre == pytest.approx(sun, abs=0.3)  # precession since 2000
    for hand, flux in ((0, 2.0), (1, 1.0)):
        visibilities = cells[:, :, hand, 0] + 1j * cells[:, :, hand, 1]
        size, cell = (1024, 1.5 * ARCSEC) if array == 1 else (2048, 0.5 * ARCSEC)
        # with both flips ducc0 takes V = sum exp(+2 pi i (u l + v m)), x to +l
        image = ducc0.wgridder.vis2dirty(
            uvw=uvw_m.astype(np.float64),
            freq=frequency,
            vis=visibilities,
            npix_x=size,
            npix_y=size,
            pixsize_x=cell,
            pixsize_y=cell,
            epsilon=1e-6,
            do_wgridding=True,
            divide_by_n=False,
            flip_u=True,
            flip_v=True,
        )
        peak = np.unravel_index(np.argmax(image), image.shape)
        assert image[peak] / visibilities.size > 0.9 * flux
        for place, cosine, of_date in zip(peak, expected, (east, north), strict=True):
            assert place - size // 2 == pytest.approx(cosine / cell, abs=0.75)
            # and that is to the east and to the north
            assert (place - size // 2) * cell / ARCSEC == pytest.approx(of_date, abs=3)
        # a hundredth of a turn at the longest baseline is 0.1 (0.01) arcseconds
        vector = np.array([*expected, np.sqrt(1 - np.dot(expected, expected)) - 1])
        model = np.exp(2j * pi * np.outer(uvw_m @ vector, frequency) / LIGHT)
        assert np.abs(np.angle(visibilities / model)).max() < 2 * pi * 0.1


@pytest.mark.parametrize(("array", "when", "east", "north"), CASES)
def test_pyuvdata_turned_to_the_source_sees_a_constant(
    tmp_path: Path, array: int, when: str, east: float, north: float
) -> None:
    source, sun = sky(when, east, north)
    time = int(np.datetime64(when, "ns").astype(np.int64))
    frames = correct_delays(recorded(array, time, source, sun))
    (written,) = write_files(frames, tmp_path, Sun(), "band")
    read_back = read(written.path)
    # both astropy, here, and pyuvdata, there, bend the light of stars by the Sun
    location = EarthLocation.from_geocentric(*SITE.geocentric_m, unit=u.m)
    frame = TETE(obstime=Time(time / 1e9, format="unix"), location=location)
    there = SkyCoord(*source, unit="deg", frame=frame).transform_to("icrs")
    read_back.phase(
        lon=there.ra.rad,
        lat=there.dec.rad,
        cat_name="source",
        phase_frame="icrs",
        use_ant_pos=False,
    )
    assert read_back.polarization_array.tolist() == [-1, -2]
    turned = read_back.data_array / np.array([2.0, 1.0])
    # the textbook's Earth and astropy's agree to some 0.05 arcseconds within the field
    assert np.abs(np.angle(turned)).max() < (0.02 if array == 1 else 0.1)
    np.testing.assert_allclose(np.abs(turned), 1, atol=1e-5)


# --- files ---------------------------------------------------------------------------


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames = make_frames(1, 8)
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        write_files(frames, folder, Sun(), "range")
    (first,), (second,) = one.iterdir(), other.iterdir()
    assert first.read_bytes() == second.read_bytes()
    # and a frame gives the same whichever others are with it
    alone = write_files(frames.select(slice(3, 4)), one, Sun(), "frame")[0]
    with_others = write_files(frames, other, Sun(), "frame")[3]
    assert alone.path.name == with_others.path.name
    assert alone.sha256 == with_others.sha256


def test_a_written_file_is_described(tmp_path: Path) -> None:
    import hashlib

    (written,) = write_files(make_frames(1, 8), tmp_path, Sun(), "range")
    content = written.path.read_bytes()
    assert written.size_bytes == len(content)
    assert len(content) % 2880 == 0
    assert written.sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_that_is_there_is_replaced_and_nothing_lies_beside(
    tmp_path: Path,
) -> None:
    frames = make_frames(1, 8)
    path = tmp_path / name_of(next(split(frames, "range")))
    path.write_bytes(b"half of a file")
    (written,) = write_files(frames, tmp_path, Sun(), "range")
    assert written.path == path
    assert path.stat().st_size == written.size_bytes
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    frames = make_frames(1, 8)
    folder = tmp_path / name_of(next(split(frames, "range")))
    (folder / "in the way").mkdir(parents=True)
    with pytest.raises(OSError):
        write_files(frames, tmp_path, Sun(), "range")
    assert list(tmp_path.iterdir()) == [folder]


def test_names_tell_what_is_in_a_file() -> None:
    frames = make_frames(1, 16)
    names = {
        by: [name_of(each) for each in split(frames, by)]
        for by in ("frame", "integration", "band", "range")
    }
    start = "MUSER-I_20151102T040849.354161240Z"
    assert names["frame"][0] == f"{start}_b0_LL.uvfits"
    assert names["integration"][0] == f"{start}_b0-3_RR-LL_n8.uvfits"
    assert names["band"][0] == f"{start}_b0_RR-LL_n4.uvfits"
    assert names["range"] == [f"{start}_b0-3_RR-LL_n16.uvfits"]
    every = [name for each in names.values() for name in each]
    assert len(set(every)) == len(every)


def test_calibrators_can_be_the_phase_centre(tmp_path: Path) -> None:
    frames = make_frames(1, 4)
    cygnus = CALIBRATORS["Cygnus A"]
    (written,) = write_files(frames, tmp_path, cygnus, "range")
    catalogue = read(written.path).phase_center_catalog
    (centre,) = catalogue.values()
    assert centre["cat_name"] == "Cygnus A"
    there = SkyCoord(cygnus.ra_deg, cygnus.dec_deg, unit="deg", frame="icrs").fk5
    assert np.degrees(centre["cat_lon"]) == pytest.approx(there.ra.deg, abs=1e-8)
    assert np.degrees(centre["cat_lat"]) == pytest.approx(there.dec.deg, abs=1e-8)


def test_no_frames_make_no_files(tmp_path: Path) -> None:
    nothing = make_frames(1, 4).select(slice(0, 0))
    assert write_files(nothing, tmp_path, Sun(), "range") == []


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    frames = make_frames(1, 8)
    averages = integrate(frames)
    track = follow(Sun(), averages.time_utc_ns, SITE)
    path = tmp_path / "x.uvfits"
    with pytest.raises(FrameValueError, match="visibilities of array 1, not 2"):
        UvfitsWriter(2).write(path, averages, track)
    other_times = follow(Sun(), averages.time_utc_ns + 1, SITE)
    with pytest.raises(FrameValueError, match="of other times"):
        UvfitsWriter(1).write(path, averages, other_times)
    elsewhere = follow(Sun(), averages.time_utc_ns, Site(0.0, 0.0, 0.0, (6.4e6, 0, 0)))
    with pytest.raises(FrameValueError, match="seen from Site"):
        UvfitsWriter(1).write(path, averages, elsewhere)
    empty = averages.at_times(slice(0, 0))
    with pytest.raises(FrameValueError, match="no visibilities to write"):
        UvfitsWriter(1).write(path, empty, track.select(slice(0, 0)))
    with pytest.raises(FrameValueError, match="have no integration"):
        next(split(frames, "frame", 10**9))
    assert not path.exists()


def test_the_start_of_the_synthetic_frames_is_the_test_word() -> None:
    assert START_NS % 10**9 == 354_161_240
