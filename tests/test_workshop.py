"""The workshop as others see it: what it starts, refuses, tells and leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_programs import TARGET

from opencluster.errors import RequestRefused, StartFailed
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes

DEADLINE_S = 60.0
WORKER = f"{TARGET}:ToolWorker"
BROKEN_SERVICE = """
from opencluster import Service

class BrokenService(Service):
    def startup(self):
        raise RuntimeError("the toolbox is locked")
"""


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def pids(here: LocalCluster, kind: str = "worker") -> set[int]:
    return {entry["pid"] for entry in here.ask_factory("find", {"kind": kind})}


@contextmanager
def workshop(here: LocalCluster, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run one more workshop in the directory of a cluster."""
    command = [sys.executable, "-m", "opencluster", "--dir", str(here.place.path)]
    command += ["workshop", "--workers", f"{WORKER}=1"]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def test_catalogue_has_an_end() -> None:
    with LocalCluster({WORKER: 1}, {"limits.max_types": 2}) as here:
        order = {"kind": "worker", "target": WORKER}
        for name in ("Second", "Second", "Tool"):
            here.ask_workshop("start", {"entry": order | {"name": name}, "count": 0})
        with pytest.raises(RequestRefused, match="catalogue .* full .*max_types"):
            bad = {"entry": order | {"name": "Third"}, "count": 1}
            here.ask_workshop("start", bad)
        with pytest.raises(RequestRefused, match="larger than .*max_entry_bytes"):
            huge = {"name": "Second", "type": "x" * (1 << 20)}
            here.ask_workshop("start", {"entry": order | huge, "count": 1})
        catalogue = here.ask_workshop("status", {})["catalogue"]
        assert {row["type"] for row in catalogue} == {"Tool", "Second"}


def test_a_start_that_makes_no_sense_is_refused_and_changes_nothing() -> None:
    with LocalCluster({WORKER: 1}) as here:
        before = pids(here)
        order = {"kind": "worker", "name": "Tool", "target": WORKER}
        wrong: list[tuple[str, Any]] = [("gpus", "x"), ("environment", [1])]
        for field, value in [*wrong, ("name", "a\0b"), ("directory", "\0")]:
            with pytest.raises(RequestRefused, match=field):
                bad = {"entry": order | {field: value}, "count": 1}
                here.ask_workshop("start", bad)
        with pytest.raises(RequestRefused, match="count: got '1001'"):
            here.ask_workshop("start", {"entry": order, "count": 1001})
        with pytest.raises(RequestRefused, match="count: got '1001'"):
            here.ask_workshop("scale", {"type": "Tool", "count": 1001})
        (known,) = here.ask_workshop("status", {})["catalogue"]
        assert known == {"name": "Tool", "type": "Tool", "kind": "worker", "count": 1}
        # the entry that it had is still the one that is started
        here.ask_workshop("restart", {"name": "Tool-1"})
        wait_until(lambda: pids(here) and not pids(here) & before)


def test_what_does_not_start_is_told_with_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(BROKEN_SERVICE)
    with LocalCluster() as here:
        for kind, name, target in (
            ("service", "toolbox", f"{path}:BrokenService"),
            ("worker", "Broken", f"{TARGET}:BrokenWorker"),
        ):
            order = {"kind": kind, "name": name, "target": target}
            told: list[Any] = []

            def look(name: str = name, told: list[Any] = told) -> bool:
                told[:] = here.ask_factory("find", {"kind": "failure", "type": name})
                return bool(told)

            # scaled, it is tried again and again, and the failure stands
            with pytest.raises(StartFailed):
                here.ask_workshop("start", {"entry": order, "count": 1})
            with pytest.raises(StartFailed):
                here.ask_workshop("scale", {"type": name, "count": 1})
            wait_until(look)
            assert told[0]["attributes"]["of_kind"] == kind


def test_a_second_workshop_in_a_directory_is_refused_and_harms_nothing(
    tmp_path: Path,
) -> None:
    log = tmp_path / "second.log"
    with LocalCluster({WORKER: 1}) as here:
        before, (first,) = pids(here), pids(here, "workshop")
        with workshop(here, log) as second:
            assert second.wait(DEADLINE_S) == 1
        assert f"runs already on this computer (pid {first})" in log.read_text()
        assert "Traceback" not in log.read_text()
        for pid in before:
            os.kill(pid, 0)
        assert pids(here) == before


def test_a_killed_workshop_leaves_its_successor_nothing_to_stumble_over(
    tmp_path: Path,
) -> None:
    with LocalCluster({WORKER: 1}, {"cluster.lease_s": 2}) as here:
        before, (first,) = pids(here), pids(here, "workshop")
        stale = {
            *here.place.sockets.glob("*.board"),
            *here.place.sockets.glob("*.entry"),
        }
        assert len(stale) == 2
        os.kill(first, signal.SIGKILL)
        with workshop(here, tmp_path / "second.log"):
            wait_until(lambda: pids(here) - before)
            assert not [path for path in stale if path.exists()]
