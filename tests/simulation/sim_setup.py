"""What a seed stands for: the processes of a world, its settings, and its faults."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from opencluster.core.election import Quorum
from opencluster.testing.virtual import Faults

SKEW = 0.1
"""By how much a clock may be too fast or too slow."""

FAULTS = (
    "noise",
    "part",
    "one-way",
    "isolate",
    "pause",
    "slow",
    "crash",
    "blink",
    "lost disk",
    "full disk",
    "slow disk",
    "torn disk",
    "flaky",
    "full queue",
    "jump forward",
    "jump back",
    "guest",
    "rolling restart",
    "late news",
    "skew",
    "worker crash",
    "worker pause",
    "workshop crash",
    "manager crash",
    "failing starts",
    "drain",
    "scale",
    "goodbye",
    "interrupt",
    "poison",
    "stubborn",
    "raising",
    "realtime",
)
"""Everything that may go wrong; each seed draws its own selection."""


@dataclass
class Setup:
    """The settings of one world.

    Attributes
    ----------
    factories, workshops, managers : list of str
        Their names; the factories in the order of the list.
    catalogues : list of dict of str to int
        What each workshop runs.
    lone : dict of str to str
        Workers without a workshop, and the type of each.
    noise : Faults
        How the network treats messages while faults are on.
    gap_s : float
        Typical time between two faults.
    company : float
        Probability that a fault brings another one with it.
    span_s : float
        For how long there are faults.
    jobs : int
        How many jobs are submitted.
    are_ports_reused : bool
        A new worker listens where its predecessor did.
    known : str
        The one factory that some clients know of, who hear of the others from it;
        empty when all know all.
    max_pieces : int
        After which a worker is replaced by a fresh one; 0 for never.
    """

    seed: int
    factories: list[str]
    workshops: list[str]
    managers: list[str]
    catalogues: list[dict[str, int]]
    lone: dict[str, str]
    quorum: Quorum
    beat_s: float
    faults: frozenset[str]
    noise: Faults
    gap_s: float
    company: float
    span_s: float
    jobs: int
    are_ports_reused: bool
    known: str
    max_pieces: int
    timeout_s: float = 1.0
    heartbeat_s: float = 0.6
    lease_s: float = 2.5
    max_kills: int = 3
    types: list[str] = field(default_factory=lambda: ["A", "B"])

    def describe(self) -> str:
        """Return it in a few lines, for people."""
        return (
            f"seed {self.seed}: {len(self.factories)} factories ({self.quorum.value}), "
            f"{len(self.workshops)} workshops {self.catalogues}, "
            f"{len(self.managers)} managers, {self.jobs} jobs, {self.span_s:.1f} s "
            f"of faults every {self.gap_s:.1f} s\n"
            f"faults: {', '.join(sorted(self.faults))}\n{self.noise}"
        )


@dataclass(frozen=True)
class Focus:
    """What a search concentrates on; whatever is not said here is drawn.

    Attributes
    ----------
    faults : tuple of str
        All that may go wrong.
    quorum : Quorum or None
        Whom a leader needs.
    factories : int
        How many there are.
    is_work : bool or None
        Jobs are submitted, rather than factories watched.
    noise : Faults or None
        How the network treats messages.
    company : float or None
        Probability that a fault brings another one with it.
    gap_s : float or None
        Typical time between two faults.
    """

    faults: tuple[str, ...] = ()
    quorum: Quorum | None = None
    factories: int = 0
    is_work: bool | None = None
    noise: Faults | None = None
    company: float | None = None
    gap_s: float | None = None


ANYTHING = Focus()


def draw(seed: int, focus: Focus = ANYTHING) -> Setup:
    """Draw a world."""
    chance = Random(f"{seed} setup")
    is_work = chance.random() < 0.5
    if focus.is_work is not None:
        is_work = focus.is_work
    shops = chance.choices([1, 2, 3], [2, 3, 1])[0] if is_work else 1
    catalogues = [{"A": chance.randint(1, 1 + is_work)} for _ in range(shops)]
    if is_work and chance.random() < 0.4:
        catalogues[0]["B"] = 1
    weights = [3, 2, 4] if is_work else [1, 3, 8, 2, 4, 1, 2]
    count = chance.choices(range(1, len(weights) + 1), weights)[0]
    share = chance.choice([0.15, 0.3, 0.5])
    faults = frozenset(name for name in FAULTS[:-1] if chance.random() < share)
    if is_work and Random(f"{seed} classes").random() < 0.5:
        # from another source, so that all other worlds stay as they are
        faults |= {"realtime"}
    faults = frozenset(focus.faults) or faults
    setup = Setup(
        seed=seed,
        factories=_names("f", focus.factories or count),
        workshops=_names("w", shops),
        managers=_names("m", chance.choice([1, 1, 2]) if is_work else 1),
        catalogues=catalogues,
        lone={"x0": "A"} if chance.random() < 0.3 else {},
        quorum=chance.choice([focus.quorum or quorum for quorum in Quorum]),
        beat_s=chance.choice([0.2, 0.25]),
        faults=faults,
        noise=_noise(chance, "noise" in faults),
        gap_s=chance.choice([0.5, 1.0, 2.0]),
        company=chance.choice([0.0, 0.3, 0.7]),
        span_s=chance.uniform(6.0, 14.0),
        jobs=chance.randint(1, 3) if is_work else 0,
        are_ports_reused=chance.random() < 0.3,
        known=f"f{chance.randrange(focus.factories or count)}"
        if chance.random() < 0.25
        else "",
        max_pieces=chance.choice([0, 0, 3]),
    )
    told = {"noise": focus.noise, "company": focus.company, "gap_s": focus.gap_s}
    return replace(
        setup, **{n: value for n, value in told.items() if value is not None}
    )


def _noise(chance: Random, is_noisy: bool) -> Faults:
    delay_s = chance.choice([0.0005, 0.002, 0.02])
    if not is_noisy:
        return Faults(delay_s=delay_s)
    return Faults(
        loss=chance.choice([0.0, 0.02, 0.1, 0.3]),
        duplication=chance.choice([0.0, 0.0, 0.1]),
        delay_s=delay_s,
        lateness=chance.choice([0.0, 0.05, 0.2]),
        late_s=chance.choice([0.1, 0.5, 2.0]),
    )


def _names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]
