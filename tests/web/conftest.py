"""An archive for all tests, an application that shows it, and a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.templating import Environment
from flask.testing import FlaskClient
from gallery_tools import ReadingClient, make_archive
from jinja2 import FileSystemBytecodeCache
from sign_in import signed_in

from muser_pipeline.realtime.index import ImageRecord
from opencluster.place import Place
from opencluster_web.accounts.guard import Role
from opencluster_web.application import WebSettings, close_app, create_app
from opencluster_web.serving import WebServer


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ImageRecord]]:
    """Return a folder with 200 images, and what is known of them. Not to be changed."""
    folder = tmp_path_factory.mktemp("images")
    return folder, make_archive(folder)


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hash passwords with little work, as there are many in tests, and short-lived."""
    hasher = partial(PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opencluster_web.accounts.passwords.PasswordHasher", hasher)
        yield


@pytest.fixture(scope="session", autouse=True)
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile each template once, and not for each application anew."""
    cache = FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
    with pytest.MonkeyPatch.context() as patch:
        kept = partial(Environment, bytecode_cache=cache)
        patch.setattr(Flask, "jinja_environment", kept)
        yield


@pytest.fixture
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where an application may keep its accounts."""
    return tmp_path_factory.mktemp("accounts") / "web.db"


@pytest.fixture
def open_pages(accounts: Path) -> Iterator[Callable[[Path], FlaskClient]]:
    """Return what makes a client of an application for a folder."""
    given: dict[str, Any] = {"accounts": accounts, "guests": True}
    with ExitStack() as ending:

        def opened(folder: Path, **settings: Any) -> FlaskClient:
            app = create_app(WebSettings(folder, **given | settings))
            ending.callback(close_app, app)
            app.test_client_class = ReadingClient
            return app.test_client()

        yield opened


@pytest.fixture
def client(
    open_pages: Callable[[Path], FlaskClient],
    archive: tuple[Path, list[ImageRecord]],
) -> FlaskClient:
    return open_pages(archive[0])


@pytest.fixture
def serve(accounts: Path) -> Iterator[Callable[..., WebServer]]:
    """Return what starts a server; all have ended with the test."""
    given: dict[str, Any] = {"accounts": accounts, "guests": True}
    with ExitStack() as ending:

        def started(folder: Path, **settings: Any) -> WebServer:
            app = create_app(WebSettings(folder, **given | settings))
            server = WebServer(app, "127.0.0.1", 0)
            thread = threading.Thread(target=server.run)
            thread.start()
            ending.callback(thread.join)
            ending.callback(server.stop)
            return server

        yield started


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Flask]:
    """Yield an application that knows nobody yet, of a cluster that is not there."""
    place = Place(tmp_path / "cluster")
    app = create_app(WebSettings(None, place=place, accounts=tmp_path / "web.db"))
    app.test_client_class = ReadingClient
    yield app
    close_app(app)


@pytest.fixture
def anonymous(application: Flask) -> FlaskClient:
    return application.test_client()


@pytest.fixture
def as_observer(application: Flask) -> FlaskClient:
    return signed_in(application, Role.OBSERVER)


@pytest.fixture
def as_operator(application: Flask) -> FlaskClient:
    return signed_in(application, Role.OPERATOR)


@pytest.fixture
def as_administrator(application: Flask) -> FlaskClient:
    return signed_in(application, Role.ADMINISTRATOR)
