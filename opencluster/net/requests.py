"""Requests and replies over a transport, with deadlines.

The asking side is `Requests`; the answering side is `answer`. A reply carries the
epoch and the revision of a factory and the age of what it knows, and ``None`` for all
three from anyone else.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple

from opencluster.core.roles import TRUSTED, Credential, permits, refusal
from opencluster.errors import (
    FactoryUnreachable,
    LocalProtocolError,
    NotLeader,
    OpenClusterError,
    RequestRefused,
    StartFailed,
)
from opencluster.net.reactor import Reactor, Timer
from opencluster.net.rejections import MALFORMED
from opencluster.net.transport import Peer
from opencluster.wire import frames, kinds

log = logging.getLogger(__name__)


class Caller(NamedTuple):
    """Who asks.

    Attributes
    ----------
    peer : bytes
        The connection by which they ask.
    who : Credential
        What their key proves.
    """

    peer: Peer
    who: Credential = TRUSTED


Handler = Callable[[Caller, Mapping[str, Any]], Any]
"""Answers one operation: given who asks and the arguments, returns plain types.

It may return a `Future` instead, and the reply is sent when that is done.
"""


class Requests:
    """The asking side; for use in the reactor's thread.

    Parameters
    ----------
    reactor : Reactor
        Whose transport carries the requests.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._numbers = itertools.count(1)
        self._pending: dict[int, tuple[Peer, Future[Any], Timer]] = {}

    def ask(
        self, peer: Peer, operation: str, arguments: Mapping[str, Any], timeout_s: float
    ) -> Future[Any]:
        """Send a request.

        Returns
        -------
        Future
            The answer; `RequestRefused` or `StartFailed` when the peer declined, and
            `FactoryUnreachable` when it did not answer in time, and
            `LocalProtocolError` when the arguments cannot be sent.
        """
        number = next(self._numbers)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            header = frames.pack(kinds.REQUEST, number, operation, dict(arguments))
        except LocalProtocolError as error:
            future.set_exception(error)
            return future
        timer = self._reactor.after(
            timeout_s,
            lambda: self._fail(number, f"{operation}: no answer in {timeout_s:g} s"),
        )
        self._pending[number] = (peer, future, timer)
        if not self._reactor.transport.send(peer, header):
            self._fail(number, f"{operation}: the peer is gone")
        return future

    def replied(self, peer: Peer, number: int, ok: bool, body: Any) -> None:
        """Take in a reply; one that nobody waits for is ignored."""
        if number not in self._pending or self._pending[number][0] != peer:
            return
        _, future, timer = self._pending.pop(number)
        timer.cancel()
        if ok:
            future.set_result(body)
        else:
            future.set_exception(_error_from(body))

    def peer_lost(self, peer: Peer, refusal: str = "") -> None:
        """Fail what was asked of a peer that is gone, or does not let us in."""
        reason = "the connection broke before the answer came"
        if refusal:
            reason = f"who listens there {refusal}"
        for number in [n for n, entry in self._pending.items() if entry[0] == peer]:
            self._fail(number, reason)

    def _fail(self, number: int, reason: str) -> None:
        entry = self._pending.pop(number, None)
        if entry is not None:
            entry[2].cancel()
            entry[1].set_exception(FactoryUnreachable(reason))


def answer(
    reactor: Reactor,
    receiver: str,
    caller: Caller,
    fields: list[Any],
    handlers: Mapping[str, Handler],
    stamp: Callable[[], tuple[Any, Any, Any]] = lambda: (None, None, None),
) -> None:
    """Answer a request by the handler of its operation, if the caller may ask that.

    Whatever the handler raises, or returns that cannot be sent, is an answer too.

    Parameters
    ----------
    reactor : Reactor
        Whose transport carries the reply.
    receiver : str
        What we are, by the table of `core.roles`.
    caller : Caller
        Who asks.
    fields : list
        The message: kind, number, operation, arguments.
    handlers : mapping of str to callable
        What can be asked.
    stamp : callable, optional
        Returns the epoch and the revision that the reply carries, and how old what
        it says may be, in seconds.
    """
    number, operation, arguments = fields[1], fields[2], fields[3]

    def reply(ok: bool, body: Any) -> None:
        header = frames.pack(kinds.REPLY, number, ok, body, *stamp())
        reactor.transport.send(caller.peer, header)

    def decline(error: BaseException) -> None:
        _note(operation, error)
        reply(False, _error_body(error))

    def accept(result: Any) -> None:
        try:
            reply(True, result)
        except LocalProtocolError as error:
            decline(error)

    def finish(future: Future[Any]) -> None:
        error = CancelledError() if future.cancelled() else future.exception()
        if error is None:
            accept(future.result())
        else:
            decline(error)

    handler = handlers.get(operation) if isinstance(operation, str) else None
    if handler is None or not isinstance(arguments, Mapping):
        known = ", ".join(sorted(handlers))
        decline(RequestRefused(f"no such request; known: {known}"))
        return
    if not permits(receiver, operation, caller.who):
        reactor.transport.counts.rejected_credentials += 1
        decline(RequestRefused(refusal(receiver, operation, caller.who)))
        return
    try:
        result = handler(caller, arguments)
    except Exception as error:
        decline(error)
        return
    if isinstance(result, Future):
        result.add_done_callback(lambda done: reactor.post(lambda: finish(done)))
    else:
        accept(result)


def _note(operation: Any, error: BaseException) -> None:
    """Log why a request is declined; whoever asks wrongly must not fill a log."""
    is_ours = isinstance(error, LocalProtocolError) or not isinstance(error, MALFORMED)
    level = logging.ERROR if is_ours else logging.DEBUG
    log.log(level, "%r was declined", operation, exc_info=error)


def _error_body(error: BaseException) -> dict[str, str]:
    message = str(error)
    if not isinstance(error, OpenClusterError):
        what = "malformed request" if isinstance(error, MALFORMED) else "it failed"
        message = f"{what} ({type(error).__name__}: {error})"
    return {
        "error": type(error).__name__,
        "message": message,
        "output": getattr(error, "output", ""),
        "leader": getattr(error, "leader", ""),
    }


def _error_from(body: Any) -> OpenClusterError:
    if not isinstance(body, Mapping):
        return RequestRefused("the peer declined without saying why")
    message = str(body.get("message", ""))
    if body.get("error") == NotLeader.__name__:
        return NotLeader(message, str(body.get("leader", "")))
    if body.get("error") == StartFailed.__name__:
        return StartFailed(message, str(body.get("output", "")))
    return RequestRefused(message)
