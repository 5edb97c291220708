"""The page of the logs, and what tells an open one of new messages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, render_template, request, url_for

from opencluster.core.log_lines import LEVELS
from opencluster.observe.logs import (
    Message,
    Positions,
    Seen,
    level_of,
    look_at,
    newest,
    shown,
)
from opencluster_web.cluster.source import cluster_source
from opencluster_web.events import Event, Streams
from opencluster_web.logs.choice import DAEMONS, Choice
from opencluster_web.logs.source import Found, log_source

SHOWN = 200
"""Messages of a page."""
KEPT = 1000
"""Messages that an open page keeps while it follows."""
FOLLOW_S = 1.0
"""Between two looks for an open page."""

blueprint = Blueprint("logs", __name__)


@blueprint.route("/logs")
def page() -> str:
    """Show the messages that are wanted, the newest last."""
    choice = Choice.of(request.args)
    found = _chosen(choice)
    seen = look_at(found.looks, choice.question(SHOWN, _processes()), {})
    messages = newest(seen.messages(SHOWN), SHOWN)
    asked = choice.asked
    status = cluster_source().look().status
    hosts = {row["name"] for row in status["workshops"]} | set(found.looks)
    return render_template(
        "logs/page.html",
        rows=rows_of(messages),
        choice=choice,
        asked=asked,
        trouble=found.trouble,
        silent=_silent(choice, found, seen),
        levels=LEVELS,
        hosts=sorted(hosts | {asked["host"]} if "host" in asked else hosts),
        types=sorted({row["type"] for row in _processes()}),
        processes=sorted({*DAEMONS, *(row["name"] for row in _processes())}),
        older=_older(messages, seen),
        kept=KEPT,
        follow_url=""
        if "until" in asked
        else f"{url_for('logs.follow')}?{urlencode(asked)}",
    )


@blueprint.route("/logs/follow")
def follow() -> Response:
    """Tell a page of the messages that it shows, then of those that come."""
    choice, processes = Choice.of(request.args), _processes()
    streams: Streams = current_app.extensions["opencluster_streams"]
    asked = choice.question(SHOWN, processes)
    positions: Positions = {}
    is_first, silent = True, dict[str, str]()

    def news(last: str) -> Event | None:
        nonlocal is_first, silent
        found = _chosen(choice)
        seen = look_at(found.looks, asked, positions)
        together = seen.messages(SHOWN * is_first)
        messages = newest(together, SHOWN if is_first else KEPT)
        away = _silent(choice, found, seen)
        if not messages and not is_first and away == silent:
            return None
        data = {
            "replace": is_first,
            "html": render_template("logs/_messages.html", rows=rows_of(messages)),
            "silent": render_template("logs/_silent.html", silent=away),
        }
        is_first, silent = False, away
        return Event("0", "messages", json.dumps(data))

    return streams.respond(news, "0", FOLLOW_S)


def rows_of(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages as the templates show them: clean, and not too long."""
    found = []
    for message in messages:
        lines = shown(message.lines)
        if message.head is not None:
            # its time, level and piece have places of their own
            head = message.head
            where = f" [{head.piece}]" if head.piece else ""
            start = len(f"{head.time} {head.level} {head.name}{where} ")
            lines[0] = shown([message.lines[0][start:]])[0]
        found.append(
            {
                "time": message.time[:23].replace("T", " "),
                "computer": message.computer,
                "process": message.process,
                "level": level_of(message),
                "is_printed": message.head is None,
                "says": message.head.name if message.head else "",
                "piece": message.head.piece if message.head else "",
                "first": lines[0],
                "rest": "\n".join(line.removeprefix("    ") for line in lines[1:]),
            }
        )
    return found


def _chosen(choice: Choice) -> Found:
    """Return the computers that are wanted."""
    found, host = log_source().find(), choice.asked.get("host", "")
    if not host:
        return found
    rows = cluster_source().look().status["workshops"]
    names = {row["name"] for row in rows if row["host"] == host} | {host}
    looks = {name: look for name, look in found.looks.items() if name in names}
    return Found(looks, found.trouble)


def _silent(choice: Choice, found: Found, seen: Seen) -> dict[str, str]:
    """Return who does not answer, and why."""
    host = choice.asked.get("host", "")
    if host and not found.looks:
        return {host: "it is not in the cluster now, and its logs are on its own disk"}
    return {name: shown([why])[0] for name, why in seen.silent.items()}


def _older(messages: Sequence[Message], seen: Seen) -> str:
    """Return before when to look for older messages; empty if there are none."""
    # a log of which fewer lines came than were asked for is read to its beginning
    is_more = any(len(own["lines"]) >= SHOWN for _, own in seen.passages)
    is_more = is_more or len(messages) < len(seen.messages(SHOWN))
    return messages[0].time if messages and is_more else ""


def _processes() -> list[dict[str, Any]]:
    status = cluster_source().look().status
    return [*status["workers"], *status["services"]]
