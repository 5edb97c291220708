"""The pages of the cluster, and what tells open ones that something changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    jsonify,
    render_template,
    request,
    url_for,
)
from markupsafe import Markup

from opencluster_web.cluster.parts import Parts, changed, parts_of
from opencluster_web.cluster.source import Look, cluster_source
from opencluster_web.cluster.summary import (
    STATES,
    cpu_of,
    memory_of,
    recent,
    types_of,
)
from opencluster_web.cluster.verdict import verdict_of
from opencluster_web.events import Event, Streams

LOOK_S = 1.0
"""Between two looks for an open page."""
JOBS_SHOWN = 10
DEATHS_SHOWN = 8
"""The newest ones of the last hour."""

blueprint = Blueprint("cluster", __name__)


@blueprint.route("/")
def overview() -> str:
    """Show how the cluster is."""
    return _page("overview")


@blueprint.route("/computers")
def computers() -> str:
    """Show the computers."""
    return _page("computers")


@blueprint.route("/workers")
def workers() -> str:
    """Show the workers and services, all or some of them."""
    return _page("workers")


@blueprint.route("/live/<name>")
def live(name: str) -> Response:
    """Tell a page what changed on it."""
    if name not in _CONTENTS:
        abort(404)
    streams: Streams = current_app.extensions["opencluster_streams"]
    shown: Parts = {}

    def news(last: str) -> Event | None:
        nonlocal shown
        now = parts_of(_rendered(name))
        tiles, keys = changed(shown, now)
        shown = now
        if not tiles and keys is None:
            return None
        return Event("0", "tiles", json.dumps({"tiles": tiles, "keys": keys}))

    return streams.respond(news, "0", LOOK_S)


@blueprint.route("/api/v1/status")
def status() -> Response:
    """Answer the status of the cluster, as ``opencluster status --json`` does."""
    look = cluster_source().look()
    if look.trouble:
        abort(503, look.trouble)
    return jsonify(look.status)


def _page(name: str) -> str:
    return render_template(
        f"cluster/{name}.html",
        content=Markup(_rendered(name)),
        live_url=f"{url_for('cluster.live', name=name)}?{urlencode(_asked())}",
    )


def _rendered(name: str) -> str:
    contents = _CONTENTS[name](cluster_source().look())
    return render_template(f"cluster/_{name}.html", **contents)


def _overview(look: Look) -> dict[str, Any]:
    status = look.status
    return {
        "verdict": verdict_of(look),
        "status": status,
        "types": types_of([*status["workers"], *status["services"]]),
        "cpu": cpu_of(status),
        "memory": memory_of(status),
        "gpus": sum(len(row["gpus"]) for row in status["workshops"]),
        "jobs": status["jobs"][-JOBS_SHOWN:][::-1],
        "deaths": recent(status["deaths"], time.time())[:DEATHS_SHOWN],
    }


def _computers(look: Look) -> dict[str, Any]:
    processes = [*look.status["workers"], *look.status["services"]]
    return {
        "verdict": verdict_of(look),
        "computers": [
            (row, types_of(p for p in processes if p["workshop"] == row["id"]))
            for row in look.status["workshops"]
        ],
    }


def _workers(look: Look) -> dict[str, Any]:
    processes = [*look.status["workers"], *look.status["services"]]
    asked = _asked()
    return {
        "verdict": verdict_of(look),
        "workers": [
            row
            for row in processes
            if all(row[name] == value for name, value in asked.items())
        ],
        "asked": asked,
        "types": sorted({row["type"] for row in processes}),
        "hosts": sorted({row["host"] for row in processes}),
        "states": STATES,
    }


def _asked() -> dict[str, str]:
    """Return which workers the address asks for."""
    names = ("type", "state", "host")
    return {name: request.args[name] for name in names if request.args.get(name)}


_CONTENTS: dict[str, Callable[[Look], dict[str, Any]]] = {
    "overview": _overview,
    "computers": _computers,
    "workers": _workers,
}
