from __future__ import annotations

from pathlib import Path

import pytest

from muser_pipeline.errors import SkyError
from muser_pipeline.simulator import Sky, SkySource, read_sky

FULL = """
[sun]
brightness = 0.5

[[source]]
x_arcsec = 300
y_arcsec = -200.0
flux_sfu = 50.0

[[source]]
x_arcsec = 0.0
y_arcsec = 0.0
flux_sfu = 5.0
frequency_hz = 2e9
spectral_index = -1.0
polarization = 0.2
fwhm_arcsec = [60.0, 30.0]
angle_deg = 30.0
velocity_arcsec_per_s = [0.5, 0.0]
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_sky_is_read(tmp_path: Path) -> None:
    assert read_sky(write(tmp_path / "sky.toml", FULL)) == Sky(
        (
            SkySource(300.0, -200.0, 50.0),
            SkySource(0.0, 0.0, 5.0, 2e9, -1.0, 0.2, (60.0, 30.0), 30.0, (0.5, 0.0)),
        ),
        0.5,
    )


def test_a_sky_may_be_empty_or_have_a_sun_alone(tmp_path: Path) -> None:
    assert read_sky(write(tmp_path / "sky.toml", "")) == Sky()
    assert read_sky(write(tmp_path / "sky.toml", "[sun]\n")) == Sky(sun=1.0)


SOURCE = "[[source]]\nx_arcsec = 0\ny_arcsec = 0\nflux_sfu = 1\n"
WRONG = [
    ("[sun", r"sky.toml: Expected"),
    ("[moon]", "the file has 'moon'; known are source, sun"),
    ("sun = 1", r"\[sun\] is not a table"),
    ("[sun]\nradius = 1", r"\[sun\] has 'radius'; known are brightness"),
    ("[sun]\nbrightness = 'high'", r"brightness of \[sun\] is no number: 'high'"),
    ("[sun]\nbrightness = true", "is no number: True"),
    ("[sun]\nbrightness = nan", "is no number: nan"),
    ("[source]\nflux_sfu = 1", r"sources are written as \[\[source\]\]"),
    ("source = [1]", r"\[\[source\]\] number 1 is not a table"),
    ("[[source]]\nx_arcsec = 1", r"\[\[source\]\] number 1 has no y_arcsec"),
    (SOURCE + "flux = 1", "number 1 has 'flux'; known are angle_deg"),
    (SOURCE + SOURCE + "fwhm_arcsec = 3", "fwhm_arcsec of .* number 2 is not two"),
    (SOURCE + "fwhm_arcsec = [3]", "is not two numbers"),
    (SOURCE + "fwhm_arcsec = [3, 'x']", "is no number: 'x'"),
    (SOURCE + "polarization = 1.5", "not between -1 and 1"),
    (SOURCE + "frequency_hz = 0", "is not positive"),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_a_wrong_sky_is_said_to_be_wrong(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(SkyError, match=expected):
        read_sky(write(tmp_path / "sky.toml", text))
