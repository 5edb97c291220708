"""A Dask cluster for tests: a scheduler in this process, workers in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from dask_quiet import QUIET

from opencluster.engines.choice import close_engines

HOST = Path(__file__).with_name("dask_host.py")
DEADLINE_S = 60.0


@contextmanager
def dask_scheduler(port: int = 0) -> Iterator[str]:
    """Run a scheduler that has no workers, and yield its address."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=0,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",
            scheduler_port=port,
            dashboard_address=":0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=False,
        ) as cluster,
    ):
        yield cluster.scheduler_address


@contextmanager
def dask_workers(
    address: str, count: int, *types: str
) -> Iterator[subprocess.Popen[str]]:
    """Have a process with Dask workers that offer resources, as `HOST` takes them."""
    process = subprocess.Popen(
        [sys.executable, str(HOST), address, str(count), *types],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HOST.parent.parent)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "Dask workers do not start"
        yield process
    finally:
        process.communicate(timeout=DEADLINE_S)


@contextmanager
def on_dask(address: str, settings: Mapping[str, object]) -> Iterator[None]:
    """Have the engine dask use a scheduler, with some settings."""
    with with_settings({**settings, "dask.address": address}):
        yield


@contextmanager
def with_settings(settings: Mapping[str, object]) -> Iterator[None]:
    """Have engines made anew, with some settings, and end them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            variable = f"OPENCLUSTER_{name}".upper().replace(".", "_")
            patch.setenv(variable, str(value))
        close_engines()
        yield
        close_engines()
