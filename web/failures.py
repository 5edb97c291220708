"""What is answered when a page cannot be: a page for people, JSON for programs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Flask, Response, jsonify, make_response, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

log = logging.getLogger(__name__)

API = "/api/"
"""Answers below it are JSON."""
_ADVICE = {
    400: "The address is not one that this page understands.",
    404: "Nothing is here. It may have been removed because it was old.",
    405: "This cannot be done here.",
    421: "Use the name under which the server was started.",
}


def register(app: Flask) -> None:
    """Let an application answer errors in its own form."""
    app.register_error_handler(HTTPException, _refused)
    app.register_error_handler(Exception, _broken)


def _refused(error: HTTPException) -> ResponseReturnValue:
    if error.response is not None:
        return error.get_response()
    code = error.code or 500
    is_ours = type(error).description != error.description
    message = (error.description if is_ours else "") or _ADVICE.get(code, "")
    wrong = getattr(error, "data", None) or {}
    return answer(code, error.name, "; ".join(_told(wrong.get("messages"))) or message)


def _told(wrong: Any, name: str = "") -> Iterator[str]:
    """Tell what is wrong with each field of a request."""
    if isinstance(wrong, Mapping):
        for key, inside in wrong.items():
            # where fields stand, and the whole, have no names for those who ask
            is_field = key not in ("query", "json", "_schema")
            yield from _told(inside, str(key) if is_field else name)
    elif wrong:
        sentences = wrong if isinstance(wrong, list) else [wrong]
        yield from (f"{name}: {each}" if name else str(each) for each in sentences)


def _broken(error: Exception) -> Response:
    log.exception("a page failed: %s", request.path, exc_info=error)
    message = "This is a defect. The server's log has the details."
    return answer(500, "This page failed", message)


def answer(code: int, title: str, message: str) -> Response:
    """Return an answer that says what is wrong, in the form that was asked for."""
    if request.path.startswith(API):
        response = jsonify(error={"status": code, "title": title, "message": message})
        response.status_code = code
        return response
    page = render_template("error.html", code=code, title=title, message=message)
    return make_response(page, code)
