"""The engine on processes of this computer: a private cluster for one program.

It is a cluster like any other, with a factory and a workshop of its own in a
temporary directory, that ends with this process however that ends. Workers of a type
are started when the type is first asked for, one for each core.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from opencluster.config import Config
from opencluster.engines.base import Done, Job, Options, WorkerInfo
from opencluster.engines.classes import service_class, worker_class
from opencluster.engines.cluster import ClusterEngine
from opencluster.launchers import local
from opencluster.net.control import Control
from opencluster.place import Place, factories
from opencluster.service import SERVICE_PREFIX
from opencluster.targets import target_of

START_TIMEOUT_S = 60.0
"""How long the processes of a type may take to become ready."""


def connect(config: Config, place: Place) -> ProcessEngine:
    """Return an engine on a private cluster."""
    return ProcessEngine(config)


class ProcessEngine(ClusterEngine):
    """Sends pieces to processes that it started itself.

    Parameters
    ----------
    config : Config
        The settings.
    """

    def __init__(self, config: Config) -> None:
        self._directory_path = Path(tempfile.mkdtemp(prefix="opencluster-"))
        self._own_place = Place(self._directory_path)
        self._started: set[str] = set()
        self._start_lock = threading.Lock()
        local.start(self._own_place, while_pid=os.getpid())
        super().__init__(config, self._own_place)

    def submit(
        self,
        type: str,
        pieces: Iterable[tuple[Any, Options]],
        done: Done,
        job: Job | None = None,
    ) -> list[int]:
        """Take pieces, starting workers of their type when there are none yet."""
        if not type.startswith(SERVICE_PREFIX):
            self._ensure(type)
        return super().submit(type, pieces, done, job)

    def workers(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the workers of a type, starting them when there are none yet."""
        self._ensure(type)
        return super().workers(type, wait_s)

    def call(
        self, service: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of a service, starting it when it does not run yet."""
        with self._start_lock:
            if service not in self._started:
                target = target_of(service_class(service, self.config))
                self._start_processes("service", service, target, 1)
        return super().call(service, method, args, kwargs)

    def close(self) -> None:
        """End the private cluster, and remove its files."""
        super().close()
        local.stop(self._own_place)
        shutil.rmtree(self._directory_path, ignore_errors=True)

    def _ensure(self, type: str) -> None:
        with self._start_lock:
            if type not in self._started:
                target = target_of(worker_class(type, self.config))
                count = len(os.sched_getaffinity(0))
                self._start_processes("worker", type, target, count)

    def _start_processes(self, kind: str, type: str, target: str, count: int) -> None:
        entry = {"kind": kind, "name": type, "target": target}
        order = {"entry": entry, "count": count}
        find = partial(factories, self.config, self._own_place)
        with Control(self.config, find) as control:
            shop = control.factory("find", {"kind": "workshop"})[0]
            control.workshop(shop, "start", order, START_TIMEOUT_S)
        self._started.add(type)
