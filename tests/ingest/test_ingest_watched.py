"""An ingest server is watched over as the other daemons are."""

from __future__ import annotations

import socket
import tempfile
import urllib.request
from pathlib import Path

import pytest
from ingest_tools import DEADLINE_S, Notebook, Sender, serving, wait_until

from opencluster.config import Config
from opencluster.config.settings import IngestSettings, MetricsSettings
from opencluster.core.metrics import PREFIX
from opencluster.ingest import IngestServer, IngestStatus, ItemFraming


def test_it_tells_the_service_manager_how_its_loop_is_doing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="n-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        manager.bind(f"{folder}/notify")
        manager.settimeout(DEADLINE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{folder}/notify")
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        with serving(tmp_path, Notebook()):
            heard = [manager.recv(100) for _ in range(3)]
            assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        while manager.recv(100) != b"STOPPING=1":
            pass


def test_it_shows_its_counts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = Config(
        ingest=IngestSettings(margin_bytes=0),
        metrics=MetricsSettings(ingest_port=port),
    )
    notebook = Notebook()
    server = IngestServer(ItemFraming, notebook.manager, tmp_path, config=config)
    with server, Sender(server.address) as sender:
        sender.item("one", b"data")
        sender.answer()
        wait_until(lambda: server.status.processed)
        address = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(address, timeout=DEADLINE_S) as page:
            lines = page.read().decode().splitlines()
    for name in ("accepted", "processed", "received"):
        assert f"{PREFIX}ingest_items_{name}_total 1.0" in lines
    assert f"{PREFIX}ingest_connections 1.0" in lines


def test_every_reason_has_a_number_of_its_own() -> None:
    status = IngestStatus()
    status.rejected.update({"size": 2, "late": 1})
    (metric,) = [m for m in status.metrics() if m.name == "ingest_rejected_total"]
    assert list(metric.samples) == [
        ((("reason", "size"),), 2.0),
        ((("reason", "late"),), 1.0),
    ]
