"""What other programs ask of the pages: whether they work, and their numbers.

``/healthz`` is for everybody and tells nothing of the cluster. ``/metrics`` is for
Prometheus on this computer, and for others with a token.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

from flask import Blueprint, Flask, Response, abort, current_app, g, jsonify, request

from opencluster.core.metrics import Labels, Metric, one
from opencluster.place import is_loopback
from opencluster_web.accounts import guard
from opencluster_web.cluster.source import ClusterSource, cluster_source
from opencluster_web.events import Streams

STALE_S = 30.0
"""Who has not looked for so long hangs; a look may wait for several factories."""

blueprint = Blueprint("probes", __name__)


class Requests:
    """Counts what was asked and how long it took; used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: Counter[Labels] = Counter()
        self._seconds: Counter[Labels] = Counter()

    def count(self, page: str, status: int, seconds: float) -> None:
        """Count an answer that has been made."""
        of_page = (("page", page),)
        with self._lock:
            self._asked[*of_page, ("status", str(status))] += 1
            self._seconds[of_page] += seconds  # type: ignore[assignment]

    def metrics(self) -> list[Metric]:
        """Return the counts."""
        with self._lock:
            asked, seconds = list(self._asked.items()), list(self._seconds.items())
        return [
            Metric("web_requests_total", "Answers that were made.", asked),
            Metric("web_request_seconds_total", "Time to make them.", seconds),
        ]


def register(app: Flask) -> None:
    """Let an application answer programs, and count what it answers."""
    requests = app.extensions["opencluster_requests"] = Requests()

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        page = request.endpoint or "none"
        seconds = time.perf_counter() - g.get("began", time.perf_counter())
        requests.count(page, response.status_code, seconds)
        return response

    app.register_blueprint(blueprint)


@blueprint.route("/healthz")
@guard.public
def healthz() -> tuple[Response, int]:
    """Answer whether the pages work; whether the cluster does is another question."""
    silence_s = cluster_source().silence_s
    is_well = silence_s is None or silence_s < STALE_S
    word = "ok" if is_well else "hangs"
    return jsonify(status=word), 200 if is_well else 503


@blueprint.route("/metrics")
@guard.public
def metrics() -> Response:
    """Answer Prometheus how the pages are doing."""
    if not _is_here() and not _is_known():
        abort(403, "Metrics are for this computer, or for those who send a token.")
    from opencluster.observe.exposition import MEDIA_TYPE, text_of

    counts: Requests = current_app.extensions["opencluster_requests"]
    streams: Streams = current_app.extensions["opencluster_streams"]
    text = text_of([*counts.metrics(), *_of_source(cluster_source()), *_of(streams)])
    return Response(text, content_type=MEDIA_TYPE)


def _is_here() -> bool:
    # behind a proxy everybody may seem to be here
    is_proxied = "werkzeug.proxy_fix.orig" in request.environ
    address = request.remote_addr or ""
    return not is_proxied and (is_loopback(address) or address == "::1")


def _is_known() -> bool:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return guard.store().tokens.bearer(secret.strip()) is not None
    asking = guard.actor()
    return asking is not None and asking.via != guard.GUEST


def _of(streams: Streams) -> list[Metric]:
    return [
        one("web_streams", "Pages that are told of changes.", streams.used),
        one("web_streams_limit", "How many may be.", streams.limit),
    ]


def _of_source(source: ClusterSource) -> list[Metric]:
    silence_s = source.silence_s
    return [
        one("web_looks_total", "Times that factories were asked.", source.looks),
        one("web_failed_looks_total", "Of which none answered.", source.failed_looks),
        one("web_history_bytes", "Size of the history.", source.history_bytes),
        one("web_keeps_history", "What is seen is kept here.", source.is_keeping),
        *(
            [one("web_look_age_seconds", "Since the last look.", silence_s)]
            if silence_s is not None
            else []
        ),
    ]
