"""What a factory takes to keep a thousand computers and ten thousand workers in mind.

The factory is a real process, started as users start it. The workshops are simulated
by `crowd`, each with a connection of its own over TCP; look-ups are made by a process
of their own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import psutil

from bench.figures import Figure, percentile
from bench.machine import ROOT
from bench.processes import MIB, cpu_seconds
from bench.workers import TARGET
from opencluster.config import load
from opencluster.net.control import Control
from opencluster.place import (
    DIRECTORY_VARIABLE,
    FACTORIES_VARIABLE,
    Place,
    factories,
)
from opencluster.testing.local_cluster import LocalCluster

CROWDS = 2
"""Processes that simulate the workshops."""
WORKERS = 10
"""Workers of each workshop."""
SETTLE_S = 3.0
"""After the last registration, before anything is measured."""
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Load:
    """How much is asked of the factories, and for how long it is watched."""

    workshops: int
    seconds: float
    runs: int


def measure(is_quick: bool) -> list[Figure]:
    """Measure one factory, then three of which one leads."""
    load = Load(100, 3.0, 2) if is_quick else Load(1000, 20.0, 3)
    pattern = real_workshop()
    return [
        figure for count in (1, 3) for figure in _with_factories(count, load, pattern)
    ]


def real_workshop() -> dict[str, Any]:
    """Return the entries and the figures of a real workshop and its workers."""
    with LocalCluster({TARGET: WORKERS}) as here:
        while True:
            status = here.ask_factory("status")
            figures = [status["figures"].get(e["id"]) for e in status["entries"]]
            if len(figures) == WORKERS + 1 and all(figures):
                return {"entries": status["entries"], "figures": figures}
            time.sleep(0.1)


def _with_factories(count: int, load: Load, pattern: Mapping[str, Any]) -> list[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        pids = stack.enter_context(_factories(count, folder))
        stack.enter_context(_crowd(load, pattern, folder))
        time.sleep(SETTLE_S)
        runs = [_run(pids, load.seconds) for _ in range(load.runs)]
    return [
        Figure("factory", f"{name}, {load.workshops} workshops", unit, values)
        for (name, unit), values in _columns(runs).items()
    ]


def _columns(
    runs: Sequence[Mapping[tuple[str, str], float]],
) -> dict[tuple[str, str], list[float]]:
    return {key: [run[key] for run in runs] for key in runs[0]}


def _run(pids: Mapping[str, int], seconds: float) -> dict[tuple[str, str], float]:
    """Watch the factories while nobody asks, and then while somebody does."""
    run: dict[tuple[str, str], float] = {}
    for name, percent in _cpu(pids, lambda: time.sleep(seconds)).items():
        run[f"{name}, CPU", "% of a core"] = percent
    for name, pid in pids.items():
        memory = psutil.Process(pid).memory_full_info()
        run[f"{name}, resident", "MiB"] = memory.rss / MIB
        run[f"{name}, proportional (PSS)", "MiB"] = memory.pss / MIB
    taken: list[float] = []
    for name, percent in _cpu(pids, lambda: taken.extend(_look_up(seconds))).items():
        run[f"{name}, CPU with look-ups", "% of a core"] = percent
    one = "look-up" if len(pids) == 1 else "look-up of three"
    run[f"{one}, median", "ms"] = percentile(taken, 50)
    run[f"{one}, p99", "ms"] = percentile(taken, 99)
    run[f"{one}, longest", "ms"] = max(taken)
    return run


def _cpu(pids: Mapping[str, int], meanwhile: Callable[[], object]) -> dict[str, float]:
    """Return how much of a core each process takes while something goes on."""
    before = {name: cpu_seconds([pid]) for name, pid in pids.items()}
    started = time.perf_counter()
    meanwhile()
    elapsed_s = time.perf_counter() - started
    return {
        name: (cpu_seconds([pid]) - before[name]) / elapsed_s * 100
        for name, pid in pids.items()
    }


def _look_up(seconds: float) -> list[float]:
    command = [sys.executable, "-m", "bench.lookups", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    taken: list[float] = json.loads(done.stdout)
    return taken


# --- processes -----------------------------------------------------------------


@contextmanager
def _factories(count: int, folder: Path) -> Iterator[dict[str, int]]:
    """Run so many factories; yield their process numbers, the leader's first."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(count)]
    ours = {
        FACTORIES_VARIABLE: ",".join(addresses),
        DIRECTORY_VARIABLE: str(folder),
    }
    with ExitStack() as stack:
        stack.enter_context(_environment(ours))
        for number, address in enumerate(addresses):
            host, _, port = address.partition(":")
            options = ["--host", host, "--port", port, "--dir", f"{folder}/{number}"]
            command = [sys.executable, "-m", "opencluster", "factory", *options]
            stack.enter_context(_process(command, folder / f"factory-{number}.log"))
        yield _roles(count)


def _roles(count: int) -> dict[str, int]:
    """Return the process number of each factory by what it is, when all are here."""
    config = load()
    deadline = time.monotonic() + READY_TIMEOUT_S
    with Control(config, partial(factories, config, Place.find())) as control:
        while len(here := control.factory("status")["factories"]) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(here)} of {count} factories came")
            time.sleep(0.1)
    if count == 1:
        return {"one factory": here[0]["pid"]}
    ordered = sorted(here, key=lambda factory: factory["role"] != "leader")
    names = ["leader of three", "follower", "other follower"]
    return {name: f["pid"] for name, f in zip(names, ordered, strict=True)}


@contextmanager
def _crowd(load: Load, pattern: Mapping[str, Any], folder: Path) -> Iterator[None]:
    """Simulate the workshops in a few processes; begin when all are registered."""
    path = folder / "pattern"
    path.write_bytes(msgpack.packb(dict(pattern)))
    each = load.workshops // CROWDS
    with ExitStack() as stack:
        crowds = []
        for number in range(CROWDS):
            options = ["--first", str(number * each), "--count", str(each)]
            command = [sys.executable, "-m", "bench.crowd", str(path), *options]
            log = folder / f"crowd-{number}.log"
            crowds.append(stack.enter_context(_process(command, log)))
        _wait(crowds, [folder / f"crowd-{number}.log" for number in range(CROWDS)])
        yield
        for number, crowd in enumerate(crowds):
            if crowd.poll() is not None:
                raise RuntimeError((folder / f"crowd-{number}.log").read_text())


def _wait(crowds: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not all("registered" in log.read_text() for log in logs):
        ended = any(crowd.poll() is not None for crowd in crowds)
        if ended or time.monotonic() > deadline:
            said = "\n".join(log.read_text() for log in logs)
            raise RuntimeError(f"the crowd did not register:\n{said}")
        time.sleep(0.1)


@contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _environment(ours: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, all different."""
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
