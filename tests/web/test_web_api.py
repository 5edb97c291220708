"""The records of images as JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from gallery_tools import REASON, START_S

from muser_pipeline.realtime.index import ImageRecord

Archive = tuple[Path, list[ImageRecord]]
IMAGES = "/api/v1/images"


def test_the_latest(client: FlaskClient) -> None:
    found = client.get(f"{IMAGES}/latest").json
    assert [image["key"] for image in found["images"]][:2] == ["1-0-0-LL", "1-0-0-RR"]
    assert len(found["images"]) == 8
    (refused,) = found["refused"]
    assert (refused["key"], refused["reason"]) == ("1-3-0-RR", REASON)
    assert refused["files"] == {}
    assert len(client.get(f"{IMAGES}/latest?pol=LL").json["images"]) == 4


def test_one_image_and_its_files(client: FlaskClient, archive: Archive) -> None:
    known = archive[1][3]
    image = client.get(f"{IMAGES}/{known.id}").json
    assert image["peak"] == known.peak
    assert image["time_utc"] == "2015-11-01T04:00:00.025Z"
    assert image["time_utc_ns"] == known.time_utc_ns
    assert image["timings"] == {"clean": 0.125}
    assert client.get(image["page"]).status_code == 200
    assert set(image["files"]) == {"fits", "png", "thumbnail", "json"}
    for name, address in image["files"].items():
        sent = client.get(address)
        assert sent.data == (archive[0] / getattr(known, name)).read_bytes()


def test_whoever_asks_again_gets_every_image_once(
    client: FlaskClient, archive: Archive
) -> None:
    after, seen = 0, []
    while page := client.get(f"{IMAGES}?since={after}&limit=70&pol=LL").json:
        seen += [image["id"] for image in page["images"]]
        if page["next"] == after:
            break
        after = page["next"]
    assert seen == [image.id for image in archive[1] if image.polarization == "LL"]


def test_a_time_range(client: FlaskClient) -> None:
    query = "from=2015-11-01T04:00:10&to=2015-11-01T04:00:30&band=0&pol=RR"
    found = client.get(f"{IMAGES}?{query}").json["images"]
    assert [image["time_utc_ns"] // 10**9 - START_S for image in found] == [10, 20]
    assert len(client.get(f"{IMAGES}?to=2016-01-01&limit=3").json["images"]) == 0


@pytest.mark.parametrize(
    ("address", "status", "told"),
    [
        (IMAGES, 400, "Say since=NUMBER"),
        (f"{IMAGES}?since=1&limit=0", 400, "limit is from 1 to 1000"),
        (f"{IMAGES}?since=x", 400, "since must be a whole number"),
        (f"{IMAGES}/99999", 404, "There is no image 99999"),
        (f"{IMAGES}/99999999999999999999999", 404, "There is no image"),
        ("/api/v1/nothing", 404, ""),
    ],
)
def test_errors_are_json_too(
    client: FlaskClient, address: str, status: int, told: str
) -> None:
    answer = client.get(address)
    assert answer.status_code == answer.json["error"]["status"] == status
    assert told in answer.json["error"]["message"]


def test_without_an_index(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    answer = open_pages(tmp_path).get(f"{IMAGES}/latest")
    assert answer.status_code == 503
    assert "There is no index" in answer.json["error"]["message"]
    assert client_posts(open_pages(tmp_path)) == 405


def client_posts(client: FlaskClient) -> int:
    """Return how an attempt to change something is answered."""
    return client.post(f"{IMAGES}/latest").status_code
