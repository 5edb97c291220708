"""What the engine on Dask makes of Dask is measured; how much that is is not judged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dask_site import on_dask

from bench import dask


@pytest.mark.processes
def test_dask_and_the_engine_are_measured_side_by_side(
    monkeypatch: pytest.MonkeyPatch, dask_address: str
) -> None:
    @contextmanager
    def site() -> Iterator[Any]:
        from distributed import Client

        with (
            on_dask(dask_address, {}),
            Client(dask_address, set_as_default=False) as client,
        ):
            yield client

    monkeypatch.setattr(dask, "_site", site)
    monkeypatch.setattr(dask, "QUICK_PIECES", 20)
    monkeypatch.setattr(dask, "QUICK_BLOCKS", 2)
    figures = dask.measure(is_quick=True)
    assert [figure.measure for figure in figures[::3]] == ["noops", "blocks", "results"]
    assert [figure.name for figure in figures[:3]] == ["dask", "OpenCluster", "ratio"]
    assert all(math.isfinite(r) and r > 0 for f in figures for r in f.runs)
