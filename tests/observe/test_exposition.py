"""Daemons show their metrics where Prometheus fetches them, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from opencluster.core.metrics import Metric, each, one
from opencluster.errors import ConfigError
from opencluster.observe import exposition
from opencluster.observe.exposition import Exposition, asked_of

WAIT_S = 30.0
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def fetch(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
        text = page.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_shown_with_labels_and_kinds() -> None:
    figures = {(("name", "W-1"),): {"done": 3}, (("name", 'W"2\n'),): {"done": 4}}
    shown = Exposition(
        "127.0.0.1",
        0,
        lambda: [
            one("load1", "Load.", 0.5),
            *each([("done_total", "done", 10, "Done.")], figures),
            Metric("nobody", "Nobody has it.", []),
        ],
    )
    with contextlib.closing(shown):
        found = fetch(shown.port)
    assert found == {
        ("opencluster_load1", ()): 0.5,
        ("opencluster_done_total", (("name", "W-1"),)): 30.0,
        ("opencluster_done_total", (("name", 'W"2\n'),)): 40.0,
    }


def test_what_is_no_number_is_left_out() -> None:
    names = [("a", "a", 1.0, "A."), ("b", "b", 1.0, "B.")]
    metrics = each(names, {(): {"a": None, "b": True}, (("n", "x"),): {"a": 2}})
    assert [list(metric.samples) for metric in metrics] == [[((("n", "x"),), 2.0)], []]


def test_a_loop_that_hangs_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "PATIENCE_S", 0.05)
    shown = Exposition("127.0.0.1", 0, asked_of(lambda callback: None, list))
    with (
        contextlib.closing(shown),
        pytest.raises(
            (urllib.error.HTTPError, http.client.HTTPException, ConnectionError)
        ),
    ):
        fetch(shown.port)


def test_what_goes_wrong_in_the_loop_is_told_to_who_asked() -> None:
    posted: Future[None] = Future()

    def post(callback: object) -> None:
        assert callable(callback)
        callback()
        posted.set_result(None)

    def look() -> list[Metric]:
        raise ValueError("no figures")

    with pytest.raises(ValueError, match="no figures"):
        asked_of(post, look)()
    assert posted.done()


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: .*another port"):
            Exposition("127.0.0.1", port, list)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def daemon(name: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a daemon that shows its metrics."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="m-") as folder:
        environment = os.environ | {
            "OPENCLUSTER_DIR": str(Path(folder) / "cluster"),
            f"OPENCLUSTER_METRICS_{name.upper()}_PORT": str(port),
        }
        command = [sys.executable, "-m", "opencluster", name]
        with subprocess.Popen(command, env=environment) as process:
            try:
                yield port, process
                process.send_signal(signal.SIGTERM)
                assert process.wait(WAIT_S) == 0
            finally:
                process.kill()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("factory", "opencluster_factory_leading"),
        ("workshop", "opencluster_memory_used_bytes"),
        ("dispatcher", "opencluster_tasks_running_max"),
    ],
)
def test_a_daemon_shows_how_it_is_doing(name: str, expected: str) -> None:
    with daemon(name) as (port, process):
        until = time.monotonic() + WAIT_S
        found: Samples = {}
        while (expected, ()) not in found:
            assert process.poll() is None and time.monotonic() < until
            with contextlib.suppress(OSError):
                found = fetch(port)
    assert found[(expected, ())] >= 0
