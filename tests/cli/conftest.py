"""The command as users run it, each test in a directory of its own or in a cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_tools import Cli


@pytest.fixture
def cli() -> Iterator[Cli]:
    """Run commands; what they started has ended when the test has."""
    with _cli() as cli:
        yield cli


@pytest.fixture
def running(_cluster: Cli) -> Iterator[Cli]:
    """Run commands on a cluster that other tests of the module use as well.

    Nobody works in it when a test begins. The others leave jobs that it knows, logs,
    and names that are not given again: a test that looks for names has a type of its
    own.
    """
    yield _cluster
    _cluster.end_work()


@pytest.fixture(scope="module")
def _cluster() -> Iterator[Cli]:
    with _cli() as cli:
        cli.ok_here("start")
        yield cli


@contextmanager
def _cli() -> Iterator[Cli]:
    with tempfile.TemporaryDirectory(prefix="oc-cli-") as directory:
        cli = Cli(Path(directory))
        try:
            yield cli
        finally:
            cli.close()
