"""Whatever process is killed, at random, for some time."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter

import pytest
from chaos_report import Tell
from chaos_scene import SECONDS, TIMEOUT_S, WIDE, Scene, scene
from chaos_watch import watched

pytestmark = [pytest.mark.processes, pytest.mark.timeout(TIMEOUT_S)]

SEED_VARIABLE = "CHAOS_SEED"
"""Repeats the choices of a run; not their effects, which depend on the machine."""
PAUSE_S = (0.1, 0.8)
"""Range of the time between two kills, and half of that for which one is down."""


class Killer:
    """Kills programs and workers at random, and starts the programs again."""

    def __init__(self, here: Scene, seed: int) -> None:
        self._here = here
        self._cluster = here.cluster
        self._random = random.Random(seed)
        self._down: dict[str, float] = {}
        self._kinds: list[str] = []
        self.kills: Counter[str] = Counter()

    def go_on_for(self, seconds: float) -> None:
        """Kill for so long, then start everything again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._raise(time.monotonic())
            self._kill(self._next_kind())
            time.sleep(self._random.uniform(*PAUSE_S))
        self._raise(float("inf"))

    def _raise(self, now: float) -> None:
        for name in [name for name, due in self._down.items() if due <= now]:
            del self._down[name]
            self._cluster.restart(name)

    def _next_kind(self) -> str:
        """Return what to kill: at random, and each of them soon."""
        if not self._kinds:
            self._kinds = ["workers", "workers", "workshops", "factories"]
            self._random.shuffle(self._kinds)
        return self._kinds.pop()

    def _kill(self, kind: str) -> None:
        if kind == "workers":
            self._kill_worker()
            return
        is_shop = kind == "workshops"
        names = self._here.workshops if is_shop else self._cluster.factories
        up = [name for name in names if name not in self._down]
        if not up:
            return
        name = self._random.choice(up)
        self._cluster.kill(name)
        self.kills[kind] += 1
        pause_s = 2 * self._random.uniform(*PAUSE_S)
        self._down[name] = time.monotonic() + pause_s

    def _kill_worker(self) -> None:
        pids = [p for w in self._here.workshops for p in self._cluster.workers_of(w)]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(pids), signal.SIGKILL)
                self.kills["workers"] += 1


def test_workers_workshops_and_factories_are_killed_at_random(tell: Tell) -> None:
    drawn = random.SystemRandom().randrange(1 << 32)
    seed = int(os.environ.get(SEED_VARIABLE, drawn))
    print(f"{SEED_VARIABLE}={seed}")
    with scene(workshops=3, settings=WIDE) as here:
        here.start_map(1000)
        killer = Killer(here, seed)
        with watched(here.cluster) as watch:
            began_at = time.monotonic()
            killer.go_on_for(SECONDS)
            here.check_whole()
            interruption_s = here.interruption_s(began_at)
        kills = ", ".join(f"{n} {what}" for what, n in sorted(killer.kills.items()))
        outcome = here.finish_map(
            f"kill -9 at random for {SECONDS:.0f} s, each started again: {kills}",
            [interruption_s],
            f"{len(watch.claims)} epochs",
            f"seed {seed}",
        )
    tell(outcome)
    outcome.account.check()
    assert set(killer.kills) == {"factories", "workers", "workshops"}
    # the pieces that went with their workers
    assert outcome.account.runs > outcome.account.asked >= 1000
