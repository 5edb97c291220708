"""The light curve: its lines, and plots that BokehJS can draw under the policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from gallery_tools import START_S, TIMES, Page, record

from muser_pipeline.realtime.index import ImageIndex, default_url


def test_there_is_a_line_for_each_band_and_hand(client: FlaskClient) -> None:
    data = client.get("/muser/curve/data").json
    assert data["label"][:3] == ["0.600 GHz LL", "0.600 GHz RR", "1.000 GHz LL"]
    assert len(data["label"]) == 8
    assert len(set(data["colour"])) == 4
    assert data["time"][0][0] == START_S * 1000
    assert data["peak"][0] == [1000.0 + 10 * step for step in range(TIMES)]
    assert data["flux"][7] == [5e5] * (TIMES - 1)
    dark = client.get("/muser/curve/data?shade=dark&band=3").json
    assert dark["label"] == ["1.800 GHz LL", "1.800 GHz RR"]
    assert not set(dark["colour"]) & set(data["colour"])


def test_a_time_range_can_be_chosen(client: FlaskClient) -> None:
    query = "from=2015-11-01T04:01:00&to=2015-11-01T04:02:00&band=0&pol=LL"
    data = client.get(f"/muser/curve/data?{query}").json
    assert data["peak"] == [[1060.0, 1070.0, 1080.0, 1090.0, 1100.0, 1110.0]]
    last = client.get("/muser/curve/data?span=15&band=0&pol=LL").json
    assert last["peak"] == [[1230.0, 1240.0]]


def test_a_line_is_cut_where_nothing_was_seen(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        index.add_all([record(second) for second in (0, 10, 20, 30, 90, 100)])
        index.add(record(5, 1))
    data = open_pages(tmp_path).get("/muser/curve/data").json
    seen = [[peak - 1000 for peak in row] for row in data["peak"]]
    assert seen == [[0, 10, 20, 30], [90, 100], [5]]
    assert data["label"][0] == data["label"][1] != data["label"][2]


def test_plots_are_defined_before_they_are_referred_to(client: FlaskClient) -> None:
    figure = json.loads(client.get("/muser/curve/figure?band=1").text)
    known: set[str] = set()
    kinds: set[str] = set()

    def look(part: Any) -> None:
        if isinstance(part, dict):
            if "type" in part and "id" in part:
                known.add(part["id"])
                kinds.add(part["name"])
            elif part.keys() == {"id"}:
                assert part["id"] in known
        for inner in part.values() if isinstance(part, dict) else part:
            if isinstance(inner, dict | list):
                look(inner)

    look(figure["doc"]["roots"])
    assert {"AjaxDataSource", "MultiLine", "HoverTool"} <= kinds
    # these would need programs that are made of text, which pages may not run
    assert not [kind for kind in kinds if kind.startswith("CustomJS")]
    text = json.dumps(figure)
    assert "/muser/curve/data?shade=light\\u0026band=1" in text or (
        "/muser/curve/data?shade=light&band=1" in text
    )


def test_the_page_says_in_words_what_the_plot_shows(client: FlaskClient) -> None:
    page = Page.of(client.get("/muser/curve?band=0&pol=LL").text)
    assert "0.600 GHz LL 04:04:00 1,240 1,240 500,000 500,000 25" in page.text
    assert "/muser/curve/figure?band=0&pol=LL" in page.links


def test_many_bands_have_a_colour_each(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    bands = [
        record(0, array=2, frequency_hz=2e9 + 4e8 * number) for number in range(33)
    ]
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        index.add_all(replace(each, band=n) for n, each in enumerate(bands))
        index.add(record(0))
    data = open_pages(tmp_path).get("/muser/curve/data").json
    assert len(data["label"]) == len(set(data["colour"])) == 34
    assert data["label"][0] == "MUSER-I 0.600 GHz RR"
    assert data["label"][1] == "MUSER-II 2.000 GHz RR"


@pytest.mark.parametrize(("images", "points"), [(10, 10), (100, 40)])
def test_a_line_has_a_bounded_number_of_points(
    open_pages: Callable[..., FlaskClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: int,
    points: int,
) -> None:
    monkeypatch.setattr("opencluster_web.gallery.curve.POINTS", 40)
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        index.add_all([record(second) for second in range(images)])
    data = open_pages(tmp_path).get(f"/muser/curve/data?span={images}").json
    assert len(data["peak"][0]) == points
    assert max(data["peak"][0]) == 1000 + images - 1
