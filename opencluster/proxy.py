"""What stands for a service in the programs that call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opencluster.engines.base import Engine


class ServiceProxy:
    """A service, as its callers see it: its remote methods are methods of this.

    Parameters
    ----------
    engine : Engine
        What makes the calls.
    name : str
        The service's name.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)

        def call(*args: Any, **kwargs: Any) -> Any:
            return self._engine.call(self._name, method, args, kwargs)

        call.__name__ = method
        return call

    def __repr__(self) -> str:
        return f"<service {self._name}>"
