"""The simulator against formulas written out in scalars, and against the pipeline."""

from __future__ import annotations

import cmath
from math import exp, log, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from raw_tools import NOON_NS, assert_same

from muser_pipeline.array import SPEED_OF_LIGHT_M_PER_S, load_array
from muser_pipeline.array.quiet_sun import profiles_k
from muser_pipeline.calibration import correct_delays, static_delays_ns
from muser_pipeline.errors import FrameValueError
from muser_pipeline.geometry import FixedSource, Sun, follow, heliographic, uvw_m
from muser_pipeline.raw import Frames, open_raw
from muser_pipeline.simulator import (
    Damage,
    Instrument,
    Observation,
    Sky,
    SkySource,
    simulate,
)
from muser_pipeline.simulator.disk import QuietSun
from muser_pipeline.simulator.observation import SkyModel

ARCSEC = pi / 180 / 3600
START_NS = NOON_NS - NOON_NS % 20
SPOT = SkySource(
    300.0,
    -200.0,
    50.0,
    frequency_hz=1.2e9,
    spectral_index=-1.5,
    polarization=0.4,
    fwhm_arcsec=(60.0, 20.0),
    angle_deg=25.0,
    velocity_arcsec_per_s=(100.0, -50.0),
)


def observe(observation: Observation, numbers: list[int], seed: int = 1) -> Frames:
    model = SkyModel(observation)
    rng = np.random.default_rng(seed)
    return observation.frames(np.array(numbers), rng, model)


def perfect(array: int, sky: Sky, **options: object) -> Observation:
    instrument = Instrument.perfect(load_array(array))
    return Observation(array, sky, instrument, START_NS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("array", [1, 2])
def test_a_source_has_the_visibilities_of_the_formula(array: int) -> None:
    described = load_array(array)
    observation = perfect(array, Sky((SPOT,)), update_ns=2 * 10**9)
    frames = observe(observation, [3, 4])
    time = np.array([START_NS + 10**9])
    track = follow(Sun(), time, described.site)
    p = float(np.radians(heliographic(track).p_deg[0]))
    first, second = described.baseline_inputs()
    uvw = uvw_m(track, described.positions_geocentric_m(), first, second)[0]
    # a second after the beginning, 100 west and 50 south of where it was
    x, y = 400.0 * ARCSEC, -250.0 * ARCSEC
    west, north = np.cos(y) * np.sin(x), np.sin(y)
    east_cosine = -west * np.cos(p) + north * np.sin(p)
    north_cosine = west * np.sin(p) + north * np.cos(p)
    below = sqrt(1 - east_cosine**2 - north_cosine**2) - 1
    angle = np.radians(25.0) + p
    for n, hand in enumerate((1, -1)):
        assert frames.polarization[n] == ("RR" if hand == 1 else "LL")
        for baseline in range(0, described.baselines, 97):
            for channel in (0, 9, 15):
                hz = frames.frequency_hz[n, channel]
                u, v, w = uvw[baseline] * hz / SPEED_OF_LIGHT_M_PER_S
                flux = 50.0 * (hz / 1.2e9) ** -1.5 * (1 + hand * 0.4)
                along = u * np.sin(angle) + v * np.cos(angle)
                across = u * np.cos(angle) - v * np.sin(angle)
                squares = (60 * ARCSEC * along) ** 2 + (20 * ARCSEC * across) ** 2
                taper = exp(-(pi**2) / 4 / log(2) * squares)
                turns = u * east_cosine + v * north_cosine + w * below
                expected = 1000 * flux * taper * cmath.exp(2j * pi * turns)
                found = frames.visibilities[n, baseline, channel]
                assert abs(found - expected) < 0.02 + 1e-5 * abs(expected)


def test_a_source_west_of_the_sun_is_east_of_nothing() -> None:
    """With P = 0, solar west is celestial west: where l is negative."""
    west = SkySource(600.0, 0.0, 1.0)
    north = SkySource(0.0, 600.0, 1.0)
    assert west.direction(0.0, 0.0) == pytest.approx((-600 * ARCSEC, 0), abs=1e-8)
    assert north.direction(0.0, 0.0) == pytest.approx((0, 600 * ARCSEC), abs=1e-8)
    # P counts from north through east: solar north then leans to the east
    leaning = north.direction(0.0, np.radians(20.0))
    assert leaning == pytest.approx(
        (600 * ARCSEC * np.sin(0.349066), 600 * ARCSEC * np.cos(0.349066)), abs=1e-8
    )


def test_the_quiet_sun_is_a_disk_of_rings() -> None:
    """Its visibilities against a sum over rings, each with a Bessel function."""
    frequency = np.array([0.8e9, 1.7e9])
    radius = 960 * ARCSEC
    lengths = np.linspace(0, 1500, 40)
    found = QuietSun.at(frequency).flux_sfu(np.tile(lengths, (2, 1)).T, radius)
    rings = (np.arange(1600) + 0.5) / 800
    theta = (np.arange(200) + 0.5) * pi / 200
    for channel, hz in enumerate(frequency):
        profile = profiles_k(frequency)[channel]
        brightness = np.interp(rings, np.arange(201) / 100, [*profile, 0.0])
        for k in range(0, 40, 5):
            phase = 2 * pi * lengths[k] * radius * rings
            bessel = np.cos(phase[:, np.newaxis] * np.sin(theta)).mean(axis=1)
            integral = 2 * pi * np.sum(brightness * bessel * rings) / 800
            per_k = 2 * 1.380649e-23 * hz**2 / SPEED_OF_LIGHT_M_PER_S**2 / 1e-22
            expected = per_k * radius**2 * integral
            assert found[k, channel] == pytest.approx(expected, abs=2e-4 * found[0, 0])


def test_the_quiet_sun_is_as_bright_as_the_sun() -> None:
    total = QuietSun.at(np.array([1e9, 2.8e9])).flux_sfu(np.zeros((1, 2)), 960 * ARCSEC)
    # at 10.7 cm some 70 sfu at the minimum; the table is that of a brighter corona
    assert 30 < total[0, 0] < 100
    assert 50 < total[0, 1] < 120


def test_the_limb_is_brighter_and_the_sun_larger_at_low_frequencies() -> None:
    low, high = profiles_k(np.array([0.4e9, 2.0e9]))
    assert high[:110].argmax() > 95
    assert high[98] > 1.3 * high[0]
    radii = [np.flatnonzero(p > p[0] / 2)[-1] for p in (low, high)]
    assert radii[0] > radii[1]


@pytest.mark.parametrize("array", [1, 2])
def test_running_fringes_are_what_the_correction_takes_away(array: int) -> None:
    described = load_array(array)
    sky = Sky((SPOT,), sun=1.0)
    instrument = Instrument.random(
        described,
        np.random.default_rng(1),
        gain_scatter=0.2,
        phase_scatter_deg=40,
        static_delays_ns=static_delays_ns(1, START_NS) if array == 1 else None,
    )
    stopped = Observation(array, sky, instrument, START_NS)
    running = Observation(array, sky, instrument, START_NS, fringes_stopped=False)
    numbers = [0, 7, 100, 321]
    truth = observe(stopped, numbers)
    raw = observe(running, numbers)
    assert np.max(np.abs(raw.visibilities - truth.visibilities)) > 1000
    corrected = correct_delays(raw)
    np.testing.assert_allclose(
        corrected.visibilities, truth.visibilities, atol=2.0, rtol=1e-4
    )


def test_delays_are_those_of_the_waves() -> None:
    described = load_array(1)
    static = static_delays_ns(1, START_NS)
    instrument = Instrument.random(
        described, np.random.default_rng(1), static_delays_ns=static
    )
    frames = observe(Observation(1, Sky(), instrument, START_NS), [0, 5])
    track = follow(Sun(), frames.time_utc_ns, described.site)
    first, second = described.baseline_inputs()
    w = uvw_m(track, described.positions_geocentric_m(), first, second)[..., 2]
    told = frames.delay_ns - static
    np.testing.assert_allclose(
        told[:, second] - told[:, first],
        w / SPEED_OF_LIGHT_M_PER_S * 1e9,
        atol=2e-4,
    )
    assert frames.delay_ns[:, :40].min() > 0


def test_gains_and_delay_errors_turn_baselines() -> None:
    described = load_array(1)
    gains = np.ones((2, 40), dtype=complex)
    gains[1, 3] = 2j
    errors = np.zeros(40)
    errors[5] = 0.25
    instrument = Instrument(gains, errors, np.zeros(44))
    sky = Sky((SkySource(0, 0, 10.0),))
    found = observe(Observation(1, sky, instrument, START_NS), [0, 1]).visibilities
    first, second = described.baseline_inputs()
    plain = (first != 3) & (second != 3) & (first != 5) & (second != 5)
    np.testing.assert_allclose(found[:, plain], 10_000, rtol=1e-5)
    of_3 = second == 3
    np.testing.assert_allclose(found[0, of_3], 10_000, rtol=1e-5)
    np.testing.assert_allclose(found[1, of_3], 20_000j, rtol=1e-5)
    after_3 = (first == 3) & (second != 5)
    np.testing.assert_allclose(found[1, after_3], -20_000j, rtol=1e-5)
    hz = described.channel_centres_hz(0)
    turned = 10_000 * np.exp(2j * pi * 0.25e-9 * hz)
    both = np.flatnonzero((second == 5) & (first != 3))
    np.testing.assert_allclose(
        found[0, both], np.tile(turned, (len(both), 1)), rtol=1e-4
    )


def test_noise_is_that_of_the_radiometer_equation() -> None:
    described = load_array(1)
    instrument = Instrument.perfect(described, system_temperature_k=300.0)
    dish = 0.5 * pi * 4.5**2 / 4
    system = 2 * 1.380649e-23 * 300 / dish / 1e-22
    assert instrument.system_flux_sfu(described) == pytest.approx(system)
    sky = Sky((SkySource(0, 0, 20.0),))
    frames = observe(
        Observation(1, sky, instrument, START_NS, mode="fixed"), list(range(40))
    )
    parts = frames.visibilities - 20_000
    expected = 1000 * (system + 20) / sqrt(2 * 25e6 * 3.125e-3)
    assert np.std(parts.real) == pytest.approx(expected, rel=0.01)
    assert np.std(parts.imag) == pytest.approx(expected, rel=0.01)
    assert abs(np.mean(parts)) < 0.05 * expected
    autos = frames.autocorrelations[:, :, :40] / 1000
    assert np.mean(autos) == pytest.approx(system + 20, rel=0.01)
    assert not frames.autocorrelations[:, :, 40:].any()


def test_dead_antennas_say_nothing() -> None:
    described = load_array(1)
    instrument = Instrument.random(
        described, np.random.default_rng(1), dead=(4, 39), system_temperature_k=300
    )
    frames = observe(Observation(1, Sky(sun=1.0), instrument, START_NS), [0])
    first, second = described.baseline_inputs()
    is_dead = np.isin(first, (4, 39)) | np.isin(second, (4, 39))
    assert not frames.visibilities[:, is_dead].any()
    assert frames.visibilities[:, ~is_dead].any(axis=(0, 2)).all()
    assert not frames.autocorrelations[:, :, [4, 39]].any()
    with pytest.raises(FrameValueError, match="MUSER-I has no antenna at input 40"):
        Instrument.random(described, np.random.default_rng(1), dead=(40,))


def test_a_calibrator_stands_in_the_middle() -> None:
    cygnus = FixedSource("Cygnus A", 299.868153, 40.733916)
    sky = Sky((SkySource(0, 0, 1.0),))
    observation = perfect(1, sky, source=cygnus, target="swan")
    frames = observe(observation, [0, 1])
    np.testing.assert_allclose(frames.visibilities, 1000)
    assert frames.target.tolist() == ["swan", "swan"]


@pytest.mark.parametrize("target", ["satellite", "swan"])
def test_fringes_of_other_targets_are_taken_away_too(target: str) -> None:
    source = FixedSource("Cygnus A", 299.868153, 40.733916)
    sky = Sky((SkySource(0, 0, 10.0),))
    frames = observe(
        perfect(1, sky, source=source, target=target, fringes_stopped=False), [0, 1]
    )
    corrected = correct_delays(frames, static_ns=np.zeros(44))
    np.testing.assert_allclose(corrected.visibilities, 10_000, atol=2)


def test_what_is_too_bright_is_refused() -> None:
    with pytest.raises(FrameValueError, match="9000 sfu has no place in 24 bits"):
        observe(perfect(1, Sky((SkySource(0, 0, 9000.0),))), [0])


# --- files ------------------------------------------------------------------


def noisy(array: int = 1, **options: object) -> Observation:
    instrument = Instrument.perfect(load_array(array), system_temperature_k=300)
    return Observation(
        array,
        Sky((SPOT,)),
        instrument,
        START_NS,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("array", [1, 2])
def test_what_is_simulated_can_be_read(tmp_path: Path, array: int) -> None:
    done = simulate(noisy(array), 12, tmp_path, seed=3)
    (path,) = done.files
    name = f"20151101/MUSER-{array}/dat/20151101-1208"
    assert path == tmp_path / name
    assert list(path.parent.iterdir()) == [path]
    frames = observe(noisy(array), list(range(12)))
    with open_raw(path, layout="new") as raw:
        assert (len(raw), raw.skipped, raw.array) == (12, (), array)
        found = raw.read()
    np.testing.assert_array_equal(found.time_utc_ns, frames.time_utc_ns)
    np.testing.assert_array_equal(found.band, frames.band)
    np.testing.assert_array_equal(found.polarization, frames.polarization)
    np.testing.assert_array_equal(found.delay_ns, frames.delay_ns)


@pytest.mark.parametrize("layout", ["old", "new"])
@pytest.mark.parametrize("mode", ["loop", "fixed"])
def test_modes_and_layouts(tmp_path: Path, layout: str, mode: str) -> None:
    observation = noisy(layout=layout, mode=mode, band=2, polarization="RR")
    (path,) = simulate(observation, 16, tmp_path).files
    with open_raw(path, layout=layout) as raw:  # type: ignore[arg-type]
        if mode == "loop":
            assert raw.band.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] * 2
            assert raw.polarization.tolist() == ["LL", "RR"] * 8
        else:
            assert set(raw.band) == {2}
            assert set(raw.polarization) == {"RR"}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    damage = Damage(lost_frames=0.2, bit_errors=1e-6)
    written = {
        name: simulate(noisy(), 10, tmp_path / name, seed=seed, damage=damage)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    }
    data = {name: done.files[0].read_bytes() for name, done in written.items()}
    assert data["a"] == data["b"] != data["c"]


def test_each_minute_has_its_file(tmp_path: Path) -> None:
    start = int(np.datetime64("2015-11-01T15:59:59.99", "ns").astype(np.int64))
    observation = Observation(
        1, Sky((SPOT,)), Instrument.perfect(load_array(1)), start, update_ns=10**10
    )
    done = simulate(observation, 8, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in done.files] == [
        "20151101/MUSER-1/dat/20151101-2359",
        "20151102/MUSER-1/dat/20151102-0000",
    ]
    counts = []
    for path in done.files:
        with open_raw(path, layout="new") as raw:
            counts.append(len(raw))
    assert counts == [4, 4]


def test_frames_are_lost_and_bits_turned_as_asked(tmp_path: Path) -> None:
    whole = simulate(noisy(), 40, tmp_path / "whole", seed=5)
    damage = Damage(lost_frames=0.25, bit_errors=1e-5)
    done = simulate(noisy(), 40, tmp_path / "damaged", seed=5, damage=damage)
    assert done.frames + len(done.lost_utc_ns) == 40
    assert 3 <= len(done.lost_utc_ns) <= 20
    bits = 8 * 100_000 * done.frames
    assert done.bit_errors == pytest.approx(bits * 1e-5, rel=0.5)
    assert done.files[0].stat().st_size == 100_000 * done.frames
    with open_raw(done.files[0], layout="new") as raw, open_raw(whole.files[0]) as all_:
        assert not set(raw.time_utc_ns.tolist()) & set(done.lost_utc_ns)
        assert set(raw.time_utc_ns.tolist()) <= set(all_.time_utc_ns.tolist())


def test_a_minute_without_frames_has_no_file(tmp_path: Path) -> None:
    done = simulate(noisy(), 3, tmp_path, damage=Damage(lost_frames=1.0))
    assert (done.files, done.frames, len(done.lost_utc_ns)) == ((), 0, 3)


def test_a_disk_that_is_full_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(noisy(), 4, tmp_path, seed=1)
    (path,) = (p for p in tmp_path.rglob("*") if p.is_file())
    before = path.read_bytes()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        simulate(noisy(), 4, tmp_path, seed=2)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    assert path.read_bytes() == before


def test_reading_what_was_written_gives_what_was_meant(tmp_path: Path) -> None:
    observation = perfect(1, Sky((SPOT,), sun=1.0))
    (path,) = simulate(observation, 8, tmp_path).files
    meant = observe(observation, list(range(8)))
    with open_raw(path) as raw:
        found = raw.read()
    rounded = np.rint(meant.visibilities.view(np.float32)).view(np.complex64)
    assert_same(found, meant.replace(visibilities=rounded))
