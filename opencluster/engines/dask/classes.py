"""How a class gets to Dask workers.

A class is named, as everywhere, by ``module:Class`` or ``path.py:Class``. What is in no
installed package goes by value as well, for workers that have no such file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack

from opencluster.config import Config
from opencluster.engines.classes import services_beside, worker_class
from opencluster.errors import ConfigError, NoSuitableWorker, OpenClusterError, indent
from opencluster.targets import load_class, target_of

INSTALLED = ("site-packages", "dist-packages")


class NotThere(OpenClusterError):
    """A class can be had here in no way; the message says why for each."""


class Recipes:
    """How the classes of one program are had elsewhere, worked out once for each.

    Parameters
    ----------
    config : Config
        Whose catalogue names classes that are not imported.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._made: dict[type, bytes] = {}

    def worker(self, type: str) -> tuple[bytes, str]:
        """Return the recipe of a worker type, and why there is none.

        It has those of the services in its module, which it may call.
        """
        try:
            cls = worker_class(type, self._config)
            if cls not in self._made:
                beside = services_beside(cls).items()
                services = {name: _recipe(service) for name, service in beside}
                self._made[cls] = msgpack.packb([_recipe(cls), services])
        except NoSuitableWorker as error:
            return b"", str(error)
        return self._made[cls], ""


def digest_of(recipe: bytes) -> bytes:
    """Return what tells a recipe from others."""
    return hashlib.sha256(recipe).digest()[:16]


def service_recipe(cls: type) -> bytes:
    """Return how a service's class is had."""
    packed: bytes = msgpack.packb(_recipe(cls))
    return packed


def load_worker(recipe: bytes) -> tuple[type, Mapping[str, bytes]]:
    """Return the class of a recipe, and the recipes of services beside it.

    Raises
    ------
    NotThere
        When it cannot be had.
    """
    own, services = msgpack.unpackb(recipe)
    return _load(own), {name: msgpack.packb(row) for name, row in services.items()}


def load_service(recipe: bytes) -> type:
    """Return a service's class.

    Raises
    ------
    NotThere
        When it cannot be had.
    """
    return _load(msgpack.unpackb(recipe))


def _recipe(cls: type) -> list[Any]:
    """Return where a class is, the digest of that file, and the class by value."""
    try:
        target = target_of(cls)
    except ConfigError:
        target = ""
    source, _, _ = target.rpartition(":")
    digest = _digest(Path(source)) if source.endswith(".py") else b""
    pickled, why = _pickled(cls)
    return [target, digest, pickled, why]


def _pickled(cls: type) -> tuple[bytes, str]:
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None) or ""
    if cls.__module__ != "__main__" and any(part in file for part in INSTALLED):
        return b"", "its package is to be installed there"
    import cloudpickle

    top = sys.modules.get(cls.__module__.partition(".")[0])
    by_value = [top] if top is not None and cls.__module__ != "__main__" else []
    try:
        for one in by_value:
            cloudpickle.register_pickle_by_value(one)
        return cloudpickle.dumps(cls), ""
    except Exception as error:
        return b"", f"by value it cannot be sent: {type(error).__name__}: {error}"
    finally:
        for one in by_value:
            cloudpickle.unregister_pickle_by_value(one)


def _load(recipe: list[Any]) -> type:
    target, digest, pickled, why = recipe
    reasons = []
    source, _, name = target.rpartition(":")
    try:
        if source.endswith(".py"):
            if _digest(Path(source)) == digest:
                return _from_file(Path(source), name, digest)
            reasons.append(f"{source} is not there, or is another file")
        elif target:
            found = getattr(importlib.import_module(source), name)
            if isinstance(found, type):
                return found
    except Exception as error:
        reasons.append(f"{target}: {type(error).__name__}: {error}")
    try:
        if pickled:
            cls: type = pickle.loads(pickled)
            return cls
        reasons.append(why)
    except Exception as error:
        reasons.append(f"sent by value: {type(error).__name__}: {error}")
    raise NotThere("\n".join(reasons))


_files: dict[tuple[Path, bytes], ModuleType] = {}
"""Modules that were made of files here, by path and what stood in it."""


def _from_file(path: Path, name: str, digest: bytes) -> type:
    key = path, digest
    for imported in ("__main__", path.stem):
        module = sys.modules.get(imported)
        if module is None or module in _files.values():
            continue
        if getattr(module, "__file__", None) == str(path):
            # such as in a manager's own process, which may have Dask workers in it
            _files.setdefault(key, module)
    if key not in _files:
        _files[key] = sys.modules[load_class(f"{path}:{name}").__module__]
    found: type = getattr(_files[key], name)
    return found


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b"nothing"


def not_there(type: str, where: str, reasons: str) -> NoSuitableWorker:
    """Return the error for a class that a Dask worker cannot get."""
    return NoSuitableWorker(
        f"the Dask worker {where} cannot get the class of type {type!r}:\n"
        f"{indent(reasons)}"
    )
