"""The service: a process that everyone may call by name, several at a time.

Users subclass `Service` and mark methods with `remote`. A service is served like a
worker, but each call runs in a thread of its own and names the method that it wants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])

SERVICE_PREFIX = "service:"
"""Tells a service's name from a worker type where both are looked up."""


def remote(method: Method) -> Method:
    """Mark a method of a `Service` as callable from everywhere.

    Parameters
    ----------
    method : callable
        Its arguments and its result must be sendable.

    Returns
    -------
    callable
        The same method.
    """
    method.is_remote = True  # type: ignore[attr-defined]
    return method


class Service:
    """Answers calls of everyone; subclass it and mark methods with `remote`.

    Attributes
    ----------
    service_name : str
        The name that it registers; by default the class's name without ``Service``,
        in lower case.
    concurrency : int
        How many calls run at a time, each in a thread.
    log : logging.Logger
        Goes to the service's log file.
    """

    service_name: str = ""
    concurrency: int = 8
    log: logging.Logger = logging.getLogger("opencluster.service")

    def startup(self) -> None:
        """Prepare the process, before the first call."""

    def shutdown(self) -> None:
        """Tidy up, after the last call."""

    def ready(self, name: str = "", host: str = "*", port: int = 0) -> None:
        """Register and serve until the process is asked to stop.

        Parameters
        ----------
        name : str, optional
            The name; `service_name` by default.
        host, port
            As for `Worker.ready`.
        """
        # here, as whoever only calls such services is ready sooner without it
        from opencluster.serving.call_runner import CallRunner

        methods = [n for n in dir(self) if is_remote_method(self, n)]
        call = partial(call_method, self)
        name = name or name_of(type(self))
        CallRunner(self, name, methods, call).run(host, port)


def name_of(cls: type) -> str:
    """Return the name that a Service class registers."""
    named = str(getattr(cls, "service_name", ""))
    return named or cls.__name__.removesuffix("Service").lower() or cls.__name__


def call_method(service: Service, method: str, args: Any, kwargs: Any) -> Any:
    """Call a remote method of a service by name.

    Raises
    ------
    AttributeError
        When the service has no such method, or it is not marked with `remote`.
    """
    function = getattr(service, method, None)
    if not getattr(function, "is_remote", False) or function is None:
        known = [n for n in dir(service) if is_remote_method(service, n)]
        raise AttributeError(
            f"service {type(service).__name__} has no remote method {method!r}; "
            f"it has: {', '.join(known) or 'none'}"
        )
    return function(*args, **kwargs)


def is_remote_method(service: Service, name: str) -> bool:
    """Return whether an attribute of a service is a method marked with `remote`."""
    return bool(getattr(getattr(type(service), name, None), "is_remote", False))
