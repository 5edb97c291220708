"""The disk is full under the directory in which a factory keeps its epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from chaos_cluster import ChaosCluster, wait_until
from chaos_report import Tell
from chaos_scene import TIMEOUT_S, scene
from chaos_watch import watched

pytestmark = [pytest.mark.processes, pytest.mark.timeout(TIMEOUT_S)]

VICTIM = "f1"
BLOCK = bytes(1024)


def on_a_small_disk(program: str, directory: Path) -> Sequence[str]:
    """Give the state of one factory a file system of its own, of a few pages.

    Only that process sees it, and it vanishes with the process.
    """
    if program != VICTIM:
        return []
    state = _state(directory)
    state.mkdir(parents=True, mode=0o700)
    mount = 'mount -t tmpfs -o size=32k,mode=700 small "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", mount, str(state)]


def _state(directory: Path) -> Path:
    return directory / "factory"


def _disk(cluster: ChaosCluster) -> Path:
    """Return the directory as the factory sees it."""
    state = _state(cluster.directory(VICTIM))
    return Path(f"/proc/{cluster.programs[VICTIM].pid}/root{state}")


def _fill(disk: Path) -> Path:
    """Write until there is no room, and return the file."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(BLOCK)
    return filler


def test_a_factory_whose_disk_is_full_leaves_leading_to_the_others(tell: Tell) -> None:
    with scene(around=on_a_small_disk) as here:
        cluster = here.cluster
        here.start_map(500)
        interruptions_s = []
        with watched(cluster):
            # it stands first in the list
            assert cluster.leader() == VICTIM
            filler = _fill(_disk(cluster))
            # who leads already needs no room
            here.await_results(20)
            assert cluster.leader() == VICTIM

            # when it has to stand again, it cannot
            stopped_at = time.monotonic()
            cluster.stop(VICTIM)
            second = cluster.leader(["f2", "f3"])
            interruptions_s.append(here.interruption_s(stopped_at))
            cluster.go_on(VICTIM)
            assert cluster.leader() == second
            killed_at = time.monotonic()
            cluster.kill(second)
            third = cluster.leader()
            interruptions_s.append(here.interruption_s(killed_at))
            assert third != VICTIM
            assert "cannot save the epoch" in cluster.programs[VICTIM].said()
            cluster.restart(second)
            here.check_whole()

            # with room it takes part in full: it leads when it is the only one
            filler.unlink()
            others_gone_at = time.monotonic()
            for name in ("f2", "f3"):
                cluster.kill(name)
            assert cluster.leader() == VICTIM
            interruptions_s.append(here.interruption_s(others_gone_at))
            wait_until(
                lambda: (
                    str(cluster.hello(VICTIM)["epoch"][0])  # type: ignore[index]
                    in (_disk(cluster) / "epoch").read_text()
                ),
                "its epoch is on its disk",
            )
            for name in ("f2", "f3"):
                cluster.restart(name)
            here.check_whole()
        outcome = here.finish_map(
            "full disk under the leader's state; it is stopped, its successor killed, "
            "and with room again both others are killed",
            interruptions_s,
            "the longest until it tried again to lead, when nobody else was left",
        )
    tell(outcome)
    outcome.account.check()
    assert outcome.account.runs == outcome.account.asked
