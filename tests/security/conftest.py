"""A factory with keys, and whoever comes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from security_tools import Client, RunningFactory, loaded

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
