"""Movies: of the right images, made once, and not stopped by a picture that is gone."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from gallery_tools import TIMES, record
from PIL import Image

from muser_pipeline.realtime.index import ImageIndex, ImageRecord, default_url
from opencluster_web.gallery import pages
from opencluster_web.gallery.movie import MAX_FRAMES, MovieShelf, evenly, make_movie

Archive = tuple[Path, list[ImageRecord]]


def levels(movie: bytes) -> list[int]:
    """Return how bright the middle of each frame is."""
    found = []
    with Image.open(io.BytesIO(movie)) as opened:
        assert opened.format == "WEBP"
        for number in range(opened.n_frames):  # type: ignore[attr-defined]
            opened.seek(number)
            middle = opened.convert("L").getpixel((opened.width // 2, 192))
            found.append(int(middle))  # type: ignore[arg-type]
    return found


def test_a_movie_shows_the_images_of_a_band_by_time(client: FlaskClient) -> None:
    answer = client.get("/muser/movies/1-2-0-LL.webp")
    assert answer.mimetype == "image/webp"
    seen = levels(answer.data)
    assert len(seen) == TIMES
    assert seen == sorted(seen)
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_movie_of_a_known_image_is_kept_by_browsers(client: FlaskClient) -> None:
    html = client.get("/muser/movies?band=2&pol=LL").text
    address = html.partition('data-movie="')[2].partition('"')[0].replace("&amp;", "&")
    assert client.get(address).headers["Cache-Control"].endswith("immutable")


def test_a_movie_is_made_once_for_each_new_image(
    archive: Archive,
    open_pages: Callable[..., FlaskClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(archive[0], folder)
    made: list[int] = []

    def counted(frames: list[tuple[Path, str]]) -> bytes:
        made.append(len(frames))
        return make_movie(frames)

    monkeypatch.setattr(pages, "make_movie", counted)
    client = open_pages(folder)
    app = client.application

    def ask(_: int) -> bytes:
        return app.test_client().get("/muser/movies/1-0-0-RR.webp").data

    with ThreadPoolExecutor(4) as asking:
        movies = set(asking.map(ask, range(4)))
    assert len(movies) == 1
    assert made == [TIMES]
    with ImageIndex(default_url(folder), folder) as index:
        index.add(record(1000, thumbnail=record(0).thumbnail))
        index.add(record(1000, 1, thumbnail=record(0).thumbnail))
    ask(0)
    ask(1)
    assert made == [TIMES, TIMES + 1]


def test_a_movie_leaves_out_what_cannot_be_shown(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.new("RGBA", (30, 20), (200, 200, 200, 255)).save(good)
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:50])
    no_picture = tmp_path / "text.png"
    no_picture.write_text("hello")
    gone = tmp_path / "gone.png"
    frames = [(path, path.name) for path in (gone, good, broken, no_picture)]
    assert levels(make_movie(frames)) == pytest.approx([200], abs=8)
    with pytest.raises(ValueError, match="no picture"):
        make_movie([(gone, "")])


def test_a_movie_whose_pictures_are_gone_is_not_found(
    open_pages: Callable[..., FlaskClient], tmp_path: Path
) -> None:
    with ImageIndex(default_url(tmp_path), tmp_path) as index:
        index.add(record(0))
    answer = open_pages(tmp_path).get("/muser/movies/1-0-0-RR.webp")
    assert answer.status_code == 404
    assert "no longer there" in answer.text


@pytest.mark.parametrize("count", [0, 1, 119, 120, 121, 239, 241, 5000])
def test_frames_are_taken_evenly(count: int) -> None:
    places = evenly(count)
    assert len(places) == min(count, MAX_FRAMES)
    assert places == sorted(set(places))
    if count:
        assert places[-1] == count - 1
        steps = [b - a for a, b in zip(places, places[1:], strict=False)]
        assert max(steps, default=1) - min(steps, default=1) <= 1


def test_the_shelf_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opencluster_web.gallery.movie.MOVIES_KEPT", 2)
    shelf, made = MovieShelf(), []

    def get(key: str, newest: int = 1) -> None:
        shelf.get(key, newest, lambda: made.append(key) or key.encode())  # type: ignore[func-returns-value]

    for key in "abacab":
        get(key)
    assert "".join(made) == "abcb"
    get("b", 2)
    assert "".join(made) == "abcbb"
