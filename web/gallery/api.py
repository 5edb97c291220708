"""The records of images for programs: JSON under ``/api/v1/images``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, abort, jsonify, request, url_for

from muser_pipeline.realtime.index import ImageRecord
from opencluster_web.gallery.choice import MAX_NUMBER, Choice, number
from opencluster_web.gallery.source import image_source, key_of
from opencluster_web.words import iso

LIMIT = 100
"""Records in an answer, if no other number is asked for."""
MAX_LIMIT = 1000
FILES = ("fits", "png", "thumbnail", "json")

blueprint = Blueprint("api_images", __name__, url_prefix="/api/v1/images")


@blueprint.route("/latest")
def latest() -> Response:
    """Answer the latest image of each band and polarisation, and later refusals."""
    tiles = image_source().tiles(Choice.of(request.args))
    images = [tile.image for tile in tiles if tile.image]
    refused = [tile.refusal for tile in tiles if tile.refusal]
    return jsonify(images=[*map(shown, images)], refused=[*map(shown, refused)])


@blueprint.route("/<int:id>")
def one(id: int) -> Response:
    """Answer one image."""
    record = image_source().index.get(id) if id <= MAX_NUMBER else None
    if record is None:
        abort(404, f"There is no image {id}.")
    return jsonify(shown(record))


@blueprint.route("")
def several() -> Response:
    """Answer the images behind a number (``since``), or those of a time range.

    Whoever asks again with the ``next`` of an answer gets what came after it.
    """
    limit = number(request.args, "limit", LIMIT)
    if limit is None or not 1 <= limit <= MAX_LIMIT:
        abort(400, f"limit is from 1 to {MAX_LIMIT}.")
    choice = Choice.of(request.args)
    since = number(request.args, "since")
    if since is not None:
        found = image_source().index.since(since, limit)
        chosen = [shown(record) for record in found if choice.takes(record)]
        return jsonify(images=chosen, next=found[-1].id if found else since)
    if not choice.has_range:
        abort(400, "Say since=NUMBER, or from=TIME, to=TIME or both.")
    start, end = choice.range_ns(0)
    found = image_source().index.between(
        start,
        end,
        choice.band,
        choice.polarization,
        array=choice.array,
        limit=limit,
    )
    return jsonify(images=[shown(record) for record in found])


def shown(record: ImageRecord) -> dict[str, Any]:
    """Return a record as programs get it: with a readable time, and links to files."""
    fields = asdict(record)
    names = {name: fields.pop(name) for name in FILES}
    return {
        **fields,
        "key": key_of(record),
        "time_utc": iso(record.time_utc_ns),
        "page": url_for("gallery.image", id=record.id),
        "files": {name: file_url(record, name) for name, path in names.items() if path},
    }


def file_url(record: ImageRecord, name: str) -> str:
    """Return the address of a file of an image; one that is made anew has another."""
    version = round(record.published_at * 1000)
    return url_for("gallery.file", name=getattr(record, name), v=version)
