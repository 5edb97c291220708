"""Find an engine by its name; one for each cluster in a process, made at first use."""

from __future__ import annotations

import atexit
import importlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from opencluster.config import Config, load
from opencluster.errors import ConfigError
from opencluster.place import Place

if TYPE_CHECKING:
    from opencluster.engines.base import Engine

ENGINE_VARIABLE = "OPENCLUSTER_ENGINE"
ENGINES = ("local", "process", "cluster", "dask")
AT = "@"
"""Behind it stands where the engine is, in a name such as ``dask@tcp://node1:8786``."""

_engines: dict[tuple[str, Place], Engine] = {}
_lock = threading.Lock()


def engine_at(engine: str | None, dask_address: str | None) -> str | None:
    """Return the name of an engine, that of a Dask scheduler if one is named.

    Raises
    ------
    ConfigError
        When an address is given for another engine.
    """
    if not dask_address:
        return engine
    if engine not in (None, "", "dask"):
        raise ConfigError(f"an address of Dask is not for the engine {engine}")
    return f"dask{AT}{dask_address}"


def find_engine(name: str = "", config: Config | None = None) -> Engine:
    """Return the engine of a name for this process's cluster.

    Parameters
    ----------
    name : str, optional
        One of `ENGINES`; by default ``OPENCLUSTER_ENGINE``, else ``cluster``. The one
        of a certain Dask scheduler is ``dask@ADDRESS``.
    config : Config, optional
        The settings.

    Raises
    ------
    ConfigError
        When there is no such engine.
    """
    chosen = name or os.environ.get(ENGINE_VARIABLE) or "cluster"
    kind, _, address = chosen.partition(AT)
    if kind not in ENGINES or (address and kind != "dask"):
        raise ConfigError(
            f"there is no engine {chosen!r}; choose one of {', '.join(ENGINES)}"
        )
    key = (chosen, Place.find())
    with _lock:
        if key not in _engines:
            module = importlib.import_module(f"opencluster.engines.{kind}")
            config = config or load()
            if address:
                named = config.dask.changed(address=address, scheduler_file="")
                config = replace(config, dask=named)
            _engines[key] = module.connect(config, key[1])
        return _engines[key]


class EngineChoice:
    """The engine of one who asks for it again and again.

    Finding it takes as long as a small piece does. So it is kept until engines are
    closed, or the process is told to look again.

    Parameters
    ----------
    name : str
        As for `find_engine`.
    """

    __slots__ = ("_engine", "_name", "_round")

    def __init__(self, name: str) -> None:
        self._name = name
        self._round = -1
        self._engine: Engine | None = None

    def engine(self, config: Callable[[], Config]) -> Engine:
        """Return the engine; the settings are asked for when it is not known yet."""
        if self._engine is None or self._round != _rounds[0]:
            self._round = _rounds[0]
            self._engine = find_engine(self._name, config())
        return self._engine


_rounds = [0]
"""How often it was said that engines may be others now."""


def look_again() -> None:
    """Have everyone look for their engines anew: this process is in another place."""
    _rounds[0] += 1


def close_engines(place: Place | None = None) -> None:
    """Give up what is unfinished in the engines of this process.

    Parameters
    ----------
    place : Place, optional
        Only in those of this cluster directory.
    """
    with _lock:
        look_again()
        keys = [key for key in _engines if place is None or key[1] == place]
        engines = [_engines.pop(key) for key in keys]
    for engine in engines:
        engine.close()


def _forget_engines() -> None:
    """Let a forked child make engines of its own: the threads are the parent's."""
    global _lock
    _lock = threading.Lock()
    _engines.clear()
    look_again()


atexit.register(close_engines)
os.register_at_fork(after_in_child=_forget_engines)
