"""Services on a Dask cluster: each is an actor on some Dask worker.

It is made when it is first called, for one client and all that the client's pieces
call, and ends with the client. Its calls run in threads, as many as the class says.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import call
from pkgutil import resolve_name
from typing import Any, cast

from opencluster.config import load
from opencluster.engines.classes import service_class
from opencluster.engines.dask.classes import load_service, service_recipe
from opencluster.engines.dask.messages import Answer, Parts, Row
from opencluster.engines.verdicts import failed
from opencluster.errors import NoSuitableWorker, indent
from opencluster.references import DataRef
from opencluster.service import Service, call_method
from opencluster.serving.outcomes import encoded, failure_of
from opencluster.wire import codec

HOST = f"{__name__}:ServiceHost"
MAX_LOSSES = 10
"""How often a service is made again that was lost with its Dask worker."""
MAX_BYTES = 1 << 40
"""What goes to a service is bounded by what Dask can send."""


class ServiceHost:
    """An actor that has a service, and calls its methods.

    Parameters
    ----------
    session : str
        Whose service it is.
    recipe : bytes
        How its class is had.
    """

    def __init__(self, session: str, recipe: bytes) -> None:
        try:
            self._service = cast(Service, load_service(recipe)())
            self._service.startup()
        except BaseException:
            raise NoSuitableWorker(traceback.format_exc()) from None
        self._threads = ThreadPoolExecutor(
            self._service.concurrency, "opencluster-call"
        )
        with _lock:
            _hosts.setdefault(session, []).append(self)

    async def call(self, method: str, parts: Parts) -> Answer:
        """Call a method in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._call, method, parts)

    def close(self) -> None:
        """Let the service tidy up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._service.shutdown()

    def _call(self, method: str, parts: Parts) -> Answer:
        status, value = "done", None
        try:
            args, kwargs = codec.decode(parts.payload, parts.buffers)
            value = call_method(self._service, method, args, kwargs)
        except BaseException as error:
            status, value = "failed", failure_of(error)
        payload, buffers, status = encoded(status, value, MAX_BYTES)
        # its memory is the service's, and is sent after this
        copies = [bytes(memoryview(buffer)) for buffer in buffers]
        return Answer.of("", [Row(status, payload, copies)])


_hosts: dict[str, list[ServiceHost]] = {}
_lock = threading.Lock()


def end_services(session: str) -> None:
    """End the services in this process of a client that is gone."""
    with _lock:
        hosts = _hosts.pop(session, [])
    for host in hosts:
        host.close()


class Caller:
    """Calls services for one client, or for pieces of one.

    Parameters
    ----------
    session : str
        Who the client is.
    recipes : mapping of str to bytes
        How classes of services are had that are known already.
    client : callable, optional
        Returns the Dask client; by default that of the Dask worker that this runs on.
    resolve : callable, optional
        Returns the value that a reference in a call stands for.
    """

    def __init__(
        self,
        session: str,
        recipes: Mapping[str, bytes],
        client: Callable[[], Any] | None = None,
        resolve: Callable[[DataRef], Any] | None = None,
    ) -> None:
        self._session = session
        self._recipes = dict(recipes)
        self._client = client or _client_here
        self._resolve = resolve
        self._actors: dict[str, Any] = {}
        self._lock = threading.Lock()

    def call(
        self, service: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of a service, and return what it returns.

        Raises
        ------
        NoSuitableWorker
            When there is no such service, and its class cannot be had.
        PieceFailed
            What the method raised.
        """
        refs: list[DataRef] = []
        payload, buffers = codec.encode([list(args), dict(kwargs)], "call", refs)
        if refs and self._resolve is not None:
            call = codec.decode(payload, buffers, self._resolve)
            payload, buffers = codec.encode(call, "call")
        with aside():
            actor = self._actor(service)
            try:
                # an actor looks for its client by itself
                with self._client().as_current():
                    answer = actor.call(method, Parts(payload, buffers)).result()
            except (OSError, RuntimeError, KeyError) as error:
                # the next call makes another one
                self._actors.pop(service, None)
                raise NoSuitableWorker(
                    f"service {service!r} was lost with its Dask worker during a call: "
                    f"{error}"
                ) from error
        _, (row,) = answer.rows()
        value = codec.decode(row.payload, row.buffers)
        if row.status == "failed":
            raise failed(value, service)
        return value

    def _actor(self, service: str) -> Any:
        """Return the actor, making it unless somebody did."""
        with self._lock:
            found = self._actors.get(service)
            if found is None or found[0].status in ("lost", "cancelled", "error"):
                found = self._actors[service] = self._made(service)
            return found[1]

    def _made(self, service: str) -> tuple[Any, Any]:
        recipe = self._recipes.get(service)
        if recipe is None:
            recipe = service_recipe(service_class(service, load()))
            self._recipes[service] = recipe
        client = self._client()
        why: BaseException | None = None
        for attempt in range(MAX_LOSSES):
            # all callers try the same names, and so come to the same actor
            key = f"service-{service}-{self._session}-{attempt}"
            graph = {key: (call, (resolve_name, HOST), self._session, recipe)}
            (future,) = client.get(graph, [key], sync=False, actors=True)
            try:
                return future, future.result()
            except NoSuitableWorker as error:
                why = error
                break
            except Exception as error:
                why = error
        raise NoSuitableWorker(
            f"service {service!r} does not start on the Dask cluster:\n"
            f"{indent(str(why))}"
        ) from why


def _client_here() -> Any:
    from distributed import get_client

    return get_client()


@contextmanager
def aside() -> Iterator[None]:
    """Leave the thread of a Dask worker to others while this one only waits."""
    from distributed import rejoin, secede
    from distributed.worker import thread_state

    if getattr(thread_state, "key", None) is None:
        yield
        return
    secede()
    try:
        yield
    finally:
        rejoin()
