"""One object under a rain of messages: what an episode is, and what must hold in it.

Rules that are checked with every message, whatever it was:

1. Nothing is raised out of a handler, and nothing is logged with a traceback, or
   at a length that the sender chooses.
2. A message that is no message of the protocol is counted as rejected; every other
   one is counted at most once, and a request is answered once instead.
3. A good message is never rejected.
4. The object's own invariants hold, and nothing that it keeps grows without bound.
5. In every other episode the senders have keys: what the role of a sender does not
   allow is refused, by the table of `core.roles`, and is counted as that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from random import Random
from types import ModuleType
from typing import Any, ClassVar

from fuzz_mutation import Mutator, pack
from fuzz_net import CLOCK, HandReactor, MemoryTransport, received

from opencluster import errors
from opencluster.core.roles import (
    ASKER,
    ROLES,
    RULES,
    TRUSTED,
    Credential,
    permits,
)
from opencluster.errors import RemoteProtocolError
from opencluster.net.transport import Peer
from opencluster.wire import frames, kinds

STEPS = 150
"""Messages of an episode, about."""

MAX_LINE = 2000
"""Characters that one message may bring into a log, beyond what debugging tells."""

Good = tuple[Peer, list[Any], list[bytes]]
"""A message that its receiver must take: from whom, fields, buffers."""


class Episode:
    """What the fuzzers of handlers have in common.

    Parameters
    ----------
    random : Random
        Decides everything.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[ModuleType, ...]] = ()
    """Where sockets, and the threads of sockets, are replaced."""
    stand_ins: ClassVar[tuple[tuple[ModuleType, str, Any], ...]] = ()
    """What else is replaced: where, its name, and by what."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.mutator = Mutator(random)
        self.has_keys = random.random() < 0.5
        self.executions = 0
        self.requests = 0
        self.last = b""

    # --- what a fuzzer of a handler says ----------------------------------------------

    def message(self) -> Good:
        """Return a good message for this moment."""
        raise NotImplementedError

    def happen(self) -> None:
        """Let something happen that is no message: time passes, a piece is taken."""
        self.wait(self.random.choice([0.01, 0.5, 3.0, 30.0]))

    def check(self) -> None:
        """Fail when a rule of the object is broken, or it keeps too much."""

    def answers(self) -> None:
        """Fail unless the object does its work."""

    def close(self) -> None:
        """Release what the episode has."""

    @property
    def reactor(self) -> HandReactor:
        """Where messages come in."""
        raise NotImplementedError

    # --- what happens -----------------------------------------------------------------

    def run(self, steps: int = STEPS) -> None:
        """Go through the episode."""
        for _ in range(steps):
            self.step()
        self.answers()
        self.check()

    def step(self) -> None:
        """Let one thing happen."""
        random = self.random
        if random.random() < 0.15:
            self.happen()
            self.check()
            return
        peer, fields, buffers = self.message()
        who = self.sender(peer, fields)
        if random.random() < 0.35:
            self.deliver(peer, pack(fields), buffers, True, who)
            return
        if self.has_keys and random.random() < 0.2:
            role = random.choice(ROLES)
            who = Credential(role, role)
        header, buffers = self.mutator.message(fields, buffers)
        for _ in range(2 if random.random() < 0.05 else 1):
            self.deliver(peer, header, buffers, False, who)

    def sender(self, peer: Peer, fields: list[Any]) -> Credential:
        """Return somebody who may say that."""
        rule = RULES.get(self.receiver(peer, fields)) if self.has_keys else None
        if rule is None:
            return TRUSTED
        role = self.random.choice([role for role in ROLES if role in rule.roles])
        return Credential(role, role)

    def receiver(self, peer: Peer, fields: list[Any]) -> tuple[str, str]:
        """Return by which rule of the table a message is judged."""
        return ASKER, fields[0]

    def deliver(
        self,
        peer: Peer,
        header: bytes,
        buffers: Iterable[bytes] = (),
        is_good: bool = False,
        who: Credential = TRUSTED,
    ) -> None:
        """Deliver a message, and check what comes of it."""
        self.executions += 1
        self.last = header
        fields = fields_in(header)
        # now, as a message may change what its sender is
        rule = self.receiver(peer, fields) if fields else None
        transport = self.transport
        counts = transport.counts
        before, kept_out = counts.rejected_messages, counts.rejected_credentials
        answered = transport.replies_to(peer)
        self.reactor.receive(received(peer, header, [*buffers], who))
        rejected = counts.rejected_messages - before
        kept_out = counts.rejected_credentials - kept_out
        answered = transport.replies_to(peer) - answered
        assert rejected + kept_out in (0, 1), f"counted {rejected} and {kept_out} times"
        assert not (rejected + kept_out and is_good), "a good message was rejected"
        if rule is None:
            assert rejected == 1, "what is no message was not counted"
        else:
            self.check_refusal(rule, fields, who, kept_out)
        is_here = peer not in transport.gone
        is_asked = self.takes_requests and is_here
        if is_asked and fields[:1] == [kinds.REQUEST] and len(fields) == 4:
            assert rejected == 0, "a request was rejected instead of declined"
            self.requests += 1
            assert not self.is_prompt or answered == 1, f"{answered} answers"
            if is_good and answered == 1:
                self.check_answer(peer)
        self.check()

    def check_refusal(
        self,
        rule: tuple[str, str],
        fields: list[Any],
        who: Credential,
        kept_out: int,
    ) -> None:
        """Fail when somebody was listened to who may not say that, or was not."""
        is_request = self.takes_requests and fields[0] == kinds.REQUEST
        if is_request and len(fields) == 4:
            # whoever may ask what: nobody is refused what nobody can ask
            is_known = isinstance(rule[1], str) and rule[1] in self.operations
            is_known = is_known and isinstance(fields[3], dict)
            is_refused = is_known and not permits(*rule, who)
        else:
            is_refused = not permits(*rule, who)
        assert kept_out == is_refused, f"{who.role or 'anyone'} said {fields[0]!r:.99}"

    def check_answer(self, peer: Peer) -> None:
        """Fail when what a good request was answered is an error in the handler."""
        reply = self.transport.last_reply(peer)
        if not reply[2]:
            error = reply[3]["error"]
            assert hasattr(errors, error), f"declined: {reply[3]['message']}"

    def wait(self, seconds: float) -> None:
        """Let time pass, as it does: in small steps."""
        end = CLOCK.now + seconds
        while CLOCK.now < end:
            CLOCK.now = min(end, CLOCK.now + 0.1)
            self.reactor.turn()

    takes_requests = False
    operations: ClassVar[frozenset[str]] = frozenset()
    """What can be asked."""
    is_prompt = True
    """Every request is answered at once."""

    @property
    def transport(self) -> MemoryTransport:
        """Where messages go out."""
        return self.reactor.transport


def fields_in(header: bytes) -> list[Any]:
    """Return the fields of a message, none if it is no message."""
    try:
        return frames.unpack(header)
    except RemoteProtocolError:
        return []


class Complaints(logging.Handler):
    """Catches what is logged as an error of OpenCluster's own.

    Whatever is logged is put into words, as those who look into a matter have it.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []
        self._log = logging.getLogger("opencluster")
        self._former = (self._log.level, self._log.propagate)

    def listen(self) -> None:
        """Hear all that is logged, and let nobody else hear it."""
        self._log.setLevel(logging.DEBUG)
        self._log.propagate = False
        self._log.addHandler(self)

    def leave(self) -> None:
        """Hear nothing any more."""
        self._log.removeHandler(self)
        self._log.level, self._log.propagate = self._former

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error that has a traceback: all others are told to a person."""
        said = record.getMessage()
        if record.levelno >= logging.WARNING and len(said) > MAX_LINE:
            self.found.append(f"{len(said)} characters in the log: {said[:MAX_LINE]}")
        if record.levelno >= logging.ERROR and record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
            self.found.append(f"logged: {said}\n{trace}")
