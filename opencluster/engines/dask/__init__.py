"""The engine on a Dask cluster: the manager's side, and what Dask workers run.

Dask workers import modules of this folder and need no engine, so it is loaded late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencluster.config import Config
from opencluster.place import Place

if TYPE_CHECKING:
    from opencluster.engines.dask.engine import DaskEngine


def connect(config: Config, place: Place) -> DaskEngine:
    """Return an engine on the Dask cluster that the settings name."""
    from opencluster.engines.dask.client import open_client, scheduler_of
    from opencluster.engines.dask.engine import DaskEngine

    client, is_ours = open_client(scheduler_of(config))
    return DaskEngine(config, client, is_ours)
