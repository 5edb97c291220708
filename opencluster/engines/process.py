"""The engine on processes of this computer: a private cluster for one program.

It is a cluster like any other, with a factory and a workshop of its own in a
temporary directory, that ends with this process however that ends. Workers of a type
are started when the type is first asked for, one for each core.
"""

from __future__ import annotations

import builtins
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from opencluster.config import Config
from opencluster.engines.base import Done, Job, Options, Outcome, Where, WorkerInfo
from opencluster.engines.classes import (
    service_class,
    services_beside,
    worker_class,
)
from opencluster.engines.cluster import ClusterEngine
from opencluster.engines.verdicts import no_worker
from opencluster.errors import NoSuitableWorker, StartFailed, indent
from opencluster.launchers import embedded
from opencluster.place import FACTORIES_VARIABLE, KEYS_VARIABLE, Place
from opencluster.references import DataRef
from opencluster.service import SERVICE_PREFIX, Service
from opencluster.targets import target_of

log = logging.getLogger(__name__)

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
        # factories and keys of the settings are those of a cluster that this is not
        config = replace(config, cluster=config.cluster.changed(factories=(), keys=""))
        try:
            embedded.start(
                self._own_place,
                ["--only"],
                while_pid=os.getpid(),
                environment={FACTORIES_VARIABLE: "", KEYS_VARIABLE: ""},
            )
        except BaseException:
            shutil.rmtree(self._directory_path, ignore_errors=True)
            raise
        # it ends with this program, and so does its directory
        super().__init__(config, self._own_place, has_records=False)

    def submit(
        self,
        type: str,
        pieces: Iterable[tuple[Any, Options]],
        done: Done,
        job: Job | None = None,
        is_awaited: bool = False,
    ) -> list[int]:
        """Take pieces, starting workers of their type when there are none yet."""
        rows = list(pieces)
        try:
            if not type.startswith(SERVICE_PREFIX):
                self._ensure(type)
        except NoSuitableWorker as error:
            return self._refuse(len(rows), done, error)
        return super().submit(type, rows, done, job, is_awaited)

    def workers(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the workers of a type, starting them when there are none yet."""
        self._ensure(type)
        return super().workers(type, wait_s)

    def scatter(self, values: Sequence[Any], where: Where) -> list[DataRef]:
        """Give values to workers to hold, starting those of a type that is named."""
        if where.type:
            self._ensure(where.type)
        elif not self._desk.roster.directory.joined(""):
            raise NoSuitableWorker(
                "no worker runs yet that could hold a value; name the type of those "
                "that need it, which are started then: to=TYPE"
            )
        return super().scatter(values, where)

    def call(
        self, service: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of a service, starting it when it does not run yet."""
        with self._start_lock:
            if service not in self._started:
                self._start_service(service, service_class(service, self.config))
        return super().call(service, method, args, kwargs)

    def close(self) -> None:
        """End the private cluster, and remove its files."""
        super().close()
        embedded.stop(self._own_place)
        shutil.rmtree(self._directory_path, ignore_errors=True)

    def _ensure(self, type: str) -> None:
        with self._start_lock:
            if type in self._started:
                return
            cls = worker_class(type, self.config)
            for name, service in services_beside(cls).items():
                self._try_service(name, service)
            count = len(os.sched_getaffinity(0))
            self._start_processes("worker", type, target_of(cls), count)

    def _try_service(self, name: str, cls: builtins.type[Service]) -> None:
        """Start a service that may be called; who does call it is told what failed."""
        try:
            if name not in self._started:
                self._start_service(name, cls)
        except NoSuitableWorker as error:
            log.warning("%s", error)

    def _start_service(self, name: str, cls: builtins.type[Service]) -> None:
        self._start_processes("service", name, target_of(cls), 1)

    def _refuse(self, count: int, done: Done, error: NoSuitableWorker) -> list[int]:
        numbers = self._numbers.take(count)
        for number in numbers:
            done(number, Outcome(error=error))
        return numbers

    def _start_processes(self, kind: str, type: str, target: str, count: int) -> None:
        entry = {"kind": kind, "name": type, "target": target}
        order = {"entry": entry, "count": count}
        with embedded.control_of(self.config, self._own_place) as control:
            shop = control.factory("find", {"kind": "workshop"})[0]
            try:
                control.workshop(shop, "start", order, START_TIMEOUT_S)
            except StartFailed as error:
                reason = f"{error}\n{indent(error.output)}"
                raise no_worker(type, reason, self.types()) from error
        self._started.add(type)
