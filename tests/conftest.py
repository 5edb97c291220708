"""For all tests: nothing of a test run may outlive it."""

from __future__ import annotations

import gc
import os
import tempfile
import uuid
from collections.abc import Generator, Iterator

import pytest
from dask_site import dask_scheduler, dask_workers
from postgres_server import PostgresServer
from traces import VARIABLE, Traces

from opencluster.engines.choice import close_engines

SHORT = 30
"""Characters of a temporary directory in which sockets of tests find room."""


def pytest_configure() -> None:
    """Keep temporary files in a place with a short name, as sockets lie among them."""
    if len(tempfile.gettempdir()) > SHORT:
        os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have the garbage collector look at what the tests make, and at nothing else.

    What their modules bring stays to the end: a million objects, which takes a second
    each time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """Fail at the end of the run when a process, a file or shared memory is left.

    Holds for each process of a parallel run by itself.
    """
    # decided before the temporary directory changes, so that pytest keeps its own
    tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        traces = Traces(uuid.uuid4().hex)
        patch.setenv(VARIABLE, traces.mark)
        patch.setenv("TMPDIR", str(traces.directory))
        patch.setattr(tempfile, "tempdir", None)
        yield traces
        close_engines()
        found = traces.left_at_last()
        traces.remove()
    assert not found, "left behind by this run:\n" + "\n".join(found)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


# not for the session: even idle, Dask takes a few percent of a core
@pytest.fixture(scope="module")
def dask_address(traces: Traces) -> Iterator[str]:
    """Return the address of a Dask scheduler that has two workers for the engines."""
    types = ("Tool", "Data", "Join", "Double", "Echo", "Spare")
    of_one = ("first", "Solo", "Pair=2")
    with dask_scheduler() as address, dask_workers(address, 2, *types, *of_one):
        yield address
