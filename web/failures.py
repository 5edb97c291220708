"""What is answered when a page cannot be: a page for people, JSON for programs."""

from __future__ import annotations

import logging

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
    return answer(code, error.name, message)


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
