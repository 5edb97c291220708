"""A client's way to the leading factory: `net.link` without its sockets and futures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opencluster.core.entries import Delta
from opencluster.core.replica import Fit, Replica
from opencluster.core.seeking import Abandon, Adopt, Effect, Greet, Seeker
from opencluster.errors import FactoryUnreachable, NotLeader

if TYPE_CHECKING:
    from sim_process import Process
    from sim_wires import Wire

Done = Callable[[Exception | None, Any], None]
"""Takes what went wrong, or the answer."""

EAGER_INTERVAL_S = 0.1
EAGER_S = 10.0
PROBE_INTERVAL_S = 0.5
BEATS_MISSED = 1.5
PATIENCE_S = 1.0
TIMEOUT_S = 4.0


class Question:
    """What is asked of whoever leads."""

    __slots__ = ("arguments", "asked_at", "deadline", "done", "operation")

    def __init__(
        self, deadline: float, operation: str, arguments: Any, done: Done
    ) -> None:
        self.deadline = deadline
        self.operation = operation
        self.arguments = arguments
        self.done = done
        self.asked_at = 0.0


class SimLink:
    """Finds the leader, asks it, follows it.

    Parameters
    ----------
    process : Process
        Whose link it is.
    names : sequence of str
        The list of factories.
    on_up : callable
        Called whenever a leader was found.
    on_delta : callable, optional
        Called with each change of the registry; without it none is followed.
    on_forgotten : callable, optional
        Called with the ids that the leader does not know, of those that were renewed
        with `tell`.
    """

    def __init__(
        self,
        process: Process,
        names: Sequence[str],
        on_up: Callable[[], None],
        on_delta: Callable[[Delta], None] | None = None,
        on_forgotten: Callable[[Sequence[str]], None] | None = None,
    ) -> None:
        self.seeker = Seeker(PATIENCE_S)
        self.replica = Replica()
        self.is_asked_for_snapshot = False
        self._process = process
        self._names = names
        self._on_up = on_up
        self._on_delta = on_delta
        self._on_forgotten = on_forgotten
        self._peers: dict[str, Wire] = {}
        self._former = ""
        self._number = 0
        self._pending: dict[int, tuple[Wire, float, Done]] = {}
        self._waiting: list[Question] = []
        self._asked: dict[Question, None] = {}
        self._missed_since = process.now()
        self._beat_at = 0.0
        process.after(0.0, self._check)

    @property
    def is_up(self) -> bool:
        """Whether a leader is known."""
        return self.seeker.leader != ""

    def request(self, operation: str, arguments: Any, done: Done) -> None:
        """Ask the leader."""
        deadline = self._process.now() + TIMEOUT_S
        self._ask_or_wait(Question(deadline, operation, arguments, done))

    def tell(self, message: tuple[Any, ...]) -> None:
        """Send the leader what it answers only when something is amiss."""
        if self.is_up:
            self._peers[self.seeker.leader].send(message)

    # --- events --------------------------------------------------------------

    def answered(self, wire: Wire, message: tuple[Any, ...]) -> None:
        """Take a message of a factory."""
        kind = message[0]
        if kind == "reply":
            _, number, error, body = message
            pending = self._pending.get(number)
            if pending is not None and pending[0] is wire:
                del self._pending[number]
                pending[2](error, body)
        elif not self.is_up or self._peers.get(self.seeker.leader) is not wire:
            return
        elif kind == "delta":
            self._take_delta(message[1], message[2])
        elif kind == "beat":
            self._take_beat(message[1], message[2])
        elif kind == "moved":
            self._do(self.seeker.declined(self.seeker.leader))
        elif kind == "forgotten" and self._on_forgotten is not None:
            self._on_forgotten(message[1])

    def lost(self, wire: Wire) -> None:
        """Take note that a connection broke, or should be given up."""
        name = wire.endpoint
        is_known = self._peers.get(name) is wire
        if is_known:
            del self._peers[name]
            self._process.world.wires.close(wire)
        self._fail(wire)
        if is_known:
            self._do(self.seeker.lost(name))

    def _fail(self, wire: Wire) -> None:
        for number in [n for n, entry in self._pending.items() if entry[0] is wire]:
            entry = self._pending.pop(number, None)
            if entry is not None:
                entry[2](FactoryUnreachable("the connection broke"), None)

    # --- finding the leader --------------------------------------------------

    def _check(self) -> None:
        now = self._process.now()
        if self._pending:
            self._time_out(now)
        if self._waiting:
            self._give_up_overdue(now)
        seeker = self.seeker
        if not seeker.leader:
            seeker.listed(self._names)
        effects = seeker.tick(now, self._awaited_since())
        if effects:
            self._do(effects)
        is_missed = not seeker.leader and now - self._missed_since < EAGER_S
        is_eager = is_missed or self._asked or self._waiting
        delay_s = EAGER_INTERVAL_S if is_eager else PROBE_INTERVAL_S
        self._process.after(delay_s, self._check)

    def _time_out(self, now: float) -> None:
        overdue = [n for n, entry in self._pending.items() if entry[1] <= now]
        for number in overdue:
            entry = self._pending.pop(number, None)
            if entry is not None:
                entry[2](FactoryUnreachable("no answer in time"), None)

    def _awaited_since(self) -> float | None:
        since = [question.asked_at for question in self._asked]
        if self._on_delta is not None and self.is_up:
            since.append(self._beat_due())
        return min(since, default=None)

    def _beat_due(self) -> float:
        """Return when the next beat of a leader that is followed is overdue."""
        return self._beat_at + BEATS_MISSED * self._process.world.setup.heartbeat_s

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Greet(name, epoch):
                    self._greet(name, epoch)
                case Abandon(name, reason):
                    self._process.log("abandons %s: %s", name, reason)
                    self._missed_since = self._process.now()
                case Adopt(name, epoch):
                    self._process.log("adopts %s of epoch %s", name, epoch)
                    self._adopt(name)

    def _greet(self, name: str, epoch: Any) -> None:
        wire = self._peers.get(name)
        if wire is None:
            wire = self._peers[name] = self._process.world.wires.open(
                self._process, name
            )
        self._ask_peer(
            wire,
            "hello",
            {"epoch": epoch},
            self._process.now() + TIMEOUT_S,
            lambda error, body: self._greeted(name, wire, error, body),
        )

    def _greeted(
        self, name: str, wire: Wire, error: Exception | None, body: Any
    ) -> None:
        if isinstance(error, FactoryUnreachable):
            self.lost(wire)
        elif error is not None:
            self._do(self.seeker.unanswered(name))
        else:
            role, epoch, leader = body
            is_leading = role == "leader"
            self._do(self.seeker.answered(name, is_leading, epoch, leader))
            is_mute = self._beat_due() < self._process.now()
            is_asked = self.is_asked_for_snapshot
            if name == self.seeker.leader and is_mute and not is_asked:
                # it leads and tells us nothing: its queue to us was full
                self._resubscribe()

    def _adopt(self, name: str) -> None:
        self._beat_at = self._process.now()
        former, self._former = self._former, name
        if former in self._peers and former != name:
            self._fail(self._peers[former])
        self._resubscribe()
        waiting, self._waiting = self._waiting, []
        for question in waiting:
            self._ask_or_wait(question)
        self._on_up()

    # --- questions -----------------------------------------------------------

    def _ask_or_wait(self, question: Question) -> None:
        if self.is_up:
            self._ask(self.seeker.leader, question)
        else:
            self._waiting.append(question)

    def _ask(self, name: str, question: Question) -> None:
        question.asked_at = self._process.now()
        self._asked[question] = None
        self._ask_peer(
            self._peers[name],
            question.operation,
            question.arguments,
            question.deadline,
            lambda error, body: self._answered(name, question, error, body),
        )

    def _ask_peer(
        self,
        wire: Wire,
        operation: str,
        arguments: Mapping[str, Any],
        deadline: float,
        done: Done,
    ) -> None:
        self._number += 1
        self._pending[self._number] = (wire, deadline, done)
        wire.send(("request", self._number, operation, arguments))

    def _answered(
        self, name: str, question: Question, error: Exception | None, body: Any
    ) -> None:
        self._asked.pop(question, None)
        if isinstance(error, NotLeader):
            self._waiting.append(question)
            self._do(self.seeker.declined(name, error.leader))
        elif isinstance(error, FactoryUnreachable):
            self._waiting.append(question)
        elif error is not None:
            raise AssertionError(f"{question.operation} was refused") from error
        else:
            question.done(None, body)

    def _give_up_overdue(self, now: float) -> None:
        overdue = [q for q in self._waiting if q.deadline <= now]
        self._waiting = [q for q in self._waiting if q.deadline > now]
        for question in overdue:
            question.done(FactoryUnreachable("no factory answers"), None)

    # --- the registry --------------------------------------------------------

    def _resubscribe(self) -> None:
        if self._on_delta is None or not self.is_up:
            return
        self.is_asked_for_snapshot = True
        leader = self.seeker.leader
        deadline = self._process.now() + TIMEOUT_S
        self._ask_peer(
            self._peers[leader],
            "subscribe",
            {},
            deadline,
            lambda error, body: self._take_snapshot(leader, error, body),
        )

    def _take_snapshot(self, name: str, error: Exception | None, body: Any) -> None:
        self.is_asked_for_snapshot = False
        if isinstance(error, NotLeader):
            self._do(self.seeker.declined(name, error.leader))
        if error is not None or name != self.seeker.leader:
            return
        # of another epoch than that of its greeting: it must be greeted anew
        epoch = body["epoch"]
        is_known = epoch == self.seeker.epoch
        news = self.replica.load(epoch, body) if is_known else []
        self._beat_at = self._process.now()
        if not is_known:
            self._do(self.seeker.declined(name))
        for delta in news:
            self._tell(delta)
        if is_known:
            self._process.world.ledger.copied(self._process, self.replica)

    def _take_delta(self, epoch: Any, delta: Delta) -> None:
        if self._on_delta is None or self.is_asked_for_snapshot:
            return
        fit = self.replica.apply(epoch, delta)
        if fit is Fit.GAP:
            self._resubscribe()
        elif fit is Fit.NEW:
            self._tell(delta)
            self._process.world.ledger.copied(self._process, self.replica)

    def _take_beat(self, epoch: Any, revision: int) -> None:
        self._beat_at = self._process.now()
        if self._on_delta is None or self.is_asked_for_snapshot:
            return
        if epoch != self.replica.epoch or revision != self.replica.revision:
            self._resubscribe()

    def _tell(self, delta: Delta) -> None:
        if self._on_delta is not None:
            self._on_delta(delta)
