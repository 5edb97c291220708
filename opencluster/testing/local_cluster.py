"""A cluster of real processes on this computer, in a temporary directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opencluster.config import load
from opencluster.engines.choice import ENGINE_VARIABLE, close_engines, look_again
from opencluster.errors import FactoryUnreachable
from opencluster.launchers import embedded
from opencluster.net.control import Control
from opencluster.place import (
    DIRECTORY_VARIABLE,
    FACTORIES_VARIABLE,
    KEYS_VARIABLE,
    Place,
)


class LocalCluster:
    """A context manager that starts a cluster and ends it.

    Inside the block, managers and commands of this process find the cluster by
    themselves.

    Parameters
    ----------
    workers : mapping of str to int, optional
        How many of each: ``{"wordcount.py:WordCountWorker": 2}``.
    settings : mapping of str to object, optional
        Settings for the cluster and this process: ``{"worker.max_pieces": 5}``.
    wait : bool
        Begin the block when all of `workers` are ready, and not before.
    number_of_factories : int
        How many factories copy the registry.

    Attributes
    ----------
    place : Place
        The cluster's directory, with its logs.
    """

    def __init__(
        self,
        workers: Mapping[str, int] | None = None,
        settings: Mapping[str, object] | None = None,
        wait: bool = True,
        number_of_factories: int = 1,
    ) -> None:
        self._number_of_factories = number_of_factories
        self._workers = dict(workers or {})
        # whatever is set outside, this cluster is meant, and this one alone
        self._environment = {
            ENGINE_VARIABLE: "cluster",
            FACTORIES_VARIABLE: "",
            KEYS_VARIABLE: "",
        } | {
            f"OPENCLUSTER_{name.replace('.', '_', 1).upper()}": str(value)
            for name, value in (settings or {}).items()
        }
        self._is_waiting = wait
        self._before: dict[str, str | None] = {}
        self._control: Control | None = None
        self.place = Place(Path())

    def __enter__(self) -> LocalCluster:
        self.place = Place(Path(tempfile.mkdtemp(prefix="opencluster-")))
        ours = self._environment | {DIRECTORY_VARIABLE: str(self.place.path)}
        self._before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        look_again()
        options = ["--only"]
        for name, count in self._workers.items():
            options += ["--workers", f"{name}={count}"]
        try:
            embedded.start(
                self.place,
                options,
                while_pid=os.getpid(),
                number_of_factories=self._number_of_factories,
            )
            # kept, as tests ask again and again
            self._control = embedded.control_of(load(), self.place)
            if self._is_waiting:
                embedded.await_processes(self.place, load())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        close_engines(self.place)
        embedded.stop(self.place)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(self.place.path, ignore_errors=True)

    def ask_factory(
        self, operation: str, arguments: Mapping[str, Any] | None = None
    ) -> Any:
        """Ask the factory something: ``status``, for one."""
        return self._connected().factory(operation, arguments)

    def ask_workshop(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Ask the workshop something: ``scale``, for one."""
        control = self._connected()
        shop = control.factory("find", {"kind": "workshop"})[0]
        return control.workshop(shop, operation, arguments, 60.0)

    def _connected(self) -> Control:
        if self._control is None:
            raise FactoryUnreachable("the cluster is there within its block alone")
        return self._control
