"""How much of a 1 Gbit/s network a map over blocks uses, beside plain TCP.

Two computers, see `bench.computers`: the manager and the factory are on one, the
workshop and its workers on the other. So all that is moved goes over the cable.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from bench.computers import Computer, computers
from bench.figures import Figure
from bench.machine import ROOT
from bench.workers import TARGET
from opencluster.config.loading import PREFIX

RATE_MBIT = 1000
ROUNDS, QUICK_ROUNDS = 3, 1
BLOCKS, QUICK_BLOCKS = 30, 4
WORKERS = 2
FACTORY_PORT, PLAIN_PORT = 9100, 9200
KEYS = (False, True)
"""Without keys, and with them, when all is encrypted."""
PROGRAMS = [sys.executable, "-m", "bench.lan_programs"]
OPENCLUSTER = [sys.executable, "-m", "opencluster"]
WAYS = {
    "out": "blocks of 5 MB to workers, small results",
    "back": "small pieces, results of 5 MB",
}


def measure(is_quick: bool) -> list[Figure]:
    """Measure without keys and with them, in both directions."""
    rounds, blocks = (QUICK_ROUNDS, QUICK_BLOCKS) if is_quick else (ROUNDS, BLOCKS)
    with computers(2, RATE_MBIT) as (near, far):
        return [
            figure
            for has_keys in KEYS
            for figure in _of_cluster(near, far, has_keys, rounds, blocks)
        ]


def _of_cluster(
    near: Computer, far: Computer, has_keys: bool, rounds: int, blocks: int
) -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="oc-lan-") as folder,
        _cluster(near, far, Path(folder), has_keys) as environment,
    ):
        options = ["--rounds", str(rounds), "--blocks", str(blocks)]
        command = [*PROGRAMS, "measure", far.address, str(PLAIN_PORT), *options]
        with near.popen(command, environment, stdout=subprocess.PIPE) as process:
            said, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"measuring ended with status {process.returncode}")
    measured = json.loads(said)
    name = f"{RATE_MBIT} Mbit/s, {'keys' if has_keys else 'no keys'}"
    for way, what in WAYS.items():
        ours = [each[f"map {way}"] for each in measured]
        plain = [each[f"tcp {way}"] for each in measured]
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        shares = [100 * rate * 8 / RATE_MBIT for rate in ours]
        yield Figure(name, what, "MB/s", ours)
        yield Figure(name, f"plain TCP, {way}", "MB/s", plain)
        yield Figure(name, f"ratio to plain TCP, {way}", "", ratios)
        yield Figure(name, f"share of the line, {way}", "%", shares)


@contextmanager
def _cluster(
    near: Computer, far: Computer, folder: Path, has_keys: bool
) -> Iterator[dict[str, str]]:
    """Run a cluster on the two; yields the environment of a program on the near one."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    common = outside | {
        "PYTHONPATH": str(ROOT),
        "OPENCLUSTER_CLUSTER_FACTORIES": f"{near.address}:{FACTORY_PORT}",
        "OPENCLUSTER_NETWORK_BIND": "0.0.0.0",
        "OPENCLUSTER_CLUSTER_INSECURE": str(not has_keys),
        "OPENCLUSTER_CLUSTER_KEYS": str(folder / "keys") if has_keys else "",
    }
    here = common | {"OPENCLUSTER_DIR": str(folder / "near")}
    there = common | {"OPENCLUSTER_DIR": str(folder / "far")}
    if has_keys:
        subprocess.run(
            [*OPENCLUSTER, "keys", "new"], env=here, check=True, capture_output=True
        )
    shop = ["workshop", "--only", "--workers", f"{TARGET}={WORKERS}"]
    plain = [*PROGRAMS, "serve", far.address, str(PLAIN_PORT)]
    with (folder / "log").open("w") as log, ExitStack() as started:

        def start(
            computer: Computer, command: list[str], environment: dict[str, str]
        ) -> IO[str]:
            process = computer.popen(command, environment, subprocess.PIPE, log)
            started.enter_context(process)
            started.callback(process.terminate)
            assert process.stdout is not None
            return process.stdout

        start(near, [*OPENCLUSTER, "factory"], here)
        start(far, [*OPENCLUSTER, *shop], there)
        if not start(far, plain, there).readline():
            raise RuntimeError((folder / "log").read_text())
        yield here
