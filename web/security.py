"""What a browser may do with a page, and under which names it may ask for one."""

from __future__ import annotations

from collections.abc import Collection

from flask import Flask, Response, abort, g, request

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
"""No program and no style stands inside a page, so none needs a nonce; ``data:`` is for
the small pictures in the style sheets of Bootstrap and Bokeh."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


def protect(app: Flask, hosts: Collection[str]) -> None:
    """Let an application turn strange names away and send its headers with every page.

    Parameters
    ----------
    app : Flask
        The application.
    hosts : collection of str
        Names, without port, under which it may be asked. A page of somebody else, whose
        name was made to lead to this computer, cannot read from it then.
    """

    @app.before_request
    def check_host() -> None:
        name, colon, port = request.host.rpartition(":")
        asked = name if colon and port.isdecimal() else request.host
        if asked.lower() not in hosts:
            abort(421, f"This server is not known as {asked}.")

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", _policy())
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
        return response


def allow_plots() -> None:
    """Let Bokeh, on the page that is being made, add the styles of its plots.

    It builds style sheets as it draws and cannot be told a nonce for them. Programs are
    no freer than on other pages.
    """
    g.has_plots = True


def _policy() -> str:
    policy = dict(_POLICY)
    if g.get("has_plots"):
        policy["style-src"] += " 'unsafe-inline'"
    return "; ".join(f"{name} {value}" for name, value in policy.items())
