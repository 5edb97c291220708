"""A factory with keys, and whoever comes to it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from security_site import Computer, KeyedManager, Site
from security_tools import Client, RunningFactory, loaded

from opencluster.engines import directory as directories
from opencluster.net.keyfiles import make_keys
from opencluster.net.keys import Keyring


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with one certificate of each role."""
    made = tmp_path / "keys"
    make_keys(made)
    return made


@pytest.fixture
def factory(directory: Path, tmp_path: Path) -> Iterator[RunningFactory]:
    running = RunningFactory(directory, tmp_path / "state")
    yield running
    running.stop()


@pytest.fixture
def clients(
    factory: RunningFactory, directory: Path
) -> Iterator[Callable[[str | Keyring | None], Client]]:
    """Yield what makes a client of a role, with certain keys, or without any."""
    made: list[Client] = []

    def make(keys: str | Keyring | None, endpoint: str = "") -> Client:
        keys = loaded(directory, keys) if isinstance(keys, str) else keys
        made.append(Client(endpoint or factory.endpoint, keys))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    path = Path(tempfile.mkdtemp())
    made = Site(path)
    try:
        yield made
    finally:
        made.control.close()
        for computer in reversed(made.computers):
            computer.stop()
        shutil.rmtree(path)


@pytest.fixture
def alice(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyedManager]:
    """Yield a manager on another computer: what is local elsewhere it cannot reach."""
    monkeypatch.setattr(directories, "host_id", lambda: "another computer")
    computer = Computer(Path(tempfile.mkdtemp(dir=site.path)), site.address)
    engine = computer.hand(site.head.keys, "alice").engine()
    yield KeyedManager(engine)
    engine.close()
