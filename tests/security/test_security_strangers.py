"""Without keys nothing listens where strangers come by, unless that is meant."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from security_site import PROGRAMS, Computer
from security_tools import wait_until

from opencluster.config import load
from opencluster.engines.cluster import ClusterEngine
from opencluster.place import Place

pytestmark = pytest.mark.processes

LISTENING = "0A"
"""The state of a TCP socket in /proc/net/tcp that takes connections."""
FACTORIES = "127.0.0.1:9"
"""A list of factories, so that daemons listen at TCP; nobody is there."""
EVERYWHERE = {"OPENCLUSTER_NETWORK_BIND": "0.0.0.0"}
READY = f"""
import sys
sys.path.insert(0, {str(PROGRAMS.parent)!r})
import security_programs as programs
"""
WAYS = {
    "factory": (["factory"], "", EVERYWHERE),
    "factory --host": (["factory", "--host", "0.0.0.0"], "", {}),
    "factory --listen": (["factory", "--listen", "tcp://0.0.0.0:0"], "", {}),
    "factory --listen ipc": (["factory", "--listen", "ipc://@name"], "", {}),
    "workshop": (["workshop"], FACTORIES, EVERYWHERE),
    "worker": (
        ["worker", f"{PROGRAMS}:SquareWorker", "--foreground"],
        FACTORIES,
        EVERYWHERE,
    ),
    "service": (
        ["worker", f"{PROGRAMS}:AdderService", "--foreground"],
        FACTORIES,
        EVERYWHERE,
    ),
}
"""What is started, the list of factories, and further settings."""
CALLS = {
    "worker": 'programs.SquareWorker().ready("Square", "0.0.0.0", 0)',
    "worker at a port": 'programs.SquareWorker().ready("Square", "0.0.0.0", 9280)',
    "service": 'programs.AdderService().ready("adder", "0.0.0.0", 9280)',
}
"""What a user's own program calls."""


@pytest.fixture
def bare(tmp_path: Path) -> Computer:
    """Return a computer without keys, whose path is too long for sockets."""
    made = Computer(tmp_path / ("bare" * 20))
    made.environment["OPENCLUSTER_CLUSTER_KEYS"] = ""
    return made


def check_refused(bare: Computer, text: str, code: int) -> None:
    """Fail unless it was refused with the cure, and nothing is left behind."""
    assert code == 1
    assert "refusing to listen at" in text
    assert "opencluster keys new" in text
    assert "insecure = true" in text
    assert not Place(bare.path / "c").sockets.exists()
    assert not (bare.path / "c").exists()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_started_where_strangers_come_by(bare: Computer, way: str) -> None:
    command, factories, settings = WAYS[way]
    bare.environment["OPENCLUSTER_CLUSTER_FACTORIES"] = factories
    check_refused(bare, *bare.command(*command, **settings))


@pytest.mark.parametrize("call", CALLS)
def test_a_program_gets_not_ready_where_strangers_come_by(
    bare: Computer, call: str
) -> None:
    bare.environment["OPENCLUSTER_CLUSTER_FACTORIES"] = FACTORIES
    check_refused(bare, *bare.program(READY + CALLS[call]))


def test_it_can_be_meant(bare: Computer) -> None:
    bare.environment["OPENCLUSTER_CLUSTER_INSECURE"] = "true"
    bare.start("factory", "--host", "0.0.0.0", "--port", "0")
    try:
        announced = re.compile(r"factory at tcp://(?!0\.)[\d.]+:\d+")
        wait_until(lambda: announced.search(bare.said()))
    finally:
        bare.stop()
        Place(bare.path / "c").forget()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder with a short path that others may enter and write to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_loopback_and_local_sockets_need_no_keys(
    bare: Computer, open_folder: Path
) -> None:
    bare.start("factory", "--port", "0")
    bare.start("factory", "--listen", f"ipc://{open_folder}/s", "--number", "2")
    try:
        wait_until(lambda: bare.said().count("factory at") == 2)
    finally:
        bare.stop()
        Place(bare.path / "c").forget()


def test_a_local_socket_is_closed_to_others_wherever_it_stands(
    bare: Computer, open_folder: Path
) -> None:
    path = open_folder / "s"
    before = os.umask(0)
    try:
        bare.start("factory", "--listen", f"ipc://{path}")
    finally:
        os.umask(before)
    try:
        wait_until(lambda: "factory at" in bare.said())
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        state = bare.path / "c"
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "factory").stat().st_mode) == 0o700
        assert stat.S_IMODE(Place(state).sockets.stat().st_mode) == 0o700
    finally:
        bare.stop()
        Place(bare.path / "c").forget()


def listening() -> set[str]:
    """Return the TCP sockets of this process at which somebody could come in."""
    links = (
        str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()
    )
    mine = {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/self/net/{name}").read_text().splitlines()[1:]
    ]
    return {row[9] for row in rows if row[3] == LISTENING and row[9] in mine}


def test_a_manager_listens_nowhere(tmp_path: Path) -> None:
    before = listening()
    settings = {("cluster", "factories"): FACTORIES, ("network", "bind"): "0.0.0.0"}
    config = load(files=[], environ={}, overrides=settings)
    engine = ClusterEngine(config, Place(tmp_path))
    try:
        assert listening() == before
    finally:
        engine.close()
