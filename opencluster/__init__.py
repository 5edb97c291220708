"""OpenCluster: turn a script into a fault-tolerant cluster application.

Subclass `Worker` and write ``perform()``; subclass `Manager` and write
``schedule()``; exchange `WorkPiece` dictionaries.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opencluster.arrays import empty
    from opencluster.dispatcher import TaskDispatcher
    from opencluster.factory import Factory
    from opencluster.ingest import IngestServer
    from opencluster.manager import Manager
    from opencluster.mapping import Completed
    from opencluster.pool import ManagerPool
    from opencluster.references import DataRef
    from opencluster.service import Service, remote
    from opencluster.taskqueue import TaskQueue
    from opencluster.wire.codec import register_type
    from opencluster.worker import Worker
    from opencluster.workpiece import WorkPiece
    from opencluster.workshop import Workshop

__version__ = "0.1.0"

__all__ = [
    "Completed",
    "DataRef",
    "Factory",
    "IngestServer",
    "Manager",
    "ManagerPool",
    "Service",
    "TaskDispatcher",
    "TaskQueue",
    "WorkPiece",
    "Worker",
    "Workshop",
    "empty",
    "register_type",
    "remote",
]

_HOMES = {
    "Completed": "mapping",
    "DataRef": "references",
    "Factory": "factory",
    "IngestServer": "ingest",
    "Manager": "manager",
    "ManagerPool": "pool",
    "Service": "service",
    "TaskDispatcher": "dispatcher",
    "TaskQueue": "taskqueue",
    "WorkPiece": "workpiece",
    "Worker": "worker",
    "Workshop": "workshop",
    "empty": "arrays",
    "register_type": "wire.codec",
    "remote": "service",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that a worker loads no more."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
