"""Server-sent events: a few long answers that tell open pages what changed.

A stream keeps one thread of the server busy, so there are only so many at a time, and
each ends by itself after some minutes: the browser then asks again, and says which
event it got last. Nothing is kept for anyone: what an event says is found anew from
that number.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flask import Response, abort, request, stream_with_context

from opencluster.errors import OpenClusterError

log = logging.getLogger(__name__)

BEAT_S = 10.0
"""A stream with nothing to say says so, or a lost connection would not be noticed."""
RETRY_MS = 2000
"""After which a browser asks again."""
MAX_ID = 40
"""Characters of a number of an event; anything may come from outside."""


@dataclass(frozen=True)
class Event:
    """Something to tell a page.

    Attributes
    ----------
    id : str
        What the browser says when it asks again.
    name : str
        What kind of event it is.
    data : str
        One line, usually JSON.
    """

    id: str
    name: str
    data: str

    def text(self) -> str:
        """Return the event as it is sent."""
        if "\n" in self.id + self.name + self.data:
            raise ValueError("an event is made of single lines")
        return f"id: {self.id}\nevent: {self.name}\ndata: {self.data}\n\n"


class Streams:
    """The streams of an application, of which there is a bounded number.

    Parameters
    ----------
    limit : int
        Streams at a time, also an attribute, as is how many are ``used``.
    length_s : float
        Seconds after which a stream ends.
    """

    def __init__(self, limit: int, length_s: float) -> None:
        self.limit = limit
        self.used = 0
        self._free = threading.BoundedSemaphore(limit)
        self._counting = threading.Lock()
        self._length_s = length_s
        self._closing = threading.Event()

    def close(self) -> None:
        """End all streams at once and start no more."""
        self._closing.set()

    def respond(
        self,
        news: Callable[[str], Event | None],
        first: str,
        interval_s: float,
    ) -> Response:
        """Return an answer that goes on for a while.

        Parameters
        ----------
        news : callable
            Given the last event's id, returns the next event, or None if there is
            nothing new.
        first : str
            The id to begin behind, unless the browser names one.
        interval_s : float
            How often to look.
        """
        if self._closing.is_set() or not self._free.acquire(blocking=False):
            abort(503, "Too many pages are watching: this one asks again by itself.")
        last = (request.headers.get("Last-Event-ID") or first)[:MAX_ID]
        is_gone = request.environ.get("waitress.client_disconnected", lambda: False)
        parts = self._parts(news, last, interval_s, is_gone)
        response = Response(stream_with_context(parts), mimetype="text/event-stream")
        self._count(1)
        response.call_on_close(self._release)
        response.headers["X-Accel-Buffering"] = "no"
        return response

    def _release(self) -> None:
        self._count(-1)
        self._free.release()

    def _count(self, change: int) -> None:
        with self._counting:
            self.used += change

    def _parts(
        self,
        news: Callable[[str], Event | None],
        last: str,
        interval_s: float,
        is_gone: Callable[[], bool],
    ) -> Iterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        end = time.monotonic() + self._length_s
        beat = time.monotonic() + BEAT_S
        while time.monotonic() < end and not is_gone():
            event = _looked(news, last)
            if event is not None or time.monotonic() > beat:
                yield event.text() if event else ": nothing new\n\n"
                last = event.id if event else last
                beat = time.monotonic() + BEAT_S
            if self._closing.wait(interval_s):
                return


def _looked(news: Callable[[str], Event | None], last: str) -> Event | None:
    try:
        return news(last)
    except OpenClusterError as error:
        log.warning("%s", error)
        return Event(last, "trouble", str(error).replace("\n", " "))
