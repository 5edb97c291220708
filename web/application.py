"""The Flask application, made anew by each call of `create_app`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flask import Flask, redirect, url_for
from flask.typing import ResponseReturnValue
from flask_bootstrap import Bootstrap5

from opencluster import __version__
from opencluster_web import assets, failures, security, words
from opencluster_web.events import Streams
from opencluster_web.gallery import api, pages
from opencluster_web.gallery.movie import MovieShelf
from opencluster_web.gallery.source import ImageSource

STREAMS = 8
"""Pages that may hear of changes at the same time; each keeps a thread busy."""
STREAM_S = 300.0
"""After which a stream ends; the browser then asks for the next one by itself."""
ASSETS_KEPT_S = 3600
"""For which a browser need not ask again for a style sheet or a program."""

SECTIONS = (
    ("gallery.latest", "Latest images", "grid-3x3-gap"),
    ("gallery.curve", "Light curve", "graph-up"),
    ("gallery.movies", "Movies", "film"),
)
"""The navigation: the page of each, its name and its icon."""


@dataclass(frozen=True)
class WebSettings:
    """What the pages show, and to whom.

    Attributes
    ----------
    images : Path
        The folder of MUSER's images.
    index_url : str
        Their index; by default the one beside them.
    hosts : tuple of str
        Names under which a browser may ask, without port.
    streams : int
        Pages that may hear of changes at the same time.
    stream_s : float
        Seconds after which a stream ends, for the browser to ask again.
    """

    images: Path
    index_url: str = ""
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    streams: int = STREAMS
    stream_s: float = STREAM_S


def create_app(settings: WebSettings) -> Flask:
    """Return the application; nothing is opened before a page asks for it.

    Parameters
    ----------
    settings : WebSettings
        What it shows.
    """
    app = Flask("opencluster_web", root_path=str(Path(__file__).parent))
    app.config.update(
        BOOTSTRAP_SERVE_LOCAL=True,
        BOOTSTRAP_ICON_USE_FONT=True,
        MAX_CONTENT_LENGTH=64 * 1024,
        SEND_FILE_MAX_AGE_DEFAULT=ASSETS_KEPT_S,
    )
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    Bootstrap5(app)
    security.protect(app, settings.hosts)
    failures.register(app)
    words.register(app)
    app.jinja_env.globals.update(sections=SECTIONS, version=__version__)
    app.register_blueprint(assets.blueprint)
    app.extensions["opencluster_streams"] = Streams(settings.streams, settings.stream_s)
    app.extensions["opencluster_images"] = ImageSource(
        settings.images, settings.index_url
    )
    app.extensions["opencluster_movies"] = MovieShelf()
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(api.blueprint)
    app.add_url_rule("/", "home", _home)
    return app


def _home() -> ResponseReturnValue:
    return redirect(url_for("gallery.latest"))
