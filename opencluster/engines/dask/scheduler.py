"""What Dask's scheduler is taught about pieces of OpenCluster.

It is sent by value, since the scheduler need not have OpenCluster installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distributed import SchedulerPlugin

MARK = "opencluster"
"""Annotation of our tasks."""


def plugin() -> SchedulerPlugin:
    """Return what is registered with the scheduler.

    A worker's loss is told to whose piece it had, who decides about another run:
    Dask's own count is one for all tasks of the cluster. And when a client has gone,
    however that was, the workers end what they made for it.
    """
    from distributed import SchedulerPlugin
    from distributed.protocol.pickle import dumps

    # by value, as all that is defined in here
    def end(session: str) -> None:
        import sys

        module = sys.modules.get("opencluster.engines.dask.worker")
        if module is not None:
            module.end_session(session)

    class OpenClusterPieces(SchedulerPlugin):
        """Leaves it to managers how often their pieces are run."""

        name = "opencluster"
        idempotent = True

        def __init__(self, end: bytes) -> None:
            self.end = end
            self.sessions: set[str] = set()

        def update_graph(
            self,
            scheduler: Any,
            *,
            client: str,
            annotations: dict[str, Any],
            **others: Any,
        ) -> None:
            ours = annotations.get("opencluster", {})
            for key in ours:
                task = scheduler.tasks.get(key)
                if task is not None:
                    task.suspicious = scheduler.allowed_failures
            if ours:
                self.sessions.add(client)

        def remove_client(self, scheduler: Any, client: str) -> None:
            if client not in self.sessions:
                return
            self.sessions.discard(client)
            order = {
                "op": "run",
                "function": self.end,
                "args": dumps((client,)),
                "kwargs": dumps({}),
                "wait": True,
            }

            async def tell() -> None:
                await scheduler.broadcast(msg=order, on_error="ignore")

            scheduler.loop.add_callback(tell)

    return OpenClusterPieces(dumps(end))
