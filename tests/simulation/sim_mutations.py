"""Deliberate mistakes, each of one line, that the simulation must find.

The line is changed in the text of its module; of the changed module, the code of every
function and the value of every constant are put into the real one for a while.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from sim_ledger import Broken
from sim_setup import Focus, draw
from sim_world import World, run_world

from opencluster.core.election import Quorum
from opencluster.testing.virtual import Faults


@dataclass(frozen=True)
class Mutation:
    """One mistake.

    Attributes
    ----------
    name : str
        What is wrong with it.
    module : str
        Of ``opencluster.core``.
    right, wrong : str
        A text, which stands in the module exactly once, and what it becomes.
    focus : Focus
        Where it is searched.
    first : int
        Seed with which the search begins: not 0 when it takes long from there.
    """

    name: str
    module: str
    right: str
    wrong: str
    focus: Focus = Focus()
    first: int = 0


LATE = Faults(delay_s=0.002, lateness=0.3, late_s=2.0)
"""Many messages come so late that whoever they are about is somebody else by then."""
FACTORIES = Focus(
    ("noise", "part", "one-way", "isolate", "pause", "crash", "flaky"),
    is_work=False,
    factories=3,
)
CRASHES = Focus(("crash", "rolling restart"), is_work=False, factories=3)
PAUSES = Focus(("pause",), is_work=False, factories=2, company=0.0, gap_s=0.5)
LATENESS = Focus(
    ("isolate", "crash", "flaky", "worker crash"),
    is_work=False,
    factories=3,
    noise=LATE,
)
ISOLATION = Focus(
    ("isolate",),
    quorum=Quorum.MAJORITY,
    is_work=False,
    factories=3,
    company=0.0,
    gap_s=2.0,
)
HALVES = Focus(("isolate", "part"), quorum=Quorum.MAJORITY, is_work=False, factories=4)
PROMISES = Focus(
    ("noise", "isolate", "one-way", "pause", "crash", "skew"),
    quorum=Quorum.MAJORITY,
    is_work=False,
    factories=3,
)
RESTARTS = Focus(
    ("isolate", "blink", "skew"),
    quorum=Quorum.MAJORITY,
    is_work=False,
    factories=3,
    company=0.7,
    gap_s=1.0,
)
LATE_PROMISES = Focus(
    ("isolate",),
    quorum=Quorum.MAJORITY,
    is_work=False,
    factories=3,
    noise=Faults(delay_s=0.002, lateness=0.3, late_s=1.0),
    company=0.0,
    gap_s=2.0,
)
CLOCKS = Focus(
    ("isolate", "jump forward"),
    quorum=Quorum.MAJORITY,
    is_work=False,
    factories=3,
    company=0.7,
    gap_s=0.5,
)
BACK = Focus(
    ("isolate", "jump back", "skew"),
    quorum=Quorum.MAJORITY,
    is_work=False,
    factories=3,
    company=0.7,
    gap_s=0.5,
)
MEMBERS = Focus(
    ("noise", "rolling restart", "worker crash", "drain", "workshop crash"),
    is_work=False,
    factories=3,
)
FORGETTING = Focus(("jump forward", "worker crash"), is_work=False)
WORK = Focus(
    ("part", "one-way", "worker crash", "worker pause", "poison", "drain", "late news"),
    is_work=True,
    factories=1,
)
INTERRUPTS = Focus(
    ("interrupt", "stubborn"),
    is_work=True,
    factories=1,
    company=0.7,
    gap_s=0.5,
)
URGENCY = Focus(("realtime", "worker crash"), is_work=True, factories=1)
ERRORS = Focus(("raising", "worker crash"), is_work=True, factories=1)

MUTATIONS = [
    Mutation(
        "an epoch's number is not beyond what was seen",
        "election",
        "number = self.seen = self.seen + 1",
        "number = self.seen = max(1, self.seen)",
        CRASHES,
    ),
    Mutation(
        "an epoch is used before it is on disk",
        "election",
        "return [SaveEpochs(self.seen, self.led, self._wanted)]",
        "return self.saved(now, self._wanted)",
        CRASHES,
    ),
    Mutation(
        "an older epoch is followed",
        "election",
        "if self.led.is_newer_than(beat.led):",
        "if False:",
        FACTORIES,
    ),
    Mutation(
        "a promise is given twice",
        "promises",
        "return self._passed_s < self._until_s and self._name != name",
        "return False",
        PROMISES,
    ),
    Mutation(
        "a promise is forgotten by a restart",
        "election",
        "self._promise.give(SOMEBODY)",
        "pass",
        RESTARTS,
        75,
    ),
    Mutation(
        "half of the factories are a majority",
        "election",
        "Lease(len(self.names) // 2 if is_majority",
        "Lease((len(self.names) - 1) // 2 if is_majority",
        HALVES,
    ),
    Mutation(
        "a leader relies on promises for too long",
        "promises",
        "LEASE_PART = 0.75",
        "LEASE_PART = 1.5",
        ISOLATION,
    ),
    Mutation(
        "a promise counts from when it arrived",
        "promises",
        "sent_at = self._sent_at.get(sequence)",
        "sent_at = max(self._sent_at.values(), default=None)",
        LATE_PROMISES,
        180,
    ),
    Mutation(
        "a leader goes on when its promises are over",
        "promises",
        "+ LEASE_PART * self._timeout_s",
        "+ 60.0 * self._timeout_s",
        ISOLATION,
    ),
    Mutation(
        "a leader goes on after it stood still",
        "election",
        "elif away_s > self.timeout_s:",
        "elif False:",
        PAUSES,
    ),
    Mutation(
        "a jump of the clock shortens a promise",
        "promises",
        "self._passed_s += min(max(0.0, step_s), self._step_s)",
        "self._passed_s += max(0.0, step_s)",
        CLOCKS,
    ),
    Mutation(
        "a leader goes on after its clock went back",
        "election",
        "if step_s < 0.0:\n            reason",
        "if False:\n            reason",
        BACK,
    ),
    Mutation(
        "a new leader does not extend leases",
        "replication",
        "self.registry.extend(now)",
        "pass",
        FACTORIES,
    ),
    Mutation(
        "the copy of an earlier leader is taken",
        "replication",
        "if not self._is_from_leader(sender, led):\n            return []\n"
        "        revision",
        "if self.election.role is not Role.FOLLOWING:\n            return []\n"
        "        revision",
        LATENESS,
    ),
    Mutation(
        "a change is applied across a gap",
        "registry",
        "if delta.revision != self.revision + 1:",
        "if False:",
        MEMBERS,
    ),
    Mutation(
        "leases are never over",
        "registry",
        "over = [i for i, r in self._records.items() if r.expires_at <= now]",
        "over = []",
        MEMBERS,
    ),
    Mutation(
        "the unknown are not asked to register again",
        "registry",
        "unknown.append(identity)",
        "pass",
        FORGETTING,
    ),
    Mutation(
        "a client goes back to an older epoch",
        "seeking",
        "if is_old and not self.epoch.is_absurd_after(epoch):",
        "if False:",
        FACTORIES,
    ),
    Mutation(
        "a client that knows no leader looks for none",
        "seeking",
        "return []\n        return self._greet_all()",
        "return []\n        return []",
        FACTORIES,
    ),
    Mutation(
        "a client does not go where a follower sends it",
        "seeking",
        "if leader and leader not in (name, self.leader):",
        "if False:",
        FACTORIES,
    ),
    Mutation(
        "a result counts that comes from another worker",
        "dispatch",
        "self._crews[worker.type].take_from(worker, piece_id, elapsed_s)",
        "self._pieces.get(piece_id)",
        WORK,
    ),
    Mutation(
        "a result counts that comes after the verdict",
        "dispatch",
        "if piece is not None and piece.is_over:",
        "if False:",
        INTERRUPTS,
    ),
    Mutation(
        "what kills workers is not quarantined",
        "dispatch",
        "elif len(piece.deaths) >= (piece.max_kills or self.max_kills):",
        "elif False:",
        WORK,
    ),
    Mutation(
        "what raised is not tried again",
        "dispatch",
        "if can_retry and piece.interrupted_at is None:",
        "if False:",
        ERRORS,
    ),
    Mutation(
        "losses are not counted against retries",
        "dispatch",
        "elif piece.losses > piece.retries:",
        "elif False:",
        WORK,
    ),
    Mutation(
        "what waited at a lost worker is forgotten",
        "dispatch",
        "effects += self._put_back(now, single)",
        "self._forget(single)",
        WORK,
    ),
    Mutation(
        "what a worker leaves of a bundle is forgotten",
        "dispatch",
        "return effects + [e for piece in rest for e in self._put_back(now, piece)]",
        "return effects + [e for piece in rest for e in self._forget(piece) or []]",
        WORK,
    ),
    Mutation(
        "a cancelled piece of a bundle comes back",
        "dispatch",
        "piece.is_over = bundle.is_over or piece.id in bundle.gone",
        "piece.is_over = bundle.is_over",
        INTERRUPTS,
        50,
    ),
    Mutation(
        "an interrupted piece runs again",
        "dispatch",
        "if piece.interrupted_at is not None:\n            verdict =",
        "if False:\n            verdict =",
        INTERRUPTS,
        40,
    ),
    Mutation(
        "a worker forgets what it was asked to give back",
        "inbox",
        "return [ReturnPiece(waiting.key) for waiting in back]",
        "return []",
        WORK,
    ),
    Mutation(
        "a worker takes more than it has room for",
        "inbox",
        "if running or self.is_draining or self._is_full(piece):",
        "if running or self.is_draining:",
        WORK,
    ),
    Mutation(
        "a worker takes pieces of both classes by their priority alone",
        "inbox",
        "rank += REALTIME",
        "pass",
        URGENCY,
    ),
    Mutation(
        "a real-time piece waits for the credit that batch pieces use up",
        "crew",
        "return is_passed_by and worker.rests_until is None",
        "return False",
        URGENCY,
    ),
    Mutation(
        "a real-time piece waits behind batch pieces for any worker",
        "crew",
        "        if self.urgent:\n            self._assign_urgent(now, batches)\n"
        "        if self._wanted:\n            self._assign_wanted(now, batches)\n",
        "        if self._wanted:\n            self._assign_wanted(now, batches)\n"
        "        if self.urgent and not self.queue:\n"
        "            self._assign_urgent(now, batches)\n",
        URGENCY,
    ),
    Mutation(
        "what runs makes way for nobody",
        "inbox",
        "running.is_cut = True",
        "continue",
        URGENCY,
    ),
    Mutation(
        "a batch piece is cut short as often as it happens",
        "pieces",
        "return self.priority if self.cuts < MAX_CUTS else [self.priority, None]",
        "return self.priority",
        URGENCY,
    ),
    Mutation(
        "what made way is forgotten",
        "dispatch",
        "piece.cuts += 1\n        return self._put_back(now, piece)",
        "piece.cuts += 1\n        return []",
        URGENCY,
    ),
    Mutation(
        "what made way counts as failed",
        "dispatch",
        "piece.cuts += 1\n        return self._put_back(now, piece)",
        "piece.cuts += 1\n        return [self._end(piece, Verdict.FAILED)]",
        URGENCY,
    ),
]


def code_of(thing: Any) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions of a module or class, by a name that tells them apart."""
    for name, value in vars(thing).items():
        for part in (
            value,
            getattr(value, "fget", None),
            getattr(value, "__func__", None),
        ):
            if isinstance(part, FunctionType) and part.__module__ == _name(thing):
                yield name, part
        if inspect.isclass(value) and value.__module__ == _name(thing):
            for inner, function in code_of(value):
                yield f"{name}.{inner}", function


def _name(thing: Any) -> str:
    return str(thing.__name__ if isinstance(thing, ModuleType) else thing.__module__)


@contextlib.contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """Have a mistake in the real module for as long as the block lasts."""
    module = importlib.import_module(f"opencluster.core.{mutation.module}")
    text = inspect.getsource(module)
    assert text.count(mutation.right) == 1, f"{mutation.right!r} is not there once"
    changed = ModuleType(module.__name__)
    mistaken = text.replace(mutation.right, mutation.wrong)
    exec(compile(mistaken, module.__file__ or "", "exec"), vars(changed))
    real, wrong = dict(code_of(module)), dict(code_of(changed))
    assert real.keys() == wrong.keys()
    code = {
        name: function.__code__
        for name, function in real.items()
        if function.__code__ != wrong[name].__code__
    }
    constants = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, int | float | str)
        and not name.startswith("__")
        and value != vars(changed)[name]
    }
    assert code or constants, "nothing changed"
    try:
        for name in code:
            real[name].__code__ = wrong[name].__code__
        for name in constants:
            setattr(module, name, vars(changed)[name])
        yield
    finally:
        for name, original in code.items():
            real[name].__code__ = original
        for name, value in constants.items():
            setattr(module, name, value)


def search(mutation: Mutation, seeds: int) -> tuple[int, str]:
    """Return the seed that shows a mistake, and what it broke.

    Raises
    ------
    AssertionError
        When it was not found.
    """
    with applied(mutation):
        for seed in range(mutation.first, mutation.first + seeds):
            try:
                run_world(World(draw(seed, mutation.focus)))
            except Broken as broken:
                return seed, broken.rule
            except Exception as error:
                return seed, f"{type(error).__name__} in {mutation.module}"
    raise AssertionError(f"{mutation.name}: not found in {seeds} seeds")
