"""The document of the interface for programs, and how its requests are refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

from flask import Flask
from flask_smorest import Api, Blueprint

from opencluster import __version__
from opencluster.errors import (
    FactoryUnreachable,
    HistoryError,
    LetterError,
    NoSuchTask,
    OpenClusterError,
    QueueUnavailable,
)
from opencluster_web import failures
from opencluster_web.accounts.guard import Role, needs
from opencluster_web.api.schemas import ErrorSchema

PREFIX = "/api/v1"
STATUS_OF = (
    (FactoryUnreachable, 503),
    (HistoryError, 503),
    (QueueUnavailable, 503),
    (NoSuchTask, 404),
    (LetterError, 404),
    (OpenClusterError, 409),
)
"""Which refusal an error is; the first that fits counts."""
TITLES = {404: "Not there", 409: "This cannot be done", 503: "Out of reach"}
_IMAGES = {
    "/images": "List images behind a number, or of a time range.",
    "/images/latest": "Get the latest image of each band and polarisation.",
    "/images/<int:id>": "Get one image.",
}
"""What is only there with `opencluster web --images`."""


class _Api(Api):  # type: ignore[misc]
    """Leaves refusals to the application, that has one form for all."""

    ERROR_SCHEMA = ErrorSchema

    def __init__(self, app: Flask) -> None:
        self.unwritten: list[Callable[[], None]] = []
        self._writing = Lock()
        super().__init__(app)

    def document(self) -> dict[str, Any]:
        """Return the document, which is written when it is asked for first."""
        with self._writing:
            while self.unwritten:
                self.unwritten[0]()
                del self.unwritten[0]
        return dict(self.spec.to_dict())

    def _register_error_handlers(self) -> None:
        pass

    def _openapi_json(self) -> Any:
        self.document()
        return super()._openapi_json()


class _Blueprint(Blueprint):  # type: ignore[misc]
    """Is written into the document later, as that takes longer than all the rest."""

    def register_views_in_doc(self, api: _Api, *about: Any, **more: Any) -> None:
        api.unwritten.append(
            partial(super().register_views_in_doc, api, *about, **more)
        )


def new_blueprint(name: str, describes: str) -> Blueprint:
    """Return a part of the interface."""
    return _Blueprint(name, __name__, url_prefix=PREFIX, description=describes)


def register(app: Flask, *blueprints: Blueprint) -> None:
    """Add the interface for programs to an application.

    Parameters
    ----------
    app : Flask
        The application.
    *blueprints : Blueprint
        Its parts.
    """
    app.config.update(
        API_TITLE="OpenCluster",
        API_VERSION=__version__,
        OPENAPI_VERSION="3.0.3",
        OPENAPI_URL_PREFIX=PREFIX,
        OPENAPI_JSON_PATH="openapi.json",
    )
    api = _Api(app)
    api.spec.components.security_scheme(
        "token",
        {
            "type": "http",
            "scheme": "bearer",
            "description": "Made on /account, or by `opencluster web token`.",
        },
    )
    api.spec.options["security"] = [{"token": []}]
    for blueprint in blueprints:
        api.register_blueprint(blueprint)
    api.unwritten.append(partial(_describe_images, api, app))

    @app.errorhandler(OpenClusterError)
    def refused(error: OpenClusterError) -> Any:
        code = next(code for kind, code in STATUS_OF if isinstance(error, kind))
        return failures.answer(code, TITLES[code], str(error))


def _describe_images(api: _Api, app: Flask) -> None:
    """Write down what MUSER's part adds, which knows nothing of documents."""
    for rule in app.url_map.iter_rules():
        what = _IMAGES.get(rule.rule.removeprefix(PREFIX))
        if what is not None:
            answers = {"200": {"description": "Records of images."}}
            operation = {"summary": what, "responses": answers}
            api.spec.path(rule=rule, operations={"get": operation})


def document(app: Flask) -> dict[str, Any]:
    """Return the document of an application, as JSON has it."""
    api: _Api = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    return api.document()


def refusals(
    blueprint: Blueprint, *codes: int
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Note in the document how a view may refuse, beside what all have in common."""

    def noted(view: Callable[..., Any]) -> Callable[..., Any]:
        for code in sorted({*codes, 400, 401, 403, 421}):
            view = blueprint.alt_response(code, schema=ErrorSchema)(view)
        return view

    return noted


def deed(
    blueprint: Blueprint, path: str, role: Role, schema: Any, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a view by which something is done, for who has a role.

    Parameters
    ----------
    blueprint : Blueprint
        The part of the interface.
    path : str
        Its address.
    role : Role
        Who may.
    schema : type of Schema
        What is answered.
    **options
        Further ones of ``route``.
    """

    def added(view: Callable[..., Any]) -> Callable[..., Any]:
        answered = blueprint.response(200, schema)(needs(role)(view))
        told = refusals(blueprint, 404, 409, 415, 422, 503)(answered)
        options.setdefault("methods", ["POST"])
        added_view: Callable[..., Any] = blueprint.route(path, **options)(told)
        return added_view

    return added
