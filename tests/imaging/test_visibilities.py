"""What is imaged: hands and Stokes parameters, what can not be used, turns, shifts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from field_tools import channels, muser_uvw, sky
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.visibilities import Snapshot, check

HZ = channels()[:2]
UVW = muser_uvw()
FIRST, SECOND = load_array(1).baseline_inputs()


def snapshot(
    data: NDArray[np.complex64],
    weights: NDArray[np.float32] | None = None,
    polarizations: tuple[str, ...] = ("RR", "LL"),
) -> Snapshot:
    return Snapshot(
        uvw_m=UVW,
        frequency_hz=HZ,
        data=data,
        weights=np.ones(data.shape, np.float32) if weights is None else weights,
        polarizations=polarizations,
        antenna1=FIRST,
        antenna2=SECOND,
        time_utc_ns=np.zeros(len(UVW), np.int64),
        ra_rad=1.5,
        dec_rad=0.4,
    )


def constant(*values: complex) -> NDArray[np.complex64]:
    filled = np.empty((len(values), len(UVW), 2), np.complex64)
    filled[:] = np.array(values)[:, np.newaxis, np.newaxis]
    return filled


def test_stokes_parameters_of_circular_hands() -> None:
    both = snapshot(constant(3 + 1j, 1 - 2j))
    assert (both.stokes("RR")[0] == 3 + 1j).all()
    assert (both.stokes("LL")[0] == 1 - 2j).all()
    assert (both.stokes("I")[0] == 2 - 0.5j).all()
    assert (both.stokes("V")[0] == 1 + 1.5j).all()


def test_right_and_left_are_told_apart_by_name_not_by_place() -> None:
    turned = snapshot(constant(1, 3), polarizations=("LL", "RR"))
    assert (turned.stokes("V")[0] == 1).all()


def test_intensity_of_linear_hands_and_of_itself() -> None:
    linear = snapshot(constant(3, 1), polarizations=("XX", "YY"))
    assert (linear.stokes("I")[0] == 2).all()
    given = snapshot(constant(7, 1), polarizations=("I", "V"))
    assert (given.stokes("I")[0] == 7).all()


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (("RR",), "I"),
        (("LL",), "V"),
        (("RR",), "LL"),
        (("XX", "YY"), "V"),
        (("RR", "LL"), "Q"),
    ],
)
def test_what_can_not_be_made_says_what_is_there(
    there: tuple[str, ...], wanted: str
) -> None:
    with pytest.raises(ImagingError, match=f"no {wanted} among {there[0]}") as raised:
        snapshot(constant(*range(len(there))), polarizations=there).stokes(wanted)
    assert raised.value.reason == "polarization"


def test_weights_follow_the_variances_of_both_hands() -> None:
    rng = np.random.default_rng(4)
    weights = np.empty((2, len(UVW), 2), np.float32)
    weights[0], weights[1] = 1.0, 0.25
    noise = rng.normal(size=(2, *weights.shape)) / np.sqrt(weights)
    both = snapshot((noise[0] + 1j * noise[1]).astype(np.complex64), weights)
    data, found = both.stokes("V")
    assert (found == np.float32(0.8)).all()
    scatter = float(np.var(data.real) + np.var(data.imag)) / 2
    assert scatter == pytest.approx(1 / 0.8, rel=0.06)


def test_intensity_needs_both_hands_of_a_visibility() -> None:
    weights = np.ones((2, len(UVW), 2), np.float32)
    weights[0, :100] = 0
    weights[1, 50:200] = -1
    both = snapshot(constant(1, 1), weights)
    assert both.usable("RR") == 2 * (len(UVW) - 100)
    assert both.usable("I") == both.usable("V") == 2 * (len(UVW) - 200)
    data, found = both.stokes("I")
    assert not data[:200].any() and not found[:200].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, np.nan)])
@pytest.mark.parametrize("wanted", ["RR", "I"])
def test_what_is_not_finite_is_not_used(bad: complex, wanted: str) -> None:
    data = constant(1, 1)
    data[0, 5, 1] = bad
    weights = np.ones(data.shape, np.float32)
    weights[0, 7, 0] = np.nan
    found, usable = snapshot(data, weights).stokes(wanted)
    assert np.isfinite(found).all() and np.isfinite(usable).all()
    assert usable[5, 1] == usable[7, 0] == 0
    assert np.count_nonzero(usable) == usable.size - 2


def test_good_data_pass() -> None:
    check(snapshot(constant(1, 1)), "I")


def all_but_one_baseline() -> Snapshot:
    weights = np.zeros((2, len(UVW), 2), np.float32)
    weights[:, 17] = 1
    return snapshot(constant(1, 1), weights)


@pytest.mark.parametrize(
    ("made", "reason", "said"),
    [
        (
            lambda: snapshot(constant(1, 1), np.zeros((2, len(UVW), 2), np.float32)),
            "flagged",
            "all 1560 visibilities of I are flagged",
        ),
        (lambda: snapshot(constant(0, 0)), "zero", "1560 visibilities of I are zero"),
        (lambda: snapshot(constant(1, -1)), "zero", "of I are zero"),
        (lambda: snapshot(constant(np.nan, 1)), "not-finite", "finite number"),
        (all_but_one_baseline, "one-baseline", "of the antennas 0 and 18"),
        (
            lambda: snapshot(constant(1), polarizations=("RR",)),
            "polarization",
            "no I among RR",
        ),
    ],
)
def test_nothing_is_imaged_of_what_is_no_good(
    made: object, reason: str, said: str
) -> None:
    assert callable(made)
    with pytest.raises(ImagingError, match=said) as raised:
        check(made(), "I")
    assert raised.value.reason == reason


def test_errors_travel() -> None:
    wrong = ImagingError("zero", "all is nought")
    copy = pickle.loads(pickle.dumps(wrong))
    assert (copy.reason, copy.message, str(copy)) == (
        "zero",
        "all is nought",
        "all is nought",
    )


def test_shapes_have_to_go_together() -> None:
    with pytest.raises(ValueError, match="do not belong to"):
        snapshot(constant(1, 1)).replace(polarizations=("RR",))


def test_rotation_brings_a_position_angle_to_the_top() -> None:
    angle = np.radians(25.0)
    source = [(1.0, 0.004 * np.sin(angle), 0.004 * np.cos(angle))]
    data = sky(UVW, HZ, source)[np.newaxis]
    turned = snapshot(data, polarizations=("RR",)).rotated(angle)
    assert turned.north_angle_rad == pytest.approx(angle)
    np.testing.assert_allclose(
        sky(turned.uvw_m, HZ, [(1.0, 0.0, 0.004)]), data[0], atol=2e-4
    )
    back = turned.rotated(-angle)
    np.testing.assert_allclose(back.uvw_m, UVW, atol=1e-9)


@pytest.mark.parametrize("turn", [0.0, 0.6])
def test_a_shift_moves_the_phase_centre_on_the_sky(turn: float) -> None:
    """Two stars; the centre moves to the one, and the other is where it belongs."""
    centre = SkyCoord(1.5, 0.4, unit="rad")
    stars = [
        centre.directional_offset_by(np.radians(angle), np.radians(distance))
        for angle, distance in ((25.0, 0.3), (140.0, 0.4))
    ]
    before = snapshot(np.zeros((1, len(UVW), 2), np.complex64), polarizations=("RR",))
    before = before.rotated(turn)
    places = [cosines(star, centre, turn) for star in stars]
    data = sky(before.uvw_m, HZ, [(1.0, *places[0]), (0.5, *places[1])])
    after = before.replace(data=data[np.newaxis]).shifted(*places[0])
    here = SkyCoord(after.ra_rad, after.dec_rad, unit="rad")
    assert here.separation(stars[0]).arcsec < 1e-6
    other = cosines(stars[1], stars[0], after.north_angle_rad)
    truth = sky(after.uvw_m, HZ, [(1.0, 0.0, 0.0), (0.5, *other)])
    np.testing.assert_allclose(after.data[0], truth, atol=5e-4)


def cosines(star: SkyCoord, centre: SkyCoord, angle: float) -> tuple[float, float]:
    """Return l and m in axes whose north has a position angle."""
    towards = float(centre.position_angle(star).rad) - angle
    sine = np.sin(float(centre.separation(star).rad))
    return float(sine * np.sin(towards)), float(sine * np.cos(towards))


def test_a_shift_below_the_horizon_is_turned_down() -> None:
    with pytest.raises(ImagingError, match="not on the sky"):
        snapshot(constant(1, 1)).shifted(0.8, 0.7)
