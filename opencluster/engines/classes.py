"""Find the Worker or Service class of a type, for engines that run it themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TypeVar

from opencluster.config import Config
from opencluster.errors import NoSuitableWorker
from opencluster.service import Service, name_of
from opencluster.targets import load_class
from opencluster.worker import Worker, type_of

Base = TypeVar("Base")


def worker_class(type: str, config: Config) -> type[Worker]:
    """Return the Worker class of a type.

    A class that is imported already is found by its type, and of several the one that
    was defined last; else the catalogue (``[worker:NAME]``) says where it is.

    Raises
    ------
    NoSuitableWorker
        When there is none.
    """
    classes = {type_of(cls): cls for cls in _below(Worker)}
    if type in classes:
        return classes[type]
    for entry in config.catalogue:
        if entry.kind == "worker" and entry.type == type and entry.target:
            return load_class(entry.target)
    known = sorted(classes)
    raise NoSuitableWorker(
        f"no Worker class of type {type!r} is imported, and the catalogue has none; "
        f"imported are: {', '.join(known) or 'none'}. Import the module that defines "
        f"it, or add a section [worker:{type}] with target = MODULE:CLASS"
    )


def service_class(name: str, config: Config) -> type[Service]:
    """Return the Service class of a name.

    Raises
    ------
    NoSuitableWorker
        When there is none.
    """
    classes = {name_of(cls): cls for cls in _below(Service)}
    if name in classes:
        return classes[name]
    for entry in config.catalogue:
        if entry.kind == "service" and entry.type == name and entry.target:
            return load_class(entry.target)
    raise NoSuitableWorker(
        f"no Service class named {name!r} is imported, and the catalogue has none; "
        f"import its module, or add a section [service:{name}] with target"
    )


def services_beside(worker: type[Worker]) -> dict[str, type[Service]]:
    """Return the Service classes of a worker's module, by name.

    They are those that the worker is most likely to call.
    """
    names = vars(sys.modules[worker.__module__]).values()
    classes = [v for v in names if isinstance(v, type) and issubclass(v, Service)]
    return {name_of(cls): cls for cls in classes if cls is not Service}


def _below(cls: type[Base]) -> Iterator[type[Base]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _below(sub)
