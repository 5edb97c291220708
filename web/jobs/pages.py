"""The pages of jobs, what tells open ones of changes, and downloads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from opencluster.core.timeline import Timeline, rows, summary
from opencluster.errors import OpenClusterError
from opencluster.observe.job_orders import CANCEL, PRIORITY, order_job
from opencluster.observe.status import Row
from opencluster_web import security
from opencluster_web.accounts.guard import Role, actor, audited, needs
from opencluster_web.cluster.parts import Parts, changed, parts_of
from opencluster_web.cluster.source import cluster_source
from opencluster_web.events import Event, Streams
from opencluster_web.jobs.colours import hues_of
from opencluster_web.jobs.source import (
    RUNNING,
    STATES,
    Record,
    job_source,
    listed,
    whole,
)
from opencluster_web.jobs.words import took

LOOK_S = 1.0
"""Between two looks for an open page."""
SHOWN = 50
"""Jobs on a page."""
LOOKED_AT = 400
"""Jobs among which a page looks for those of a state."""
ORDER_WAIT_S = 2.0
"""A page waits so long for a manager to carry out an order."""
CSV = (
    *("piece", "pieces", "type", "worker", "host"),
    *("start_s", "duration_s", "outcome", "error"),
)

blueprint = Blueprint("jobs", __name__, url_prefix="/jobs")
blueprint.add_app_template_filter(took)


@blueprint.route("/")
def page() -> str:
    """Show the jobs, the newest first."""
    return render_template(
        "jobs/page.html",
        content=Markup(_list_parts()),
        live_url=url_for("jobs.live", **_asked()),
    )


@blueprint.route("/live")
def live() -> Response:
    """Tell the list of jobs what changed."""
    return _live(_list_parts)


@blueprint.route("/<id>")
def job(id: str) -> str:
    """Show one job."""
    security.allow_plots()
    row, record = _job(id)
    return render_template(
        "jobs/job.html",
        job=row,
        timeline=record.timeline if record else None,
        content=Markup(_job_parts(row, record)),
        legend=legend_of(record.timeline) if record else [],
        live_url=url_for("jobs.job_live", id=row["id"]) if _is_open(row) else "",
    )


@blueprint.route("/<id>/live")
def job_live(id: str) -> Response:
    """Tell the page of a job what changed."""
    return _live(lambda: _job_parts(*_job(id)))


@blueprint.route("/<id>/figure")
def figure(id: str) -> Response:
    """Send the timeline, for BokehJS to draw."""
    from opencluster_web.jobs.plots import Addresses, timeline_figure
    from opencluster_web.plots import answer, shade_asked

    shade = shade_asked()
    row, record = _recorded(id)
    addresses = Addresses(
        spans=url_for("jobs.spans", id=row["id"], shade=shade),
        rates=url_for("jobs.rates", id=row["id"], shade=shade),
        is_running=_is_open(row),
    )
    plot = timeline_figure(record.timeline, record.columns, shade, addresses)
    return answer(plot, shade)


@blueprint.route("/<id>/spans")
def spans(id: str) -> Response:
    """Send what is drawn of some time of a job."""
    from opencluster_web.jobs.columns import length_of, span_columns
    from opencluster_web.plots import shade_asked

    _, record = _recorded(id)
    timeline, columns = record.timeline, record.columns
    began_ms = 1e3 * float(timeline.job["started_at"])
    start = (_number("start", began_ms) - began_ms) / 1e3
    length = length_of(timeline, columns)
    end = (_number("end", began_ms + 1e3 * length) - began_ms) / 1e3
    return jsonify(span_columns(timeline, columns, start, end, shade_asked()))


@blueprint.route("/<id>/rates")
def rates(id: str) -> Response:
    """Send how many pieces a second ended."""
    from opencluster_web.jobs.columns import rate_columns
    from opencluster_web.plots import shade_asked

    _, record = _recorded(id)
    return jsonify(rate_columns(record.timeline, record.columns, shade_asked()))


@blueprint.route("/<id>/histogram")
def histogram(id: str) -> Response:
    """Send how long pieces took, for BokehJS to draw."""
    from opencluster_web.jobs.plots import histogram_figure
    from opencluster_web.plots import answer, shade_asked

    shade = shade_asked()
    _, record = _recorded(id)
    return answer(histogram_figure(record.timeline, record.columns, shade), shade)


@blueprint.route("/<id>.<any(json, csv, html):form>")
def download(id: str, form: str) -> Response:
    """Send all that is known of a job as a file."""
    row, record = _recorded(id)
    timeline = record.timeline
    if form == "json":
        text, kind = as_json(timeline), "application/json"
    elif form == "csv":
        text, kind = as_csv(timeline), "text/csv"
    else:
        from opencluster_web.jobs.report import report_html

        text, kind = report_html(timeline), "text/html"
    response = Response(text, mimetype=kind)
    name = f"job-{row['id']}.{form}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@blueprint.route("/<id>/cancel", methods=["POST"])
@needs(Role.OPERATOR)
def cancel(id: str) -> ResponseReturnValue:
    """Order the end of a job."""
    return _order(id, CANCEL, None, "cancel job")


@blueprint.route("/<id>/priority", methods=["POST"])
@needs(Role.OPERATOR)
def prioritise(id: str) -> ResponseReturnValue:
    """Order another priority of a job."""
    try:
        priority = int(request.form.get("priority", ""))
    except ValueError:
        abort(400, "A priority is a whole number, such as 10 or -1.")
    return _order(id, PRIORITY, priority, "change priority of job")


# --- what is downloaded -----------------------------------------------------


def as_json(timeline: Timeline) -> str:
    """Return all that is known of a job as one JSON object."""
    told = {"job": timeline.job, "summary": summary(timeline)}
    return json.dumps(told | {"spans": list(rows(timeline))}, default=repr)


def as_csv(timeline: Timeline) -> str:
    """Return the spans of a job as a table."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows(timeline):
        # what begins like a formula would be one in a spreadsheet
        writer.writerow({name: _plain(value) for name, value in row.items()})
    return file.getvalue()


def legend_of(timeline: Timeline) -> list[tuple[str, str]]:
    """Return each type and the name of its colour."""
    types = sorted(timeline.types)
    return list(zip(types, hues_of(types), strict=True))


# --- inside -----------------------------------------------------------------


def _live(rendered: Callable[[], str]) -> Response:
    streams: Streams = current_app.extensions["opencluster_streams"]
    shown: Parts = {}

    def news(last: str) -> Event | None:
        nonlocal shown
        now = parts_of(rendered())
        tiles, keys = changed(shown, now)
        shown = now
        if not tiles and keys is None:
            return None
        return Event("0", "tiles", json.dumps({"tiles": tiles, "keys": keys}))

    return streams.respond(news, "0", LOOK_S)


def _asked() -> dict[str, Any]:
    names = ("state", "name", "before")
    return {name: request.args[name] for name in names if request.args.get(name)}


def _list_parts() -> str:
    source, asked = cluster_source(), _asked()
    state, name = asked.get("state", ""), asked.get("name", "")
    look = source.look()
    wanted = LOOKED_AT if state or name else SHOWN + 1
    found = listed(
        look.status["jobs"],
        source.history,
        job_source().recorded(),
        wanted,
        _number("before", 0.0),
    )
    chosen = [
        row
        for row in found
        if (not state or row["state"] == state) and name.lower() in row["name"].lower()
    ]
    shown = chosen[:SHOWN]
    is_more = len(chosen) > SHOWN or (len(found) == wanted and wanted > SHOWN + 1)
    return render_template(
        "jobs/_list.html",
        jobs=shown,
        asked=asked,
        states=STATES,
        trouble=look.trouble,
        older=shown[-1]["started_at"] if shown and is_more else None,
    )


def _job(id: str) -> tuple[Row, Record | None]:
    """Return a job, and the record of its pieces if there is one."""
    source = cluster_source()
    found = [row for row in source.look().status["jobs"] if row["id"] == id]
    if not found and source.history is not None:
        found = [row for row in [source.history.job(id)] if row is not None]
    row = found[0] if found else None
    is_running = row is None or row["state"] == RUNNING
    record = job_source().record(id, is_running)
    if record is None and row is None:
        abort(404, f"Nothing is known of a job {id}. Those that are known: /jobs.")
    recorded = record.timeline.job if record is not None else {}
    job = whole(recorded | (row or {}) | {"id": id})
    if row is None and job["state"] == RUNNING:
        # nobody has heard of its end: its program was killed, or the factory is away
        job["state"] = "recorded"
    return job, record


def _recorded(id: str) -> tuple[Row, Record]:
    row, record = _job(id)
    if record is None:
        abort(404, f"There is no record of the pieces of job {id}.")
    if _is_open(row):
        record.timeline.job["elapsed_s"] = row["elapsed_s"]
    return row, record


def _is_open(row: Row) -> bool:
    return bool(row["state"] == RUNNING)


def _job_parts(row: Row, record: Record | None) -> str:
    return render_template("jobs/_job.html", job=row, record=record)


def _order(id: str, order: str, value: int | None, action: str) -> ResponseReturnValue:
    asking = actor()
    by = asking.name if asking else ""
    try:
        details = {} if value is None else {"priority": value}
        with audited(action, id, **details), job_source().control() as control:
            told = order_job(control, id, order, value, by, ORDER_WAIT_S)
        flash(f"{told[0].upper()}{told[1:]}.", "success")
    except OpenClusterError as error:
        flash(str(error), "danger")
    return redirect(url_for("jobs.job", id=id))


def _number(name: str, default: float) -> float:
    text = request.args.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        abort(400, f"{name} is a number.")
    if not -1e15 < value < 1e15:
        abort(400, f"{name} is no time.")
    return value


def _plain(value: Any) -> Any:
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t")
    return f"'{value}" if is_formula else value
