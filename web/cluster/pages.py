"""The pages of the cluster, and what tells open ones that something changed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
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

from opencluster.core.journal import KINDS, NOTE, TROUBLE, WARNING
from opencluster.core.sampling import CLUSTER
from opencluster.errors import HistoryError
from opencluster.observe.status import Row
from opencluster.store.history import DAY_S, History, Recorded
from opencluster_web import security
from opencluster_web.cluster import past
from opencluster_web.cluster.parts import Parts, changed, parts_of
from opencluster_web.cluster.source import Look, cluster_source
from opencluster_web.cluster.summary import (
    STATES,
    cpu_of,
    gone,
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
FAILURES_SHOWN = 8
EVENTS_SHOWN = 8
EVENTS_PAGE = 100
"""On the overview, and on a page of events."""
ELECTIONS = ("leader-elected", "leader-lost", "factory-absent", "factory-back")

blueprint = Blueprint("cluster", __name__)


@blueprint.route("/")
def overview() -> str:
    """Show how the cluster is."""
    span = past.span_of(request.args.get("span"))
    samples = past.samples_of(cluster_source().history, CLUSTER, span)[0]
    return _page("overview", **_plots(past.OF_CLUSTER, CLUSTER, samples))


@blueprint.route("/computers")
def computers() -> str:
    """Show the computers."""
    return _page("computers")


@blueprint.route("/computers/<name>")
def computer(name: str) -> str:
    """Show one computer, also one that has left."""
    span = past.span_of(request.args.get("span"))
    samples = past.samples_of(cluster_source().history, name, span)[0]
    look = cluster_source().look()
    is_known = _computer_row(look, name) is not None or _gone(look, name)
    if not is_known and not samples.get("at"):
        abort(404, f"There is no computer {name}, and none was seen of late.")
    return _page("computer", {"name": name}, **_plots(past.OF_COMPUTER, name, samples))


@blueprint.route("/workers")
def workers() -> str:
    """Show the workers, all or some of them."""
    return _page("workers")


@blueprint.route("/services")
def services() -> str:
    """Show the services, all or some of them."""
    return _page("services")


@blueprint.route("/factories")
def factories() -> str:
    """Show who leads, and who led in the last day."""
    return _page("factories")


@blueprint.route("/events")
def events() -> str:
    """Show what happened, the newest first."""
    return _page("events")


@blueprint.route("/history/<plot>/figure")
def history_figure(plot: str) -> Response:
    """Send a plot of the history, for BokehJS to draw."""
    if plot not in past.PLOTS:
        abort(404)
    from opencluster_web.cluster.plots import figure_of
    from opencluster_web.plots import shade_asked

    shade = shade_asked()
    data_url = url_for("cluster.history_data", plot=plot, shade=shade, **_past_asked())
    return Response(figure_of(plot, data_url, shade), mimetype="application/json")


@blueprint.route("/history/<plot>/data")
def history_data(plot: str) -> Response:
    """Send the lines of a plot as they are now."""
    return jsonify(_columns(plot))


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


def _page(name: str, asked: dict[str, str] | None = None, **contents: Any) -> str:
    asked = _asked(name) | (asked or {})
    html = render_template(
        f"cluster/_{name}.html",
        **_CONTENTS[name](cluster_source().look(), asked),
        **contents,
    )
    return render_template(
        f"cluster/{name}.html",
        content=Markup(html),
        live_url=f"{url_for('cluster.live', name=name)}?{urlencode(asked)}",
        **{"asked": asked} | contents,
    )


def _rendered(name: str) -> str:
    contents = _CONTENTS[name](cluster_source().look(), _asked(name))
    return render_template(f"cluster/_{name}.html", **contents)


def _plots(names: Sequence[str], subject: str, samples: past.Samples) -> dict[str, Any]:
    """Return what a page with plots of the history shows of them."""
    security.allow_plots()
    if any(samples.get("gpu_memory", ())) or any(samples.get("gpu", ())):
        names = (*names, "gpu")
    return {
        "plots": {name: past.PLOTS[name] for name in names},
        "subject": subject,
        "span": past.span_of(request.args.get("span")),
        "spans": list(past.SPANS),
        "figures": past.figures_of(names, samples),
        "is_watched": cluster_source().history is not None,
    }


def _past_asked() -> dict[str, Any]:
    span = past.span_of(request.args.get("span"))
    return {"subject": request.args.get("subject", CLUSTER), "span": span}


def _columns(plot: str) -> dict[str, list[Any]]:
    if plot not in past.PLOTS:
        abort(404)
    from opencluster_web.cluster.plots import columns_of
    from opencluster_web.plots import shade_asked

    history = cluster_source().history
    return columns_of(history, plot, shade=shade_asked(), **_past_asked())


def _overview(look: Look, asked: dict[str, str]) -> dict[str, Any]:
    status, source = look.status, cluster_source()
    return {
        "verdict": verdict_of(look),
        "status": status,
        "seen_at": look.at,
        "types": types_of([*status["workers"], *status["services"]]),
        "service_types": {row["type"] for row in status["services"]},
        "cpu": cpu_of(status),
        "memory": memory_of(status),
        "gpus": sum(len(row["gpus"]) for row in status["workshops"]),
        "jobs": status["jobs"][-JOBS_SHOWN:][::-1],
        "deaths": recent(status["deaths"], time.time()),
        "deaths_shown": DEATHS_SHOWN,
        "failures_shown": FAILURES_SHOWN,
        "now": source.samples.get(CLUSTER),
        "failed_lately": past.failed_lately(source.history),
        "events": _recorded(limit=EVENTS_SHOWN),
    }


def _factories(look: Look, asked: dict[str, str]) -> dict[str, Any]:
    since = time.time() - DAY_S
    elections = _recorded(kinds=ELECTIONS, since=since, limit=EVENTS_PAGE)
    return {
        "verdict": verdict_of(look),
        "factories": look.status["factories"],
        "elections": elections,
        "changes": sum(each.event.kind == "leader-elected" for each in elections),
        "is_watched": cluster_source().history is not None,
    }


def _events(look: Look, asked: dict[str, str]) -> dict[str, Any]:
    before = asked.get("before", "")
    found = _recorded(
        before=int(before) if before.isdecimal() and len(before) < 16 else 0,
        limit=EVENTS_PAGE + 1,
        weights=_weights(asked.get("weight", "")),
        kinds=[asked["kind"]] if "kind" in asked else (),
        host=asked.get("host", ""),
    )
    shown = found[:EVENTS_PAGE]
    hosts = {row["host"] for row in look.status["workshops"]}
    return {
        "verdict": verdict_of(look),
        "events": shown,
        "older": shown[-1].id if len(found) > len(shown) else 0,
        "asked": asked,
        "kinds": KINDS,
        "hosts": sorted(hosts | {asked["host"]} if "host" in asked else hosts),
        "is_watched": cluster_source().history is not None,
    }


def _weights(least: str) -> Sequence[str]:
    """Return the weights that matter as much as one, or more."""
    return {TROUBLE: (TROUBLE,), WARNING: (WARNING, TROUBLE), NOTE: ()}.get(least, ())


def _recorded(**choice: Any) -> list[Recorded]:
    history: History | None = cluster_source().history
    if history is None:
        return []
    try:
        return history.events(**choice)
    except HistoryError as error:
        current_app.logger.warning("%s", error)
        return []


def _computer_row(look: Look, name: str) -> dict[str, Any] | None:
    rows = look.status["workshops"]
    # the name of a computer is that of its workshop, which may be another one
    named = (row for key in ("name", "host") for row in rows if row[key] == name)
    return next(named, None)


def _gone(look: Look, name: str) -> list[Row]:
    """Return how a computer was lost, if it was and is not back."""
    return [death for death in gone(look.status, time.time()) if death["name"] == name]


def _computer(look: Look, asked: dict[str, str]) -> dict[str, Any]:
    row = _computer_row(look, asked.get("name", ""))
    processes = [
        process
        for process in (*look.status["workers"], *look.status["services"])
        if row is not None and process["workshop"] == row["id"]
    ]
    return {
        "verdict": verdict_of(look),
        "row": row,
        "gone": [] if row is not None else _gone(look, asked.get("name", "")),
        "workers": processes,
        "running": Counter(process["type"] for process in processes),
        "failures": [
            failure
            for failure in look.status["failures"]
            if row is not None and failure["workshop"] == row["id"]
        ],
        "failures_shown": FAILURES_SHOWN,
        "deaths": [
            death
            for death in recent(look.status["deaths"], time.time())
            if row is not None and death["host"] == row["host"]
        ][:DEATHS_SHOWN],
    }


def _computers(look: Look, asked: dict[str, str]) -> dict[str, Any]:
    processes = [*look.status["workers"], *look.status["services"]]
    own: dict[str, list[Row]] = {}
    for process in processes:
        own.setdefault(process["workshop"], []).append(process)
    return {
        "verdict": verdict_of(look),
        "computers": [
            (row, types_of(own.get(row["id"], ()))) for row in look.status["workshops"]
        ],
        "gone": gone(look.status, time.time()),
        "sparks": past.sparks_of(cluster_source().history, "cpu"),
    }


def _workers(look: Look, asked: dict[str, str]) -> dict[str, Any]:
    return _processes("workers", look, asked)


def _services(look: Look, asked: dict[str, str]) -> dict[str, Any]:
    return _processes("services", look, asked)


def _processes(kind: str, look: Look, asked: dict[str, str]) -> dict[str, Any]:
    processes = look.status[kind]
    return {
        "verdict": verdict_of(look),
        "kind": kind,
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


def _asked(name: str) -> dict[str, str]:
    """Return what the address asks for, as far as a page knows it."""
    names = _CHOICES.get(name, ())
    return {name: request.args[name] for name in names if request.args.get(name)}


_CHOICES: dict[str, Sequence[str]] = {
    "workers": ("type", "state", "host"),
    "services": ("type", "state", "host"),
    "events": ("weight", "kind", "host", "before"),
    "computer": ("name",),
}

_CONTENTS: dict[str, Callable[[Look, dict[str, str]], dict[str, Any]]] = {
    "overview": _overview,
    "computers": _computers,
    "computer": _computer,
    "workers": _workers,
    "services": _services,
    "factories": _factories,
    "events": _events,
}
