"""Raw frames to UVFITS files on a cluster: worker, manager and dispatcher."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muser_pipeline.batch.dispatcher import UVFITSTaskDispatcher
    from muser_pipeline.batch.manager import UVFITSManager
    from muser_pipeline.batch.request import Request
    from muser_pipeline.batch.worker import UVFITSWorker

__all__ = ["Request", "UVFITSManager", "UVFITSTaskDispatcher", "UVFITSWorker"]

_HOMES = {
    "Request": "request",
    "UVFITSManager": "manager",
    "UVFITSTaskDispatcher": "dispatcher",
    "UVFITSWorker": "worker",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first used: a worker needs no queue."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
