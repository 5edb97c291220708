"""Images by hand, of files of ours and of others."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from click.testing import CliRunner, Result
from imaging_scene import START_NS, frames_of, observation
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.cli import muser_command
from muser_pipeline.geometry import Sun, follow
from muser_pipeline.integration import integrate
from muser_pipeline.realtime.image_command import parse_range, parse_threshold
from muser_pipeline.simulator import Sky, SkySource
from muser_pipeline.uvfits import UvfitsWriter

MAS = np.pi / 180 / 3600e3
CORE_JY, KNOT_JY = 1.0, 0.4
KNOT_MAS = (-6.0, 3.0)
"""To the east and the north of the core: the jet goes to the north-west."""
PLACE = SkyCoord(187.7059304, 12.3911231, unit="deg", frame="fk5")
"""In the FK5, as the equinox 2000 of the header says."""
LIGHT_M_PER_S = 299_792_458.0
FREQUENCIES = (8.1e9, 8.3e9)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(muser_command, ["image", *map(str, arguments)])


def record_of(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def vlbi_file(
    path: Path, spoil: Any = None, knot_mas: tuple[float, float] = KNOT_MAS
) -> Path:
    """Write a core with a knot as AIPS does: IFs, an old order of axes, split dates."""
    rng = np.random.default_rng(5)
    places = rng.normal(size=(9, 3)) * 2e6
    first, second = np.triu_indices(9, k=1)
    turns = np.linspace(0, np.pi, 12, endpoint=False)
    c, s = np.cos(turns)[:, np.newaxis], np.sin(turns)[:, np.newaxis]
    x, y, z = (places[first] - places[second]).T
    # a source in the pole: baselines turn about the axis
    east_m, north_m = (c * x - s * y).ravel(), (s * x + c * y).ravel()
    depth_m = np.tile(z, 12)
    data = np.zeros((len(east_m), 1, 1, 2, 1, 2, 3))
    for n, frequency in enumerate(FREQUENCIES):
        seen = CORE_JY * np.ones(len(east_m), dtype=complex)
        east, north = knot_mas[0] * MAS, knot_mas[1] * MAS
        depth = np.sqrt(1 - east**2 - north**2) - 1
        cycles = (
            (east_m * east + north_m * north + depth_m * depth)
            * frequency
            / LIGHT_M_PER_S
        )
        seen += KNOT_JY * np.exp(2j * np.pi * cycles)
        for hand in range(2):
            data[:, 0, 0, n, 0, hand, 0] = seen.real
            data[:, 0, 0, n, 0, hand, 1] = seen.imag
    # both hands have weights of their own, and some are flagged
    data[..., 2] = 1 + rng.random(data.shape[:-1])
    flagged = rng.random(len(east_m)) < 0.1
    data[flagged, ..., 2] *= -1
    data[flagged, ..., :2] = 1e3
    if spoil is not None:
        spoil(data)
    days = np.repeat(turns / np.pi / 2, len(first))
    groups = fits.GroupData(
        data.astype(np.float32),
        bitpix=-32,
        parnames=["UU---SIN", "VV---SIN", "WW---SIN", "BASELINE", "DATE", "DATE"],
        pardata=[
            *(each / LIGHT_M_PER_S for each in (east_m, north_m, depth_m)),
            np.tile(256 * (first + 1) + second + 1, 12),
            np.full(len(east_m), 2453902.5),
            days,
        ],
    )
    primary = fits.GroupsHDU(groups)
    axes = [
        *(("COMPLEX", 1.0, 1.0), ("STOKES", -1.0, -1.0), ("FREQ", 8.1e9, 8e6)),
        *(("IF", 1.0, 1.0), ("RA", PLACE.ra.deg, 1.0), ("DEC", PLACE.dec.deg, 1.0)),
    ]
    for number, (name, value, step) in enumerate(axes, 2):
        primary.header[f"CTYPE{number}"] = name
        primary.header[f"CRVAL{number}"] = value
        primary.header[f"CDELT{number}"] = step
        primary.header[f"CRPIX{number}"] = 1.0
    primary.header["OBJECT"], primary.header["TELESCOP"] = "1228+126", "VLBA"
    primary.header["BUNIT"], primary.header["EPOCH"] = "JY", 2000.0
    offsets = np.array([np.array(FREQUENCIES) - FREQUENCIES[0]])
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("FRQSEL", "1J", array=[1]),
            fits.Column("IF FREQ", "2D", array=offsets),
            fits.Column("CH WIDTH", "2E", array=[[8e6, 8e6]]),
            fits.Column("TOTAL BANDWIDTH", "2E", array=[[8e6, 8e6]]),
            fits.Column("SIDEBAND", "2J", array=[[1, 1]]),
        ]
    )
    table.header["EXTNAME"], table.header["NO_IF"] = "AIPS FQ", 2
    fits.HDUList([primary, table]).writeto(path)
    return path


@pytest.fixture(scope="module")
def vlbi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vlbi_file(tmp_path_factory.mktemp("vlbi") / "1228+126 (X).uvfits")


def brightest(image: NDArray[Any], near: tuple[float, float], within: float) -> Any:
    """Return the value and place (x, y) of the brightest pixel near a place."""
    y, x = np.indices(image.shape)
    far = np.hypot(x - near[0], y - near[1]) > within
    place = np.unravel_index(np.argmax(np.where(far, -np.inf, image)), image.shape)
    return image[place], (place[1], place[0])


def sky_of(header: fits.Header) -> WCS:
    with warnings.catch_warnings():
        # that dates are completed
        warnings.simplefilter("ignore", FITSFixedWarning)
        return WCS(header).celestial


def test_a_core_and_a_knot_are_where_they_are(vlbi: Path, tmp_path: Path) -> None:
    found = record_of(
        *(vlbi, "--size", 256, "--cell", 2e-4, "--out", tmp_path / "images"),
        *("--weight", "briggs:0", "--niter", 300, "--gain", 0.2),
        *("--threshold", "5sigma"),
    )
    assert found["status"] == "image"
    assert Path(found["fits"]).name == "1228_126__X_I.fits"
    for name in ("fits", "png", "thumbnail", "json"):
        assert Path(found[name]).stat().st_size > 0
    assert found["peak"] == pytest.approx(CORE_JY, rel=0.02)
    assert {"read", "clean", "all"} <= found["timings"].keys()
    assert 0 < found["iterations"] <= 300
    assert found["rms"] < 0.01
    assert (found["weighting"], found["robust"]) == ("briggs", 0.0)
    assert found["flagged"] > 0
    with fits.open(found["fits"]) as file:
        image, wcs = file[0].data.squeeze(), sky_of(file[0].header)
        assert {"DIRTY", "PSF", "MODEL", "RESIDUAL"} <= {hdu.name for hdu in file}
    beam_pixels = found["beam"]["major_arcsec"] / 2e-4
    for jansky, (east, north) in ((CORE_JY, (0.0, 0.0)), (KNOT_JY, KNOT_MAS)):
        sky = PLACE.icrs.spherical_offsets_by(east * u.mas, north * u.mas)
        x, y = (float(each) for each in wcs.world_to_pixel(sky))
        value, place = brightest(image, (x, y), beam_pixels)
        assert value == pytest.approx(jansky, rel=0.05)
        assert np.hypot(place[0] - x, place[1] - y) < 1.0


def test_without_cleaning_there_is_the_dirty_image(vlbi: Path, tmp_path: Path) -> None:
    done = run(vlbi, "--clean", "none", "--out", tmp_path, "--pol", "RR")
    assert done.exit_code == 0, done.output
    files = [Path(line) for line in done.stdout.split("\n") if line]
    assert [file.suffix for file in files] == [".fits", ".png"]
    with fits.open(files[0]) as file:
        dirty, beam = file["DIRTY"].data.squeeze(), file["PSF"].data.squeeze()
        assert np.array_equal(file[0].data.squeeze(), dirty)
        half = len(beam) // 2
        assert beam[half, half] == pytest.approx(1.0, abs=1e-5)
        assert dirty.shape == (512, 512)
    assert "0 iterations" in done.stderr


def test_a_source_is_looked_for_in_a_window(vlbi: Path, tmp_path: Path) -> None:
    found = record_of(
        *(vlbi, "--size", 128, "--cell", 2e-4, "--niter", 50, "--out", tmp_path),
        *("--window", 4e-3, "--interval", "30min", "--shortest", 1e6),
    )
    with fits.open(found["fits"]) as file:
        model = file["MODEL"].data.squeeze()
    y, x = np.indices(model.shape) - 64
    assert not model[np.hypot(x, y) > 10].any()
    assert model.sum() > 0.5 * CORE_JY
    assert found["phases"]["window_arcsec"] == pytest.approx(4e-3)
    assert "as asked for" in found["notes"][0]


def spoil_phases(data: NDArray[Any]) -> None:
    """Turn what each antenna sees by another angle at each time."""
    first, second = np.triu_indices(9, k=1)
    turns = np.random.default_rng(8).uniform(0, 2 * np.pi, (12, 9))
    factor = np.exp(1j * (turns[:, first] - turns[:, second])).ravel()
    seen = (data[..., 0] + 1j * data[..., 1]) * factor.reshape(-1, *[1] * 5)
    data[..., 0], data[..., 1] = seen.real, seen.imag


def test_phases_that_are_plainly_unknown_are_found(tmp_path: Path) -> None:
    knot_mas = (-1.5, 1.0)
    file = vlbi_file(tmp_path / "spoilt.uvfits", spoil_phases, knot_mas)
    done = run(file, "--niter", 300, "--json", "--out", tmp_path / "made")
    assert done.exit_code == 0, done.output
    assert "--phases known keeps them" in done.stderr
    found = json.loads(done.stdout)
    assert found["notes"][0] in done.stderr
    phases = found["phases"]
    assert phases["start"] == "double"
    assert phases["coherence"] < 0.5 < 0.9 < phases["expected_coherence"]
    with fits.open(found["fits"]) as made:
        image = made[0].data.squeeze()
        cell_mas = found["cell_arcsec"] * 1e3
    core, at = brightest(image, (image.shape[1] / 2, image.shape[0] / 2), 1e9)
    # pixels count to the west
    near = at[0] - knot_mas[0] / cell_mas, at[1] + knot_mas[1] / cell_mas
    knot, _ = brightest(image, near, 0.5 / cell_mas)
    assert knot / core == pytest.approx(KNOT_JY / CORE_JY, rel=0.1)


def test_an_image_of_the_sun_is_turned_to_its_north(tmp_path: Path) -> None:
    import sunpy.map

    sky = Sky((SkySource(300.0, -200.0, 50.0),), sun=1.0)
    frames = frames_of(observation(sky=sky), 8)
    averages = integrate(frames.select(frames.band < 2), 10**9)
    track = follow(Sun(), averages.time_utc_ns, load_array(1).site)
    path = tmp_path / "sun.uvfits"
    UvfitsWriter(1).write(path, averages, track)
    found = record_of(
        *(path, "--size", 256, "--cell", 18, "--out", tmp_path),
        *("--frequency", "0.4-0.8GHz", "--niter", 100),
    )
    assert found["frequency_hz"] == pytest.approx(600e6, rel=1e-3)
    assert found["bandwidth_hz"] == 400e6
    assert found["unit"] == "arbitrary"
    assert found["disk"]["radius_arcsec"] == pytest.approx(966.4, rel=0.02)
    # the primary and its extensions are a map each
    image = sunpy.map.Map(found["fits"])[0]
    y, x = np.unravel_index(np.argmax(image.data), image.data.shape)
    place = image.pixel_to_world(
        x * image.dimensions[0].unit, y * image.dimensions[1].unit
    )
    assert place.Tx.arcsec == pytest.approx(300.0, abs=18.0)
    assert place.Ty.arcsec == pytest.approx(-200.0, abs=18.0)
    assert image.date.isot == found["time"][:-1]
    # without its disk there is nothing but the burst
    bare = record_of(
        *(path, "--size", 256, "--cell", 18, "--out", tmp_path / "bare"),
        *("--frequency", "400-800", "--niter", 100, "--no-disk", "--no-register"),
    )
    assert bare["disk"] is None
    assert START_NS <= bare["start_utc_ns"] < START_NS + 10**9


def spoil_with_nan(data: NDArray[Any]) -> None:
    data[..., :2] = np.nan


def spoil_with_zeros(data: NDArray[Any]) -> None:
    data[..., :2] = 0


def flag_all(data: NDArray[Any]) -> None:
    data[..., 2] = -np.abs(data[..., 2])


def flag_all_but_one(data: NDArray[Any]) -> None:
    data[1:, ..., 2] = 0
    data[0, ..., :2] = 1
    data[0, ..., 2] = 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_with_nan, "not-finite"),
        (spoil_with_zeros, "zero"),
        (flag_all, "flagged"),
        (flag_all_but_one, "one-baseline"),
    ],
)
def test_what_has_no_image_is_told(tmp_path: Path, spoil: Any, reason: str) -> None:
    path = vlbi_file(tmp_path / "spoilt.uvfits", spoil)
    done = run(path, "--out", tmp_path / "images", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["status"], told["reason"]) == ("refused", reason)
    assert done.stderr.strip() == f"Error: {told['message']}"
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--size", "255"], 1, "even"),
        (["--weight", "briggs:7"], 2, "briggs is followed by -2 to 2"),
        (["--threshold", "much"], 2, "no threshold such as 0.05 or 5sigma"),
        (["--frequency", "9GHz"], 2, "no range such as 400-800MHz"),
        (["--frequency", "1-2GHz"], 1, "the file has 8100 to 8300 MHz"),
        (["--pol", "Q"], 2, "is not one of 'I', 'V', 'LL', 'RR'"),
        (["--cell", "1000"], 1, "is not a part of the sky"),
    ],
)
def test_what_cannot_be_is_told(
    vlbi: Path, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    done = run(vlbi, "--out", tmp_path, *arguments)
    assert done.exit_code == code, done.output
    assert told in done.stderr


def test_what_is_no_file_of_visibilities_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.uvfits"
    path.write_text("these are no visibilities")
    done = run(path, "--out", tmp_path)
    assert done.exit_code == 1
    assert str(path) in done.stderr
    (tmp_path / "images").touch()
    missing = run(tmp_path / "nowhere.uvfits")
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr


def test_a_folder_that_cannot_be_written_is_told(vlbi: Path, tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    done = run(vlbi, "--size", 64, "--niter", 1, "--out", tmp_path / "images" / "x")
    assert done.exit_code == 1
    assert "Not a directory" in done.stderr


def test_thresholds_and_ranges() -> None:
    assert parse_threshold("0.25") == (0.25, 0.0)
    assert parse_threshold("4.5 sigma") == (0.0, 4.5)
    assert parse_threshold("0") == (0.0, 0.0)
    assert parse_range("400-800MHz") == (400e6, 800e6)
    assert parse_range("1.2 - 1.6 GHz") == (1.2e9, 1.6e9)
    for wrong in ("800-400", "1..2-3", "", "a-b"):
        with pytest.raises(ValueError, match="no range"):
            parse_range(wrong)
