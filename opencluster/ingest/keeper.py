"""A thread that writes down what was received and what has ended, many at a time.

Whoever asks goes on; what came of it is told when it is on disk. All that is asked for
while the disk is busy is written down together, with one sync.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from opencluster.store.spool import Draft, Ending, Spool, Stored

log = logging.getLogger(__name__)

TOGETHER = 256
"""Most that is written down at a time."""
RETRY_S = 1.0
"""After so long the end of an item is tried again that could not be written down."""

Kept = Callable[[Any, Draft, Stored | None, str], None]
"""Called with what `Keeper.keep` was given, the item or ``None``, and what failed."""


class Keeper:
    """Writes into a spool.

    Parameters
    ----------
    spool : Spool
        Where to.
    on_kept : callable
        Called in the thread with each item, see `Kept`.
    on_ended : callable
        Called in the thread when the ends of items are on disk.
    on_broken : callable
        Called in the thread with what ends it, which nobody has foreseen.
    """

    def __init__(
        self,
        spool: Spool,
        on_kept: Kept,
        on_ended: Callable[[list[Ending]], None],
        on_broken: Callable[[BaseException], None],
    ) -> None:
        self._spool = spool
        self._on_kept = on_kept
        self._on_ended = on_ended
        self._on_broken = on_broken
        self._orders: SimpleQueue[tuple[Any, Draft] | Ending | None] = SimpleQueue()
        self._overdue: list[Ending] = []
        self._thread = threading.Thread(
            target=self._run, name="ingest-keeper", daemon=True
        )
        self._thread.start()

    def keep(self, sender: Any, draft: Draft) -> None:
        """Have an item written down that is whole."""
        self._orders.put((sender, draft))

    def end(self, ending: Ending) -> None:
        """Have it written down what became of an item."""
        self._orders.put(ending)

    def close(self) -> None:
        """Write down what was asked for, and end."""
        self._orders.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self._on_broken(error)

    def _serve(self) -> None:
        is_open = True
        while is_open:
            drafts: list[tuple[Any, Draft]] = []
            endings, self._overdue = self._overdue, []
            for order in self._taken(RETRY_S if endings else None):
                if order is None:
                    is_open = False
                elif isinstance(order, Ending):
                    endings.append(order)
                else:
                    drafts.append(order)
            self._write_down(drafts, endings)

    def _taken(self, wait_s: float | None) -> list[tuple[Any, Draft] | Ending | None]:
        taken = []
        try:
            taken.append(self._orders.get(timeout=wait_s))
            while len(taken) < TOGETHER:
                taken.append(self._orders.get_nowait())
        except Empty:
            pass
        return taken

    def _write_down(
        self, drafts: Sequence[tuple[Any, Draft]], endings: list[Ending]
    ) -> None:
        try:
            kept = self._spool.commit([draft for _, draft in drafts], endings)
        except OSError as error:
            log.warning("the spool could not be written: %s", error.strerror or error)
            for sender, draft in drafts:
                self._on_kept(sender, draft, None, error.strerror or str(error))
            if drafts and endings:
                # the room of what is not kept may be all that was missing
                self._write_down([], endings)
            else:
                self._overdue = endings
            return
        for (sender, draft), item in zip(drafts, kept, strict=True):
            self._on_kept(sender, draft, item, "")
        if endings:
            self._on_ended(endings)
