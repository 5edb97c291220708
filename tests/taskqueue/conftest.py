"""Every test of the queue runs on both kinds of database."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dispatcher_tools import Scene
from postgres_server import PostgresServer
from queue_tools import Opener

from opencluster.engines.choice import ENGINE_VARIABLE

KINDS = ("sqlite", "postgresql")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Return where an empty queue is."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/tasks.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.fresh_url()


@pytest.fixture
def opener(url: str) -> Iterator[Opener]:
    """Open the queue as often as needed; all is closed at the end."""
    with ExitStack() as stack:
        yield Opener(url, stack)


@pytest.fixture
def scene(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Return a queue whose dispatchers' managers need no cluster."""
    monkeypatch.setenv(ENGINE_VARIABLE, "local")
    with (
        tempfile.TemporaryDirectory(prefix="oc-") as directory,
        ExitStack() as stack,
    ):
        yield Scene(url, Path(directory), stack)
