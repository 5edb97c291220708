"""The pages of the gallery, below ``/muser``."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    jsonify,
    make_response,
    render_template,
    request,
    send_from_directory,
    url_for,
)

from muser_pipeline.errors import ImageIndexError
from muser_pipeline.realtime.index import ImageRecord
from opencluster_web import failures, security
from opencluster_web.assets import IMMUTABLE
from opencluster_web.events import Streams
from opencluster_web.gallery import curve as curves
from opencluster_web.gallery.api import file_url
from opencluster_web.gallery.choice import (
    MAX_NUMBER,
    POLARIZATIONS,
    SPANS_S,
    Choice,
)
from opencluster_web.gallery.live import LOOK_S, news_of
from opencluster_web.gallery.movie import MAX_FRAMES, MovieShelf, evenly, make_movie
from opencluster_web.gallery.source import (
    Tile,
    band_of,
    image_source,
    in_order,
    key_of,
    peak_unit,
)
from opencluster_web.words import clock, day, frequency

SHOWN_OF_RANGE = 120
"""Images of a time range on one page; the latest ones, if there are more."""
MOMENT_NS = 500_000_000
"""Images of other bands within it are of the same moment: a loop goes through all."""
MOVIE_S = 3600
"""What a movie shows: the last hour."""
MOVIE_IMAGES = 20_000
"""More than an hour has of one band at five a second."""
FILE_TYPES = (".fits", ".png", ".webp", ".jpg", ".json")
"""What may be fetched from the folder of images; the index, for one, may not."""
RETRY_S = 10
"""Seconds after which a page without its index asks again."""

blueprint = Blueprint("gallery", __name__, url_prefix="/muser")


@blueprint.app_errorhandler(ImageIndexError)
def _without_index(error: ImageIndexError) -> Response:
    current_app.logger.warning("%s", error)
    answer = failures.answer(503, "No index of images", str(error))
    answer.headers["Retry-After"] = str(RETRY_S)
    return answer


@blueprint.app_context_processor
def _helpers() -> dict[str, Any]:
    return {
        "band_of": band_of,
        "file_url": file_url,
        "key_of": key_of,
        "peak_unit": peak_unit,
    }


@blueprint.route("/")
def latest() -> str:
    """Show the latest image of each band and polarisation, or those of a time range."""
    choice, source = Choice.of(request.args), image_source()
    everything = source.tiles(Choice())
    tiles = [tile for tile in everything if choice.takes(tile.newest)]
    if choice.has_range:
        start, end = choice.range_ns(0)
        found = source.index.between(
            start,
            end,
            choice.band,
            choice.polarization,
            array=choice.array,
            limit=SHOWN_OF_RANGE,
        )
        tiles = [_tile(record) for record in reversed(found)]
    return render_template(
        "gallery/latest.html",
        choice=choice,
        tiles=tiles,
        after=max((tile.newest.id for tile in tiles), default=0),
        is_full=choice.has_range and len(tiles) == SHOWN_OF_RANGE,
        **_choices(everything),
    )


@blueprint.route("/events")
def events() -> Response:
    """Tell of new images as they come."""
    streams: Streams = current_app.extensions["opencluster_streams"]
    choice = Choice.of(request.args)
    after = request.args.get("after", "0")
    return streams.respond(news_of(image_source(), choice), after, LOOK_S)


@blueprint.route("/images/<int:id>")
def image(id: int) -> str:
    """Show one image with everything that is known of it."""
    index = image_source().index
    record = index.get(id) if id <= MAX_NUMBER else None
    if record is None:
        abort(404, f"There is no image {id}. It may have been removed as it was old.")
    before, after = index.neighbours(record)
    near = index.between(
        record.time_utc_ns - MOMENT_NS, record.time_utc_ns + MOMENT_NS + 1
    )
    nearest: dict[str, ImageRecord] = {}
    for other in sorted(near, key=lambda r: abs(r.time_utc_ns - record.time_utc_ns)):
        nearest.setdefault(key_of(other), other)
    nearest.pop(key_of(record), None)
    return render_template(
        "gallery/image.html",
        record=record,
        before=before,
        after=after,
        others=in_order(map(_tile, nearest.values())),
    )


@blueprint.route("/movies")
def movies() -> str:
    """Show what there are movies of, to be played."""
    choice = Choice.of(request.args)
    everything = image_source().tiles(Choice())
    tiles = [t for t in everything if t.image and choice.takes(t.image)]
    return render_template(
        "gallery/movies.html", choice=choice, tiles=tiles, **_choices(everything)
    )


@blueprint.route("/movies/<key>.webp")
def movie(key: str) -> Response:
    """Send the movie of the last hour of one band and polarisation."""
    if not re.fullmatch(r"\d{1,3}-\d{1,3}-\d{1,3}-[A-Z]{1,2}", key):
        abort(404)
    source = image_source()
    newest = next((t.image for t in source.tiles(Choice()) if t.key == key), None)
    if newest is None:
        abort(404, "There is no image of this band and polarisation.")

    def make() -> bytes:
        found = source.index.between(
            newest.time_utc_ns - MOVIE_S * 10**9,
            newest.time_utc_ns + 1,
            newest.band,
            newest.polarization,
            array=newest.array,
            limit=MOVIE_IMAGES,
        )
        named = [
            record
            for record in found
            if key_of(record) == key and (record.thumbnail or record.png)
        ]
        taken = [named[place] for place in evenly(len(named), MAX_FRAMES)]
        return make_movie(
            [(source.folder / (r.thumbnail or r.png), _caption(r)) for r in taken]
        )

    shelf: MovieShelf = current_app.extensions["opencluster_movies"]
    try:
        made = shelf.get(f"{source.folder} {key}", newest.id, make)
    except ValueError:
        abort(404, "The pictures of these images are no longer there.")
    response = make_response(made)
    response.mimetype = "image/webp"
    response.headers["Cache-Control"] = IMMUTABLE if _is_of(newest) else "no-cache"
    return response


@blueprint.route("/curve")
def curve() -> str:
    """Show the light curve."""
    security.allow_plots()
    choice, source = Choice.of(request.args), image_source()
    lines = curves.series_of(source, choice)
    looks = {shade: curves.looks_of(lines, shade) for shade in curves.SHADES}
    return render_template(
        "gallery/curve.html",
        choice=choice,
        lines=lines,
        looks=looks,
        spans=SPANS_S,
        **_choices(source.tiles(Choice())),
    )


@blueprint.route("/curve/figure")
def curve_figure() -> Response:
    """Send the plots, for BokehJS to draw."""
    choice = Choice.of(request.args)
    source = image_source()
    lines, shade = curves.series_of(source, choice), _shade()
    units = {peak_unit(t.image) for t in source.tiles(choice) if t.image}
    unit = units.pop() if len(units) == 1 else ""
    data_url = url_for("gallery.curve_data", shade=shade, **choice.query())
    from opencluster_web.gallery.plots import figure_of
    from opencluster_web.plots import answer

    return answer(figure_of(data_url, lines, shade, unit), shade)


@blueprint.route("/curve/data")
def curve_data() -> Response:
    """Send the lines of the light curve as they are now."""
    lines = curves.series_of(image_source(), Choice.of(request.args))
    return jsonify(curves.columns(lines, _shade()))


@blueprint.route("/files/<path:name>")
def file(name: str) -> Response:
    """Send a file of an image."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in FILE_TYPES:
        abort(404)
    is_picture = suffix not in (".fits", ".json")
    response = send_from_directory(
        image_source().folder, name, as_attachment=not is_picture
    )
    response.headers["Cache-Control"] = IMMUTABLE
    return response


def _tile(record: ImageRecord) -> Tile:
    return Tile(record) if record.status == "image" else Tile(None, record)


def _is_of(newest: ImageRecord) -> bool:
    return request.args.get("v") == str(newest.id)


def _shade() -> curves.Shade:
    return "dark" if request.args.get("shade") == "dark" else "light"


def _caption(record: ImageRecord) -> str:
    time = f"{day(record.time_utc_ns)} {clock(record.time_utc_ns)} UTC"
    return f"{time}   {band_of(record)} {record.polarization}"


def _choices(tiles: list[Tile]) -> dict[str, Any]:
    """Return what a page lets people choose from: what there are images of."""
    newest = [tile.newest for tile in tiles]
    return {
        "arrays": sorted({record.array for record in newest}),
        "bands": _bands(newest),
        "polarizations": [
            name for name in POLARIZATIONS if name in {r.polarization for r in newest}
        ],
        "newest": max(newest, key=lambda r: r.time_utc_ns, default=None),
    }


def _bands(records: list[ImageRecord]) -> dict[int, str]:
    """Return the bands and their frequencies; both arrays may have one of a number."""
    found: dict[int, set[str]] = {}
    known = [record for record in records if record.band >= 0]
    for record in sorted(known, key=lambda r: r.frequency_hz):
        found.setdefault(record.band, set()).add(frequency(record.frequency_hz))
    return {band: ", ".join(sorted(found[band])[:2]) for band in sorted(found)}
