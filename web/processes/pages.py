"""The page of one worker or service, also of one that has ended."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from opencluster.core.log_lines import Wanted
from opencluster.observe.logs import harmless, look_at, question, shown
from opencluster.observe.status import Row
from opencluster_web import security
from opencluster_web.cluster.parts import Parts, changed, parts_of
from opencluster_web.cluster.source import Look, cluster_source
from opencluster_web.cluster.verdict import verdict_of
from opencluster_web.events import Event, Streams
from opencluster_web.logs.pages import rows_of
from opencluster_web.logs.source import log_source
from opencluster_web.processes.trail import Trail, trail_of

LOOK_S = 1.0
LINES = 60
"""The last lines of its log."""
DEATHS_SHOWN = 20

blueprint = Blueprint("processes", __name__)


@blueprint.route("/workers/<name>")
def page(name: str) -> ResponseReturnValue:
    """Show one worker; who asks for a service is led there."""
    return _page(name, "workers")


@blueprint.route("/services/<name>")
def service(name: str) -> ResponseReturnValue:
    """Show one service."""
    return _page(name, "services")


def _page(name: str, kind: str) -> ResponseReturnValue:
    contents = _contents(name)
    if not (contents["rows"] or contents["deaths"] or contents["messages"]):
        abort(404, f"Nobody named {name} runs, ended of late, or left a log.")
    row = contents["row"]
    asked: dict[str, Any]
    asked = {"host": request.args["host"]} if request.args.get("host") else {}
    is_service = row is not None and row in cluster_source().look().status["services"]
    if row is not None and is_service != (kind == "services"):
        endpoint = "processes.service" if is_service else "processes.page"
        return redirect(url_for(endpoint, name=name, **asked))
    security.allow_plots()
    return render_template(
        "processes/page.html",
        content=Markup(render_template("processes/_process.html", **contents)),
        name=name,
        kind=kind,
        live_url=f"{url_for('processes.live', name=name)}?{urlencode(asked)}",
        figures=_figures(row),
        identity=row["id"] if row else "",
    )


@blueprint.route("/live/process/<name>")
def live(name: str) -> Response:
    """Tell the page of a process what changed on it."""
    streams: Streams = current_app.extensions["opencluster_streams"]
    shown_parts: Parts = {}

    def news(last: str) -> Event | None:
        nonlocal shown_parts
        html = render_template("processes/_process.html", **_contents(name))
        now = parts_of(html)
        tiles, keys = changed(shown_parts, now)
        shown_parts = now
        if not tiles and keys is None:
            return None
        return Event("0", "tiles", json.dumps({"tiles": tiles, "keys": keys}))

    return streams.respond(news, "0", LOOK_S)


@blueprint.route("/trails/<identity>/<figure>/figure")
def figure(identity: str, figure: str) -> Response:
    """Send a plot of what a process used in the last hour, for BokehJS to draw."""
    from opencluster_web.plots import answer, line_plot, live, shade_asked

    trail, shade = _trail(identity, figure), shade_asked()
    data_url = url_for("processes.data", identity=identity, figure=figure, shade=shade)
    source = live(trail.columns(shade), data_url)
    return answer(line_plot(source, trail.axis, trail.format), shade)


@blueprint.route("/trails/<identity>/<figure>/data")
def data(identity: str, figure: str) -> Response:
    """Send the line of such a plot as it is now."""
    from opencluster_web.plots import shade_asked

    return jsonify(_trail(identity, figure).columns(shade_asked()))


def _trail(identity: str, figure: str) -> Trail:
    trail = trail_of(figure, cluster_source().trail(identity))
    if trail is None:
        abort(404)
    return trail


def _figures(row: Row | None) -> list[Trail]:
    if row is None:
        return []
    kept = cluster_source().trail(row["id"])
    found = (trail_of(name, kept) for name in ("memory", "cpu"))
    return [trail for trail in found if trail is not None]


def _contents(name: str) -> dict[str, Any]:
    look = cluster_source().look()
    rows = _rows(look, name)
    row = rows[0] if rows else None
    deaths = [death for death in look.status["deaths"] if death["name"] == name]
    seen = look_at(_looks(look, row), question(Wanted(), LINES, [name]), {})
    errors = [error for error in seen.errors.values() if row is not None]
    return {
        "verdict": verdict_of(look),
        "name": name,
        "row": row,
        "rows": rows,
        "computer": _computer(look, row),
        "error": _error(row, errors),
        "deaths": [_death(death) for death in deaths[::-1][:DEATHS_SHOWN]],
        "messages": rows_of(seen.messages()),
        "silent": {who: harmless(why) for who, why in seen.silent.items()},
    }


def _rows(look: Look, name: str) -> list[Row]:
    """Return who has a name, that on the computer that is asked for first."""
    processes = (*look.status["workers"], *look.status["services"])
    host = request.args.get("host", "")
    own = [row for row in processes if row["name"] == name]
    return sorted(own, key=lambda row: row["host"] != host)


def _looks(look: Look, row: Row | None) -> dict[str, Any]:
    """Return whose logs may have that of a process: its computer's, or all."""
    looks = log_source().find().looks
    computer = _computer(look, row)
    return {computer: looks[computer]} if computer in looks else dict(looks)


def _computer(look: Look, row: Row | None) -> str:
    """Return the name of the computer that runs a process."""
    shops = look.status["workshops"]
    found = (shop["name"] for shop in shops if row and shop["id"] == row["workshop"])
    return next(found, "")


def _error(row: Row | None, errors: list[Any]) -> dict[str, Any] | None:
    """Return the piece that failed last, with its traceback if its workshop told it."""
    brief = row["last_error"] if row else None
    if brief is None:
        return None
    told = [str(e.get("traceback", "")) for e in errors if e.get("at") == brief["at"]]
    return {
        **{name: harmless(str(brief[name])) for name in ("piece", "kind", "message")},
        "at": brief["at"],
        "traceback": "\n".join(shown("".join(told[:1]).splitlines())),
    }


def _death(death: Row) -> dict[str, Any]:
    output = "\n".join(shown(death["output"].splitlines()))
    return {**death, "reason": harmless(death["reason"]), "output": output}
