"""What may be asked of images, and how wrong options are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from muser_pipeline.errors import RequestError
from muser_pipeline.realtime.options import ImageRequest, parse_weighting
from opencluster import WorkPiece

ARCSEC = np.pi / 180 / 3600


def test_options_become_those_of_images() -> None:
    request = ImageRequest.read(
        {
            "out": "out",
            "size": 512,
            "cell_arcsec": 5,
            "weighting": "briggs:-0.5",
            "clean": "clark",
            "iterations": 50,
            "threshold_sigma": 5,
        }
    )
    options = request.image_options("V", None)
    assert (options.size, options.weighting, options.robust) == (512, "briggs", -0.5)
    assert options.cell_rad == pytest.approx(5 * ARCSEC)
    assert options.polarization == "V"
    assert (options.clean.algorithm, options.clean.iterations) == ("clark", 50)
    assert request.out.is_absolute()
    assert request.index_url == f"sqlite:///{Path('out').absolute()}/images.db"
    # as a worker gets it
    sent = WorkPiece(request=request.plain())
    assert ImageRequest(**sent["request"]) == request


def test_what_is_left_open_is_chosen_later() -> None:
    options = ImageRequest.read({"out": "/out"}).image_options("I", None)
    assert (options.size, options.cell_rad) == (None, None)
    assert ImageRequest.read({"out": "/out", "index": "x"}).index_url == "x"
    assert ImageRequest.read({"out": "/o", "channels": 8}).groups == [(0, 8), (8, 8)]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"out": ""}, "out: '' is no path"),
        ({"sise": 512}, "images have no option sise: they have out, index, pol"),
        ({"polarizations": ["RL"]}, "polarizations: 'RL' is not one of I, V, LL, RR"),
        ({"polarizations": []}, "polarizations: some of I, V, LL, RR are needed"),
        ({"channels": 5}, "channels: 5 is not one of 1, 2, 4, 8, 16"),
        ({"size": 511}, "a size is even"),
        ({"size": 1.5}, "size: 1.5 is no whole number"),
        ({"cell_arcsec": -1}, "cell_arcsec: -1 is no number from 0 on"),
        ({"gain": 2}, "a gain above 0 and at most 1"),
        ({"weighting": "robust"}, "'robust' is not natural, uniform or briggs:R"),
        ({"weighting": "briggs:3"}, "briggs is followed by -2 to 2, as briggs:0.5"),
        ({"clean": "maxent"}, "clean: 'maxent' is not one of hogbom, clark"),
        ({"bands": [-1]}, "bands: -1 is no whole number"),
        ({"source": "Moon"}, "source: there is no source 'Moon'"),
        ({"disk": "yes"}, "disk: 'yes' is not one of True, False"),
    ],
)
def test_what_cannot_be_is_told(asked: dict[str, object], told: str) -> None:
    with pytest.raises(RequestError) as caught:
        ImageRequest.read({"out": "/out", **asked})
    assert told in str(caught.value)


def test_images_need_a_folder() -> None:
    with pytest.raises(RequestError, match="images need a folder: out"):
        ImageRequest.read({"size": 512})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"bands": [4]}, "bands: MUSER-I has the bands 0 to 3, not 4"),
        ({"flag_inputs": [44]}, "flag_inputs: MUSER-I has the inputs 0 to 43, not 44"),
        ({"static_delays_ns": [0]}, "static_delays_ns: MUSER-I has 44 inputs, not 1"),
    ],
)
def test_what_an_array_does_not_have_is_told(asked: dict[str, object], told: str):
    request = ImageRequest.read({"out": "/out", **asked})
    with pytest.raises(RequestError, match=told):
        request.check_array(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("natural", ("natural", 0.0)),
        ("uniform", ("uniform", 0.0)),
        ("briggs", ("briggs", 0.0)),
        ("briggs:1.5", ("briggs", 1.5)),
    ],
)
def test_weightings(text: str, expected: tuple[str, float]) -> None:
    assert parse_weighting(text) == expected
