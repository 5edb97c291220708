"""Watches which factories say that they lead, for as long as faults go on."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from chaos_cluster import ChaosCluster

from opencluster.errors import OpenClusterError

PAUSE_S = 0.03

Run = tuple[str, int]
"""A factory and its process; another one may have lost its disk, and what it knew."""


class Watch:
    """Asks every factory again and again.

    Attributes
    ----------
    claims : dict
        For each epoch the factories that said that they lead with it.
    broken : list of str
        What must not be, as a sentence.
    """

    def __init__(self, cluster: ChaosCluster) -> None:
        self._cluster = cluster
        self.claims: defaultdict[tuple[int, ...], set[str]] = defaultdict(set)
        self.broken: list[str] = []
        self._newest: dict[Run, int] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def check(self) -> None:
        """Fail when two led with one epoch, or a factory forgot an epoch."""
        assert self.claims, "nobody ever led"
        shared = {e: names for e, names in self.claims.items() if len(names) > 1}
        assert not shared, f"led with one epoch: {shared}"
        assert not self.broken, self.broken

    def _run(self) -> None:
        is_over = False
        # one last round when it is over and everything is well again
        while not is_over:
            is_over = self._is_over.wait(PAUSE_S)
            for name in self._cluster.factories:
                self._ask(name)

    def _ask(self, name: str) -> None:
        before = self._run_of(name)
        try:
            said = self._cluster.hello(name, timeout_s=0.3)
        except OpenClusterError as error:
            self.broken.append(f"{name} declined: {error}")
            return
        # of which process it is cannot be told when that has just been started again
        if said and before == self._run_of(name):
            self._note(name, before, said)

    def _run_of(self, name: str) -> Run:
        program = self._cluster.programs.get(name)
        return name, program.process.pid if program and program.process else 0

    def _note(self, name: str, run: Run, said: Mapping[str, Any]) -> None:
        epoch = tuple(said["epoch"])
        if epoch[0] < self._newest.get(run, 0):
            self.broken.append(f"{name} went back from {self._newest[run]} to {epoch}")
        self._newest[run] = epoch[0]
        if said["role"] == "leader":
            self.claims[epoch].add(name)


@contextmanager
def watched(cluster: ChaosCluster) -> Iterator[Watch]:
    """Watch while the block lasts, and fail afterwards if something was amiss."""
    watch = Watch(cluster)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
    watch.check()
