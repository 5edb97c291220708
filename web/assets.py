"""Bokeh's programs, from the installed package, and versions for our own files."""

from __future__ import annotations

from pathlib import Path

import bokeh
from bokeh.util.paths import static_path
from flask import Blueprint, Response, abort, current_app, send_from_directory, url_for

from opencluster_web.accounts.guard import public

IMMUTABLE = "public, max-age=31536000, immutable"
"""For files whose URL changes when their contents do."""

BOKEH_FILES = ("bokeh.min.js",)
"""What plots need; tables and widgets are not used."""

blueprint = Blueprint("assets", __name__)


@blueprint.route("/assets/bokeh/<version>/<name>")
@public
def bokeh_file(version: str, name: str) -> Response:
    """Send one of the files of BokehJS."""
    if version != bokeh.__version__ or name not in BOKEH_FILES:
        abort(404)
    response = send_from_directory(Path(static_path()) / "js", name)
    response.headers["Cache-Control"] = IMMUTABLE
    return response


@blueprint.app_template_global()
def bokeh_urls() -> list[str]:
    """Return the addresses of the files that a page with plots loads."""
    version = bokeh.__version__
    return [
        url_for("assets.bokeh_file", version=version, name=name) for name in BOKEH_FILES
    ]


@blueprint.app_template_global()
def own_file(name: str) -> str:
    """Return the address of a file of ours; it changes with the file."""
    folder = current_app.static_folder
    assert folder is not None
    changed_ns = (Path(folder) / name).stat().st_mtime_ns
    return url_for("static", filename=name, v=changed_ns // 10**6)
