"""A cluster directory of its own for each test, and the command as users run it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import Cli


@pytest.fixture
def cli() -> Iterator[Cli]:
    """Run commands; what they started has ended when the test has."""
    with tempfile.TemporaryDirectory(prefix="oc-cli-") as directory:
        cli = Cli(Path(directory))
        try:
            yield cli
        finally:
            cli.close()
