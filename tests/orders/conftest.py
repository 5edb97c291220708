"""One cluster for all tests of orders and letters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opencluster.testing import LocalCluster

PROGRAM = Path(__file__).with_name("order_programs.py")


@pytest.fixture(scope="session")
def program() -> Path:
    """The file with the workers."""
    return PROGRAM


@pytest.fixture(scope="module")
def cluster(program: Path) -> Iterator[LocalCluster]:
    names = ("Slow", "Ordered", "Suicide")
    workers = {f"{program}:{name}Worker": 1 for name in names}
    settings = {"workshop.restart_delay_s": 0.05, "manager.max_kills": 2}
    settings |= {"workshop.restart_delay_max_s": 0.1}
    settings |= {"cluster.heartbeat_interval_s": 0.2}
    with LocalCluster(workers, settings) as running:
        yield running
