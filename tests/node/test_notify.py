"""systemd hears how daemons are doing, over a real socket of the kind that it gives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencluster.node.notify import Notifier

WAIT_S = 30.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder whose name is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="n-") as path:
        yield Path(path)


@pytest.fixture
def manager(folder: Path) -> Iterator[socket.socket]:
    """Stand in for systemd: the socket at which it listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(folder / "notify"))
        end.settimeout(WAIT_S)
        yield end


def address_of(manager: socket.socket) -> str:
    name: str = manager.getsockname()
    return name


def test_states_are_sent_as_they_come(manager: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address_of(manager)})
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    assert [manager.recv(100) for _ in range(3)] == [
        b"READY=1",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_a_socket_without_a_file_is_found() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"\0opencluster-test-{os.getpid()}")
        end.settimeout(WAIT_S)
        Notifier({"NOTIFY_SOCKET": f"@opencluster-test-{os.getpid()}"}).ready()
        assert end.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "-5"}, 0.0),
        ({}, 0.0),
    ],
)
def test_it_lives_twice_in_each_time_of_the_watchdog(
    environment: dict[str, str], interval_s: float
) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/run/n"} | environment).interval_s == interval_s
    assert Notifier(environment).interval_s == 0.0


def test_a_manager_that_is_gone_is_told_of_in_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "cannot be told READY=1" in caplog.text


@pytest.mark.processes
@pytest.mark.parametrize("daemon", ["factory", "workshop", "dispatcher"])
def test_a_daemon_reports_from_its_own_loop(
    daemon: str, manager: socket.socket, folder: Path
) -> None:
    environment = os.environ | {
        "NOTIFY_SOCKET": address_of(manager),
        "WATCHDOG_USEC": "100000",
        "OPENCLUSTER_DIR": str(folder / "cluster"),
    }
    command = [sys.executable, "-m", "opencluster", daemon]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            heard = [manager.recv(100) for _ in range(4)]
            process.send_signal(signal.SIGTERM)
            while manager.recv(100) != b"STOPPING=1":
                pass
            _, said = process.communicate(timeout=WAIT_S)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert set(heard[1:]) == {b"WATCHDOG=1"} or heard[0] == b"WATCHDOG=1"
    assert b"READY=1" in heard
