"""Feed handlers wrong messages until something gives.

    python tests/fuzz/fuzz.py                        every target, a minute in all
    python tests/fuzz/fuzz.py --seconds 600          longer
    python tests/fuzz/fuzz.py --target factory       one target
    python tests/fuzz/fuzz.py --target factory --seed 17    one episode, once more

An episode is decided by its seed: it builds the object that it looks at, feeds it some
hundred messages, right ones and wrong ones, and at last lets it do its work. Without
`--first` the seeds are fresh ones. The targets take turns, so that all have had some
time whenever the run is ended, by Ctrl-C too. Nothing is written to any file.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from fuzz_episode import Complaints, Episode
from fuzz_net import in_memory
from fuzz_targets import TARGETS

CLOCK = time.perf_counter
SHOWN_BYTES = 300
TURN_S = 5.0
"""How long a target is fuzzed before the next one has its turn, at most."""
EPISODE_S = 120
"""An episode that takes longer, which is a hundred times what they take, hangs."""
FRESH = 1 << 32
"""Fresh seeds begin below this."""


@dataclass
class Finding(Exception):
    """An episode that went wrong."""

    target: str
    seed: int
    report: str

    def __str__(self) -> str:
        command = f"python tests/fuzz/fuzz.py --target {self.target} --seed {self.seed}"
        return f"{self.target}, seed {self.seed}:\n{self.report}\nreplay: {command}"


def play(kind: type[Episode], seed: int) -> int:
    """Go through one episode, and return how many messages it had.

    Raises
    ------
    Finding
        When a rule was broken.
    """
    complaints = Complaints()
    complaints.listen()
    episode = None
    try:
        with in_memory(kind.modules, kind.stand_ins):
            episode = kind(Random(seed))
            try:
                episode.run()
            finally:
                episode.close()
        assert not complaints.found, complaints.found[0]
    except Exception:
        last = episode.last if episode is not None else b""
        shown = f"{last[:SHOWN_BYTES]!r} ({len(last)} bytes)"
        report = f"{traceback.format_exc()}\nlast message: {shown}"
        raise Finding(kind.name, seed, report) from None
    finally:
        complaints.leave()
    return episode.executions


@dataclass
class Tally:
    """What came of fuzzing one target.

    Parameters
    ----------
    kind : type of Episode
        The target.
    first : int
        Seed of its first episode.
    """

    kind: type[Episode]
    first: int
    executions: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._seeds = itertools.count(self.first)

    def go_on(self, seconds: float, most: int) -> None:
        """Go through episodes for some time, or until so many went wrong."""
        started = CLOCK()
        try:
            while len(self.findings) < most:
                self._play_next()
                if CLOCK() - started > seconds:
                    break
        finally:
            self.seconds += CLOCK() - started

    def _play_next(self) -> None:
        signal.alarm(EPISODE_S)
        try:
            self.executions += play(self.kind, next(self._seeds))
        except Finding as finding:
            self.findings.append(finding)
            print(finding, "\n", flush=True)
        finally:
            signal.alarm(0)

    def __str__(self) -> str:
        rate = self.executions / max(self.seconds, 1e-9)
        return (
            f"{self.kind.name:9} {self.executions:10,} executions {rate:8,.0f}/s  "
            f"{len(self.findings)} findings, seeds from {self.first}"
        )


def take_turns(tallies: Sequence[Tally], seconds: float, most: int) -> None:
    """Fuzz all targets in turn, and tell every now and then how it goes."""
    end = CLOCK() + seconds
    turn_s = min(TURN_S, seconds / len(tallies))
    while any(len(tally.findings) < most for tally in tallies):
        for tally in tallies:
            tally.go_on(turn_s, most)
            left_s = end - CLOCK()
            if all(t.seconds for t in tallies) and left_s < turn_s:
                return
        done = sum(tally.executions for tally in tallies)
        found = sum(len(tally.findings) for tally in tallies)
        print(f"{left_s:5.0f} s left, {done:,} executions, {found} findings")
        sys.stdout.flush()


def hung(*signal_and_frame: object) -> None:
    """End an episode that does not end."""
    raise TimeoutError(f"the episode took more than {EPISODE_S} s")


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [kind.name for kind in TARGETS]
    parser.add_argument("--target", choices=names, action="append", default=[])
    parser.add_argument("--seconds", type=float, default=60.0, help="of all targets")
    parser.add_argument("--seed", type=int, help="go through this episode alone")
    parser.add_argument("--first", type=int, help="seed to begin with")
    parser.add_argument("--most", type=int, default=1, help="findings of each target")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program, and return its exit status."""
    options = options_of(arguments)
    signal.signal(signal.SIGALRM, hung)
    first = options.first if options.first is not None else secrets.randbelow(FRESH)
    seconds = options.seconds
    if options.seed is not None:
        first, seconds = options.seed, 0.0
    wanted = [k for k in TARGETS if not options.target or k.name in options.target]
    tallies = [Tally(kind, first) for kind in wanted]
    status = 0
    try:
        take_turns(tallies, seconds, options.most)
    except KeyboardInterrupt:
        print("\ninterrupted")
        status = 130
    total = sum(tally.executions for tally in tallies)
    findings = sum(len(tally.findings) for tally in tallies)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(*tallies, sep="\n")
    print(f"{'all':9} {total:10,} executions, {findings} findings, {peak_mb:.0f} MB")
    return 1 if findings else status


if __name__ == "__main__":
    sys.exit(main())
