"""Workers that stand in the registry and do not answer: which they are, and why.

Pieces go to nobody who has not answered. When one has not for some time, it is found
out why, and told: in the log, in the error of pieces that find no worker, and in the
report of a job. Must not decide who gets pieces.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from opencluster.core.entries import Entry
from opencluster.engines.directory import Contact, dispatched_type
from opencluster.net.reach import cannot_reach, here, look
from opencluster.net.reactor import Reactor

log = logging.getLogger(__name__)

GRACE_S = 2.0
"""How long a worker may take to answer before it is looked why it does not."""
LOOKS_AT_ONCE = 16
"""Connections that are opened at a time in order to find that out."""
BROKEN = "the connection to it broke"
TOLD = 5
"""Workers that a report of a job names; of the others it has the number."""


class Unreached:
    """The workers and services that a manager knows of and does not reach.

    Parameters
    ----------
    reactor : Reactor
        Whose thread all of this runs in, but for `of` and `texts`.
    is_missed : callable
        Returns whether somebody still stands in the registry and has not answered.
    """

    def __init__(self, reactor: Reactor, is_missed: Callable[[Contact], bool]) -> None:
        self._reactor = reactor
        self._is_missed = is_missed
        self._since: dict[str, float] = {}
        self._waiting: deque[Contact] = deque()
        self._looks = 0
        self._found: dict[str, tuple[str, str, str]] = {}
        self._warned: set[str] = set()

    def of(self, type: str) -> list[str]:
        """Return why those of a type are not reached, each in a sentence."""
        return [text for kind, _, text in list(self._found.values()) if kind == type]

    def texts(self) -> list[str]:
        """Return that for everybody, in few lines."""
        found = [text for _, _, text in list(self._found.values())]
        told = found[:TOLD]
        return [*told, f"{len(found) - TOLD} more"] if len(found) > TOLD else told

    def await_answer(self, contact: Contact) -> None:
        """Note that somebody was called and should answer."""
        if contact.endpoint.startswith("tcp://"):
            since = self._since.setdefault(contact.id, time.monotonic())
            left_s = max(0.0, since + GRACE_S - time.monotonic())
            self._reactor.after(left_s, partial(self._overdue, contact))

    def refused(self, contact: Contact, why: str) -> None:
        """Note that somebody does not let us in, if it is known why."""
        if why:
            self.keep(contact.entry, _told(contact, f"who listens there {why}"))

    def why_broken(self, contact: Contact) -> str:
        """Return in words that the connection to somebody broke."""
        if not contact.endpoint.startswith("tcp://"):
            return BROKEN
        return f"{BROKEN}, between {here(contact.endpoint)} and {contact.endpoint}"

    def keep(self, entry: Entry, text: str) -> None:
        """Note why somebody is not reached."""
        self._found[entry.id] = (dispatched_type(entry), entry.host, text)

    def over(self, identity: str) -> None:
        """Note that somebody answers, or is gone."""
        self._since.pop(identity, None)
        found = self._found.pop(identity, None)
        if found is not None:
            self._warned.discard(found[1])

    # --- inside --------------------------------------------------------------

    def _overdue(self, contact: Contact) -> None:
        self._waiting.append(contact)
        self._look_on()

    def _look_on(self) -> None:
        while self._waiting and self._looks < LOOKS_AT_ONCE:
            contact = self._waiting.popleft()
            if self._is_missed(contact):
                self._looks += 1
                seen = look(self._reactor, contact.endpoint)
                seen.add_done_callback(partial(self._looked, contact))

    def _looked(self, contact: Contact, seen: Future[str]) -> None:
        self._looks -= 1
        if seen.result() and self._is_missed(contact):
            entry, text = contact.entry, _told(contact, seen.result())
            self.keep(entry, text)
            if entry.host not in self._warned:
                # of the others there it may be the same, and each would fill the log
                self._warned.add(entry.host)
                log.warning("%.1000s; no pieces go to it meanwhile", text)
        self._look_on()


def _told(contact: Contact, why: str) -> str:
    whom = f"{contact.entry.name} on {contact.entry.host}"
    return cannot_reach(whom, contact.endpoint, why)
