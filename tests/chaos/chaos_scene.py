"""The scene of most tests: a cluster at work, watched while something happens to it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import chaos_ledger as ledger
import chaos_prober as prober
from chaos_cluster import EYE, Around, ChaosCluster, chaos_cluster, wait_until
from chaos_net import Network, network
from chaos_report import Outcome

SECONDS = float(os.environ.get("CHAOS_SECONDS", "8"))
"""For how long processes are killed at random; what else is repeated grows with it."""
IS_FULL = SECONDS >= 60
TIMEOUT_S = 180 + 4 * SECONDS
WIDE = {"manager.window": 1000}
"""As many pieces in flight as by default."""

MANAGER = "m"
WORKERS = 2
"""Workers of each workshop."""


@dataclass
class Scene:
    """A cluster at work.

    Attributes
    ----------
    net : Network
        Factories are on ``f1`` and so on, workshops on ``w1`` and so on, the manager
        and the prober on ``m``.
    cluster : ChaosCluster
        What runs there.
    path : Path
        Its files.
    workshops : list of str
        Names of the workshops.
    """

    net: Network
    cluster: ChaosCluster
    path: Path
    workshops: list[str]

    @property
    def probes(self) -> Path:
        return self.path / "probes"

    @property
    def results(self) -> Path:
        return self.path / "results"

    def runs(self, shop: str) -> Path:
        """Return the file in which the workers of a workshop note what they run."""
        return self.path / f"runs-{shop}"

    # --- the work ------------------------------------------------------------

    def start_workshop(self, name: str, **variables: str) -> None:
        """Start a workshop whose workers keep account."""
        runs = {ledger.RUNS_VARIABLE: str(self.runs(name))}
        self.cluster.start_workshop(name, ledger.TARGET, WORKERS, **runs | variables)

    def start_map(self, count: int, seconds: float = 0.04) -> None:
        """Start a map of at least so many pieces, that goes on until `finish_map`."""
        until = self.path / "until"
        until.touch()
        task = [str(self.results), str(count), str(seconds), str(until)]
        self.cluster.start_python("manager", MANAGER, ledger.PROGRAM, *task)
        wait_until(lambda: self.delivered() > 0, "a first result")

    def delivered(self) -> int:
        """Return how many results the manager got so far."""
        return self.results.read_bytes().count(b"\n") if self.results.exists() else 0

    def await_results(self, count: int) -> None:
        """Wait until so many more results were delivered."""
        wanted = self.delivered() + count
        wait_until(lambda: self.delivered() >= wanted, f"{count} more results")

    def finish_map(
        self, what: str, interruptions_s: Sequence[float], *notes: str
    ) -> Outcome:
        """Let the map come to its end, and return what became of the pieces."""
        (self.path / "until").unlink()
        program = self.cluster.programs["manager"]
        wait_until(lambda: not program.is_running, "the end of the map", 120)
        assert program.process is not None
        assert program.process.returncode == 0, program.said()
        runs = [self.runs(shop) for shop in self.workshops]
        account = ledger.account(self.results, runs)
        failed = prober.failures(self.probes)
        return Outcome(what, account, interruptions_s, failed, notes)

    # --- the look-ups --------------------------------------------------------

    def start_prober(self) -> None:
        """Look something up again and again."""
        arguments = [prober.PROGRAM, str(self.probes)]
        self.cluster.start_python("prober", MANAGER, *arguments)
        wait_until(lambda: prober.answers(self.probes), "a first look-up")

    def interruption_s(self, since: float) -> float:
        """Return the longest interruption of look-ups since then, when it is over."""
        for _ in range(2):
            # an answer to a question that was asked now, so that the end is seen
            now = time.monotonic()
            wait_until(
                lambda: prober.answers(self.probes)[-1] > now,  # noqa: B023
                "a look-up that is answered",
            )
        return prober.interruption_s(self.probes, since)

    # --- the end -------------------------------------------------------------

    def check_whole(self) -> None:
        """Fail unless in the end everyone is registered, once, under one leader."""
        self.cluster.leader()
        self.cluster.await_workers(WORKERS * len(self.workshops))

        def shops() -> bool:
            names = [e["name"] for e in self.cluster.registered("workshop")]
            return sorted(names) == sorted(self.workshops)

        wait_until(shops, "every workshop in the registry")


@contextmanager
def scene(
    factories: int = 3,
    workshops: int = 2,
    settings: Mapping[str, object] | None = None,
    around: Around | None = None,
    spare: Sequence[str] = (),
) -> Iterator[Scene]:
    """Yield a cluster of so many factories and workshops, all of them ready.

    Its look-ups are measured. Hosts that are spare have no program at first.
    """
    places = [f"f{n}" for n in range(1, factories + 1)]
    shops = [f"w{n}" for n in range(1, workshops + 1)]
    with (
        network(*places, *shops, *spare, MANAGER, EYE) as net,
        tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as path,
        chaos_cluster(net, Path(path), settings, around) as cluster,
    ):
        here = Scene(net, cluster, Path(path), shops)
        cluster.start_factories()
        for shop in shops:
            here.start_workshop(shop)
        cluster.await_workers(WORKERS * workshops)
        here.start_prober()
        yield here
