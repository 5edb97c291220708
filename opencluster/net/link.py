"""A process's connection to the factories: finds the leader, asks it, follows it.

Everyone who needs the registry holds one `FactoryLink`. Who leads is found out by
`core.seeking`; this shell carries its greetings, sends requests to the leader, and
keeps what was asked until somebody answers or its own deadline has come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencluster.core.entries import Delta
from opencluster.core.epochs import Epoch
from opencluster.core.replica import Fit, Replica
from opencluster.core.seeking import Abandon, Adopt, Effect, Greet, Seeker
from opencluster.errors import (
    FactoryUnreachable,
    NotLeader,
    OpenClusterError,
    RegistryError,
    RemoteProtocolError,
    SecurityError,
)
from opencluster.net.reach import here, look
from opencluster.net.reactor import Reactor
from opencluster.net.rejections import MALFORMED
from opencluster.net.requests import Requests
from opencluster.net.rolls import Rolls
from opencluster.net.transport import Peer
from opencluster.wire import kinds

if TYPE_CHECKING:
    from opencluster.net.keys import Keyring

log = logging.getLogger(__name__)

Finder = Callable[[], Sequence[Sequence[str]]]
"""Returns, for each factory, the endpoints at which it may be reached."""

EAGER_INTERVAL_S = 0.1
"""How often it is looked after the leader while one is missed, or an answer is due."""
EAGER_S = 10.0
"""For how long a leader is missed eagerly; a cluster may be down for days."""
FOLLOWER_AFTER_S = 0.5
"""For how long a question waits for a leader before a follower may answer it."""
PROBE_INTERVAL_S = 0.5
"""How often it is looked after the leader otherwise."""
MAX_BEAT_INTERVAL_S = 3600.0
"""A factory that says that it beats less often is not believed."""
_PUSHED = (kinds.DELTA, kinds.BEAT, kinds.MOVED, kinds.FORGOTTEN)
"""What one who led a moment ago may still say."""
LOOK_AFTER_S = 1.5
"""Without a leader for this long, it is found out why the factories are not reached,"""
LOOK_INTERVAL_S = 15.0
"""and so often again."""
BEATS_MISSED = 1.5
"""Intervals after which the next beat of a leader that is followed is overdue."""


@dataclass(eq=False)
class _Question:
    """What is asked of whoever leads."""

    deadline: float
    operation: str
    arguments: Mapping[str, Any]
    may_be_old: bool
    began_at: float = field(default_factory=time.monotonic)
    future: Future[Any] = field(default_factory=Future)


class FactoryLink:
    """The way to the leading factory.

    Parameters
    ----------
    reactor : Reactor
        Whose thread does the work.
    find : callable
        Returns the endpoints of every factory; asked anew while no leader is known,
        so a cluster that starts later is found then.
    timeout_s : float
        How long an answer of a factory may take.
    on_up : callable, optional
        Called in the reactor's thread whenever a leader was found.
    on_forgotten : callable, optional
        Called there with the ids that the leader does not know, of those that were
        renewed with `tell`.
    patience_s : float
        How long an answer may be overdue before it is looked for another leader.
    keys : Keyring, optional
        Whose factories alone are believed, and whose roll is kept up to date.
    is_loud : bool
        Why factories are not reached is logged, and not only told to who asks them.
    """

    def __init__(
        self,
        reactor: Reactor,
        find: Finder,
        timeout_s: float = 5.0,
        on_up: Callable[[Mapping[str, Any]], None] | None = None,
        patience_s: float = 1.0,
        keys: Keyring | None = None,
        on_forgotten: Callable[[Sequence[str]], None] | None = None,
        is_loud: bool = True,
    ) -> None:
        self._reactor = reactor
        self._on_forgotten = on_forgotten
        self._find = find
        self._timeout_s = timeout_s
        self._on_up = on_up
        self._on_delta: Callable[[Delta], None] | None = None
        self.requests = Requests(reactor)
        self._factory_key = "" if keys is None else keys.factory_key
        self._rolls = Rolls(self.requests, keys)
        self.replica = Replica()
        self._seeker = Seeker(patience_s)
        self._peers: dict[str, Peer] = {}
        self._refusals: dict[str, str] = {}
        self._is_loud = is_loud
        self._unreached: dict[str, str] = {}
        self._told: set[str] = set()
        self._look_at = 0.0
        self._names: dict[Peer, str] = {}
        self._former = ""
        self._followers: dict[str, None] = {}
        self._hello: Mapping[str, Any] = {}
        self._beat_interval_s = 1.0
        self._waiting: list[_Question] = []
        self._asked: dict[_Question, float] = {}
        self._missed_since = time.monotonic()
        self._beat_at = 0.0
        self._is_asked_for_snapshot = False
        reactor.post(self._check)

    # --- from any thread -----------------------------------------------------

    def request(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        may_be_old: bool = False,
    ) -> Future[Any]:
        """Ask the leader; the answer comes as a `Future`.

        Parameters
        ----------
        operation : str
            What is asked.
        arguments : mapping, optional
            Its arguments.
        timeout_s : float, optional
            How long the answer may take, whoever leads meanwhile.
        may_be_old : bool
            When nobody leads for a moment, a follower may answer.
        """
        deadline = time.monotonic() + (timeout_s or self._timeout_s)
        question = _Question(deadline, operation, arguments or {}, may_be_old)
        question.future.set_running_or_notify_cancel()
        self._reactor.post(lambda: self._ask_or_wait(question))
        return question.future

    def tell(self, header: bytes) -> None:
        """Send the leader what it answers only when something is amiss."""

        def send() -> None:
            if self.is_up:
                self._reactor.transport.send(self._peers[self._seeker.leader], header)

        self._reactor.post(send)

    def subscribe(self, on_delta: Callable[[Delta], None]) -> None:
        """Keep a replica of the registry, and be told of every change to it."""
        self._on_delta = on_delta
        self._reactor.post(self._resubscribe)

    @property
    def is_up(self) -> bool:
        """Whether a leader is known."""
        return bool(self._seeker.leader)

    def why_down(self) -> str:
        """Return why no leader is known, as far as that can be told."""
        try:
            known = [", ".join(endpoints) for endpoints in self._find()]
        except Exception as error:
            return f"cannot tell where the factories are: {error}"
        if not known:
            return (
                "no cluster found: start one with `opencluster start`, or name it with "
                "--dir, OPENCLUSTER_DIR or [cluster] factories"
            )
        refused: dict[str, list[str]] = {}
        for name, reason in list(self._refusals.items()):
            refused.setdefault(reason, []).append(name)
        refused.pop("", None)
        if refused:
            told = (f"{', '.join(names)} {reason}" for reason, names in refused.items())
            return f"no factory let us in: {'; and '.join(told)}"
        unreached = self._why_unreached()
        if unreached:
            return f"no factory answered: {'; and '.join(unreached)}"
        return (
            f"no factory answered (tried {'; '.join(known)}); "
            "is it running? see `opencluster status`"
        )

    # --- from the reactor's thread -------------------------------------------

    def received(self, peer: Peer, fields: list[Any]) -> bool:
        """Take in a control message; ``False`` when it is not for this link."""
        kind = fields[0]
        is_from_leader = self.is_up and self._names.get(peer) == self._seeker.leader
        if kind == kinds.REPLY:
            _, number, ok, body = fields[:4]
            self.requests.replied(peer, number, ok, body)
        elif kind == kinds.DELTA and is_from_leader:
            self._take_delta(Epoch.from_fields(fields[1]), _delta_from(fields[2]))
        elif kind == kinds.BEAT and is_from_leader:
            self._take_beat(Epoch.from_fields(fields[1]), fields[2])
            self._rolls.told(peer, fields[3] if len(fields) > 3 else 0)
        elif kind == kinds.MOVED and is_from_leader:
            self._do(self._seeker.declined(self._seeker.leader))
        elif kind == kinds.FORGOTTEN and is_from_leader and self._on_forgotten:
            self._on_forgotten(_names_in(fields[1]))
        else:
            return kind in _PUSHED
        return True

    def peer_lost(self, peer: Peer) -> None:
        """Take note that a connection broke."""
        name = self._names.pop(peer, None)
        refusal = self._reactor.transport.refusal(peer)
        if name is not None:
            self._refusals[name] = refusal
            # libzmq keeps what is sent to a dead peer, without limit, and does not
            # reopen a connection that broke the protocol: the next greeting starts anew
            self._reactor.transport.disconnect(peer)
            self._followers.pop(name, None)
        self.requests.peer_lost(peer, refusal)
        if name is not None:
            self._do(self._seeker.lost(name))

    # --- finding the leader --------------------------------------------------

    def _check(self) -> None:
        now = time.monotonic()
        try:
            self._give_up_overdue(now)
            if not self.is_up:
                self._look_up()
                self._look_around(now)
            self._do(self._seeker.tick(now, self._awaited_since()))
            self._ask_followers(now)
        finally:
            is_missed = not self.is_up and now - self._missed_since < EAGER_S
            is_eager = is_missed or self._asked or self._waiting
            delay_s = EAGER_INTERVAL_S if is_eager else PROBE_INTERVAL_S
            self._reactor.after(min(delay_s, PROBE_INTERVAL_S), self._check)

    def _look_up(self) -> None:
        """Find out anew where the factories are."""
        found = map(usable_endpoint, self._find())
        self._seeker.listed([endpoint for endpoint in found if endpoint is not None])

    def _look_around(self, now: float) -> None:
        """Find out why no factory is reached, now and then while that lasts."""
        if now - self._missed_since < LOOK_AFTER_S or now < self._look_at:
            return
        self._look_at = now + LOOK_INTERVAL_S
        for endpoint in filter(None, map(usable_endpoint, self._find())):
            if endpoint.startswith("tcp://"):
                seen = look(self._reactor, endpoint)
                seen.add_done_callback(partial(self._looked, endpoint))

    def _looked(self, endpoint: str, seen: Future[str]) -> None:
        self._unreached.pop(endpoint, None)
        if self.is_up or not seen.result():
            return
        self._unreached[endpoint] = seen.result()
        if self._is_loud:
            for text in self._why_unreached():
                self._warn(text)

    def _why_unreached(self) -> list[str]:
        """Return who does not reach which factories, in a sentence for each reason."""
        by_reason: dict[str, list[str]] = {}
        for endpoint, reason in list(self._unreached.items()):
            by_reason.setdefault(reason, []).append(endpoint)
        return [
            f"{here(endpoints[0])} cannot reach {', '.join(endpoints)}: {reason}"
            for reason, endpoints in by_reason.items()
        ]

    def _warn(self, text: str) -> None:
        """Log why there is no leader, each reason once until there is one again."""
        if text not in self._told:
            self._told.add(text)
            log.warning("%.1000s", text)

    def _awaited_since(self) -> float | None:
        """Return since when the leader owes an answer or a beat, if it does."""
        since = list(self._asked.values())
        if self._on_delta is not None and self.is_up:
            since.append(self._beat_due())
        return min(since, default=None)

    def _beat_due(self) -> float:
        """Return when the next beat of a leader that is followed is overdue."""
        return self._beat_at + BEATS_MISSED * self._beat_interval_s

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Greet(name, epoch):
                    self._greet(name, epoch)
                case Abandon(name, reason):
                    log.warning("%.500s: %.500s; looking for a leader", name, reason)
                    self._missed_since = time.monotonic()
                case Adopt(name, _):
                    self._adopt(name)

    def _greet(self, name: str, epoch: Epoch) -> None:
        try:
            peer = self._reactor.transport.connect(name, self._factory_key)
        except OpenClusterError as error:
            if isinstance(error, SecurityError) or not name.startswith("tcp://"):
                self._warn(str(error))
            # of others it is found out soon, see `_look_around`
            self._do(self._seeker.unanswered(name))
            return
        self._peers[name] = peer
        self._names[peer] = name
        asked = self.requests.ask(peer, "hello", {"epoch": epoch}, self._timeout_s)
        asked.add_done_callback(partial(self._greeted, name, peer))

    def _greeted(self, name: str, peer: Peer, asked: Future[Any]) -> None:
        error = asked.exception()
        if isinstance(error, FactoryUnreachable):
            self.peer_lost(peer)
            return
        hello = None if error is not None else _hello_from(asked.result())
        if hello is None:
            self._do(self._seeker.unanswered(name))
            return
        role, epoch, leader, interval_s = hello
        self._note_roll(name, asked.result())
        self._refusals.pop(name, None)
        self._followers.pop(name, None)
        if role == "follower":
            self._followers[name] = None
        if role == "leader":
            self._hello, self._beat_interval_s = asked.result(), interval_s
        self._do(self._seeker.answered(name, role == "leader", epoch, leader))
        is_mute = self._beat_due() < time.monotonic()
        if name == self._seeker.leader and is_mute and not self._is_asked_for_snapshot:
            # it leads and tells us nothing: its queue to us was full, or it refused
            self._resubscribe()

    def _adopt(self, name: str) -> None:
        self._unreached.clear()
        self._told.clear()
        self._beat_at = time.monotonic()
        former, self._former = self._former, name
        if former in self._peers and former != name:
            # what that one owes is asked of this one
            self.requests.peer_lost(self._peers[former])
        self._resubscribe()
        waiting, self._waiting = self._waiting, []
        for question in waiting:
            self._ask_or_wait(question)
        if self._on_up is not None:
            self._on_up(self._hello)

    # --- questions -----------------------------------------------------------

    def _ask_or_wait(self, question: _Question) -> None:
        if self.is_up:
            self._ask(self._seeker.leader, question)
        else:
            self._waiting.append(question)

    def _ask(self, name: str, question: _Question) -> None:
        now = time.monotonic()
        self._asked[question] = now
        asked = self.requests.ask(
            self._peers[name],
            question.operation,
            question.arguments,
            max(0.01, question.deadline - now),
        )
        asked.add_done_callback(lambda done: self._answered(name, question, done))

    def _ask_followers(self, now: float) -> None:
        """While nobody leads, ask a follower what may be a little old."""
        if self.is_up or not self._followers:
            return
        follower = next(iter(self._followers))
        since = now - FOLLOWER_AFTER_S
        old = [q for q in self._waiting if q.may_be_old and q.began_at <= since]
        for question in old:
            self._waiting.remove(question)
            self._ask(follower, question)

    def _answered(self, name: str, question: _Question, asked: Future[Any]) -> None:
        self._asked.pop(question, None)
        error = asked.exception()
        if isinstance(error, NotLeader):
            self._followers.pop(name, None)
            self._waiting.append(question)
            self._do(self._seeker.declined(name, error.leader))
        elif isinstance(error, FactoryUnreachable):
            # silent or gone: ask whoever leads next, until the deadline
            self._waiting.append(question)
        elif error is not None:
            question.future.set_exception(error)
        else:
            self._note_roll(name, asked.result())
            question.future.set_result(asked.result())

    def _note_roll(self, name: str, body: Any) -> None:
        """Take in which roll a factory has, if its answer says so."""
        if isinstance(body, Mapping) and name in self._peers:
            self._rolls.told(self._peers[name], body.get("roll"))

    def _give_up_overdue(self, now: float) -> None:
        overdue = [question for question in self._waiting if question.deadline <= now]
        if not overdue:
            return
        reason = self.why_down()
        self._waiting = [q for q in self._waiting if q.deadline > now]
        for question in overdue:
            question.future.set_exception(FactoryUnreachable(reason))

    # --- the registry -------------------------------------------------------

    def _resubscribe(self) -> None:
        if self._on_delta is None or not self.is_up:
            return
        self._is_asked_for_snapshot = True
        leader = self._seeker.leader
        peer = self._peers[leader]
        asked = self.requests.ask(peer, "subscribe", {}, self._timeout_s)
        asked.add_done_callback(partial(self._take_snapshot, leader))

    def _take_snapshot(self, name: str, asked: Future[Any]) -> None:
        self._is_asked_for_snapshot = False
        error = asked.exception()
        if isinstance(error, NotLeader):
            self._do(self._seeker.declined(name, error.leader))
        if error is not None or name != self._seeker.leader:
            return
        snapshot = asked.result()
        try:
            epoch = Epoch.from_fields(snapshot["epoch"])
            # of another epoch than that of its greeting: it must be greeted anew
            is_known = epoch == self._seeker.epoch
            news = self.replica.load(epoch, snapshot) if is_known else []
        except MALFORMED as problem:
            # what is here stays, and the next beat makes us ask again
            log.error("a factory's snapshot makes no sense: %.500r", problem)
            return
        self._beat_at = time.monotonic()
        if not is_known:
            self._do(self._seeker.declined(name))
        for delta in news:
            self._tell(delta)

    def _take_delta(self, epoch: Epoch, delta: Delta) -> None:
        if self._on_delta is None or self._is_asked_for_snapshot:
            return
        fit = self.replica.apply(epoch, delta)
        if fit is Fit.GAP:
            self._resubscribe()
        elif fit is Fit.NEW:
            self._tell(delta)

    def _take_beat(self, epoch: Epoch, revision: int) -> None:
        self._beat_at = time.monotonic()
        if self._on_delta is None or self._is_asked_for_snapshot:
            return
        if epoch != self.replica.epoch or revision != self.replica.revision:
            self._resubscribe()

    def _tell(self, delta: Delta) -> None:
        if self._on_delta is None:
            return
        try:
            self._on_delta(delta)
        except Exception:
            # this one is in the replica already, and those after it must be told
            log.exception("an error in taking in %s", delta)


def _names_in(names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise RemoteProtocolError("a list of what was forgotten makes no sense")
    return names


def _delta_from(fields: Any) -> Delta:
    try:
        return Delta.from_fields(fields)
    except RegistryError as error:
        raise RemoteProtocolError(f"a delta makes no sense: {error}") from None


def _hello_from(body: Any) -> tuple[str, Epoch, str, float] | None:
    """Return role, epoch, leader and the time between two beats, in seconds.

    ``None`` when the answer to a greeting is none.
    """
    try:
        interval_s = float(body.get("heartbeat_interval_s", 1.0))
        if not 0.0 <= interval_s <= MAX_BEAT_INTERVAL_S:
            raise RegistryError(f"beats every {interval_s} s are none")
        role, epoch, leader = str(body["role"]), body["epoch"], str(body["leader"])
        return role, Epoch.from_fields(epoch), leader, interval_s
    except MALFORMED as error:
        log.error("a factory greets with what makes no sense: %.500r", error)
        return None


def usable_endpoint(endpoints: Sequence[str]) -> str | None:
    """Return the first endpoint that can be reached from here, or ``None``."""
    for endpoint in endpoints:
        path = Path(endpoint.removeprefix("ipc://"))
        if not endpoint.startswith("ipc://") or path.is_socket():
            return endpoint
    return None
