"""An archive for all tests, an application that shows it, and a real server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from gallery_tools import ReadingClient, make_archive

from muser_pipeline.realtime.index import ImageRecord
from opencluster_web.application import WebSettings, close_app, create_app
from opencluster_web.serving import WebServer


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ImageRecord]]:
    """Return a folder with 200 images, and what is known of them. Not to be changed."""
    folder = tmp_path_factory.mktemp("images")
    return folder, make_archive(folder)


@pytest.fixture
def open_pages() -> Iterator[Callable[[Path], FlaskClient]]:
    """Return what makes a client of an application for a folder."""
    with ExitStack() as ending:

        def opened(folder: Path, **settings: Any) -> FlaskClient:
            app = create_app(WebSettings(folder, **settings))
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
def serve() -> Iterator[Callable[..., WebServer]]:
    """Return what starts a server; all have ended with the test."""
    with ExitStack() as ending:

        def started(folder: Path, **settings: Any) -> WebServer:
            app = create_app(WebSettings(folder, **settings))
            server = WebServer(app, "127.0.0.1", 0)
            thread = threading.Thread(target=server.run)
            thread.start()
            ending.callback(thread.join)
            ending.callback(server.stop)
            return server

        yield started
