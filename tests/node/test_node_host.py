"""The identity of the computer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from opencluster.node import host

_PRINT = "from opencluster.node.host import host_id; print(host_id())"


@pytest.fixture(autouse=True)
def _forget():
    host.host_id.cache_clear()
    yield
    host.host_id.cache_clear()


def test_processes_of_one_computer_agree():
    other = subprocess.check_output([sys.executable, "-c", _PRINT], text=True)
    assert other.strip() == host.host_id()
    assert host.host_name()


@pytest.mark.parametrize("space", ["net", "ipc", "mnt"])
def test_other_namespaces_and_boots_differ(tmp_path, monkeypatch, space):
    for name in ("net", "ipc", "mnt"):
        (tmp_path / name).symlink_to(f"{name}:[1]")
    monkeypatch.setattr(host, "_NAMESPACES", tmp_path)
    monkeypatch.setattr(host, "_SHARED_MEMORY", tmp_path)
    first = host.host_id()
    (tmp_path / space).unlink()
    (tmp_path / space).symlink_to(f"{space}:[2]")
    host.host_id.cache_clear()
    second = host.host_id()
    (tmp_path / "boot").write_text("0123-4567\n")
    monkeypatch.setattr(host, "_BOOT_ID", tmp_path / "boot")
    host.host_id.cache_clear()
    assert len({first, second, host.host_id()}) == 3


def test_without_proc_the_hardware_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_BOOT_ID", tmp_path / "missing")
    monkeypatch.setattr("uuid.getnode", lambda: 0x0242AC110002)
    assert host.host_id().startswith("0242ac110002-")
    monkeypatch.setattr("uuid.getnode", lambda: 0x0142AC110002)
    host.host_id.cache_clear()
    assert host.host_id().startswith("unknown-")
