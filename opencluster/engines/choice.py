"""Find an engine by its name; one for each cluster in a process, made at first use."""

from __future__ import annotations

import atexit
import importlib
import os
import threading
from typing import cast

from opencluster.config import Config, load
from opencluster.engines.base import Engine
from opencluster.errors import ConfigError
from opencluster.place import DIRECTORY_VARIABLE, Place

ENGINE_VARIABLE = "OPENCLUSTER_ENGINE"
ENGINES = ("local", "process", "cluster")

_VARIABLES = (ENGINE_VARIABLE, DIRECTORY_VARIABLE, "XDG_STATE_HOME", "HOME")
"""What decides, besides the name, which engine is meant."""

_Asked = tuple[str | None, ...]
_engines: dict[tuple[str, Place], Engine] = {}
_found: dict[_Asked, Engine] = {}
"""By what was asked for: finding the place takes as long as a small piece does."""
_lock = threading.Lock()


def find_engine(name: str = "", config: Config | None = None) -> Engine:
    """Return the engine of a name for this process's cluster.

    Parameters
    ----------
    name : str, optional
        One of `ENGINES`; by default ``OPENCLUSTER_ENGINE``, else ``cluster``.
    config : Config, optional
        The settings.

    Raises
    ------
    ConfigError
        When there is no such engine.
    """
    asked = (name, *map(os.environ.get, _VARIABLES))
    return _found.get(asked) or _find(asked, config)


def _find(asked: _Asked, config: Config | None) -> Engine:
    chosen = asked[0] or os.environ.get(ENGINE_VARIABLE) or "cluster"
    if chosen not in ENGINES:
        raise ConfigError(
            f"there is no engine {chosen!r}; choose one of {', '.join(ENGINES)}"
        )
    key = (chosen, Place.find())
    with _lock:
        if key not in _engines:
            module = importlib.import_module(f"opencluster.engines.{chosen}")
            _engines[key] = cast(Engine, module.connect(config or load(), key[1]))
        _found[asked] = _engines[key]
        return _engines[key]


def close_engines(place: Place | None = None) -> None:
    """Give up what is unfinished in the engines of this process.

    Parameters
    ----------
    place : Place, optional
        Only in those of this cluster directory.
    """
    with _lock:
        _found.clear()
        keys = [key for key in _engines if place is None or key[1] == place]
        engines = [_engines.pop(key) for key in keys]
    for engine in engines:
        engine.close()


def _forget_engines() -> None:
    """Let a forked child make engines of its own: the threads are the parent's."""
    global _lock
    _lock = threading.Lock()
    _engines.clear()
    _found.clear()


atexit.register(close_engines)
os.register_at_fork(after_in_child=_forget_engines)
