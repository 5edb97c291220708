"""The Flask application, made anew by each call of `create_app`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flask import Flask
from flask_bootstrap import Bootstrap5
from werkzeug.middleware.proxy_fix import ProxyFix

from opencluster import __version__
from opencluster.config import Config
from opencluster.place import Place
from opencluster_web import assets, failures, navigation, probes, security, words
from opencluster_web.accounts import guard
from opencluster_web.accounts import pages as account_pages
from opencluster_web.accounts.store import AccountStore
from opencluster_web.actions import pages as action_pages
from opencluster_web.actions.deeds import Hands
from opencluster_web.api import document as api
from opencluster_web.api import doing, reading
from opencluster_web.cluster import pages as cluster_pages
from opencluster_web.cluster.source import ClusterSource
from opencluster_web.events import Streams
from opencluster_web.jobs import pages as job_pages
from opencluster_web.jobs.source import JobSource
from opencluster_web.letters import pages as letter_pages
from opencluster_web.letters.source import LetterBox
from opencluster_web.logs import pages as log_pages
from opencluster_web.logs.source import LogSource
from opencluster_web.processes import pages as process_pages
from opencluster_web.tasks import pages as task_pages
from opencluster_web.tasks.source import TaskSource

STREAMS = 8
"""Pages that may hear of changes at the same time; each keeps a thread busy."""
STREAM_S = 300.0
"""After which a stream ends; the browser then asks for the next one by itself."""
SESSION_S = 12 * 3600.0
"""A log-in is good for a shift."""
ASSETS_KEPT_S = 3600
"""For which a browser need not ask again for a style sheet or a program."""

ACCOUNTS = "web.db"


@dataclass(frozen=True)
class WebSettings:
    """What the pages show, and to whom.

    Attributes
    ----------
    images : Path or None
        The folder of MUSER's images; without one there is no gallery.
    index_url : str
        Their index; by default the one beside them.
    config : Config
        The settings of the cluster.
    place : Place or None
        The cluster's directory; by default the usual one.
    hosts : tuple of str
        Names under which a browser may ask, without port.
    streams : int
        Pages that may hear of changes at the same time.
    stream_s : float
        Seconds after which a stream ends, for the browser to ask again.
    accounts : Path or None
        The file of who may log in; by default in the cluster's directory.
    guests : bool
        Whoever is not known may look, and do nothing.
    is_encrypted : bool
        Browsers come by https, so cookies need not go any other way.
    is_behind_proxy : bool
        One proxy in front says who asks for what.
    session_s : float
        Seconds after which somebody logs in again.
    """

    images: Path | None = None
    index_url: str = ""
    config: Config = field(default_factory=Config)
    place: Place | None = None
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    streams: int = STREAMS
    stream_s: float = STREAM_S
    accounts: Path | None = None
    guests: bool = False
    is_encrypted: bool = False
    is_behind_proxy: bool = False
    session_s: float = SESSION_S


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
        SESSION_COOKIE_NAME="opencluster",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.is_encrypted,
        PERMANENT_SESSION_LIFETIME=settings.session_s,
        SEND_FILE_MAX_AGE_DEFAULT=ASSETS_KEPT_S,
    )
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    if settings.is_behind_proxy:
        proxied = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)
        app.wsgi_app = proxied  # type: ignore[method-assign]
    Bootstrap5(app)
    security.protect(app, settings.hosts)
    failures.register(app)
    words.register(app)
    place = settings.place or Place.find()
    accounts = AccountStore(settings.accounts or place.path / ACCOUNTS)
    guard.register(app, accounts, settings.guests)
    account_pages.limiter.init_app(app)
    app.register_blueprint(account_pages.blueprint)
    app.register_blueprint(assets.blueprint)
    app.extensions["opencluster_streams"] = Streams(settings.streams, settings.stream_s)
    app.extensions["opencluster_cluster"] = ClusterSource(settings.config, place)
    app.register_blueprint(cluster_pages.blueprint)
    app.extensions["opencluster_logs"] = LogSource(settings.config, place)
    app.register_blueprint(log_pages.blueprint)
    app.register_blueprint(process_pages.blueprint)
    app.extensions["opencluster_letters"] = LetterBox(settings.config, place)
    app.register_blueprint(letter_pages.blueprint)
    app.extensions["opencluster_hands"] = Hands(settings.config, place)
    app.register_blueprint(action_pages.blueprint)
    app.extensions["opencluster_jobs"] = JobSource(settings.config, place)
    app.register_blueprint(job_pages.blueprint)
    app.extensions["opencluster_tasks"] = TaskSource(settings.config, place)
    app.register_blueprint(task_pages.blueprint)
    probes.register(app)
    if settings.images is not None:
        _add_gallery(app, settings.images, settings.index_url)
    api.register(app, reading.blueprint, doing.blueprint)
    navigation.register(app)
    app.jinja_env.globals.update(version=__version__)
    return app


def close_app(app: Flask) -> None:
    """Close what the pages have opened."""
    for name in ("cluster", "logs", "jobs", "tasks", "images", "accounts"):
        if f"opencluster_{name}" in app.extensions:
            app.extensions[f"opencluster_{name}"].close()


def _add_gallery(app: Flask, images: Path, index_url: str) -> None:
    # a cluster without MUSER has no use for what it needs
    from opencluster_web.gallery import api as image_api
    from opencluster_web.gallery import pages
    from opencluster_web.gallery.movie import MovieShelf
    from opencluster_web.gallery.source import ImageSource

    app.extensions["opencluster_images"] = ImageSource(images, index_url)
    app.extensions["opencluster_movies"] = MovieShelf()
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(image_api.blueprint)
