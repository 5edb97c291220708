"""The numbers of a heartbeat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from opencluster.node import measure
from opencluster.node.measure import Measurer, process_sample

KEYS = {
    "cpu_percent",
    "cpu_count",
    "load_1",
    "load_5",
    "load_15",
    "memory_total_bytes",
    "memory_used_bytes",
    "memory_available_bytes",
    "swap_total_bytes",
    "swap_used_bytes",
    "disk_total_bytes",
    "disk_used_bytes",
    "disk_read_bytes_per_s",
    "disk_write_bytes_per_s",
    "network_received_bytes_per_s",
    "network_sent_bytes_per_s",
    "uptime_s",
}
DEADLINE_S = 30.0
MB = 1_000_000


def test_sample_has_plain_numbers_for_everything():
    sample = Measurer().sample()
    assert set(sample) == KEYS
    assert {type(value) for value in sample.values()} <= {int, float}
    assert json.loads(json.dumps(sample)) == sample
    assert 0 < sample["memory_available_bytes"] <= sample["memory_total_bytes"]
    assert 0 < sample["disk_used_bytes"] < sample["disk_total_bytes"]
    assert 1 <= sample["cpu_count"] <= os.cpu_count()
    assert sample["uptime_s"] > 0


def test_missing_disk_is_zero(tmp_path):
    sample = Measurer(path=tmp_path / "missing").sample()
    assert (sample["disk_total_bytes"], sample["disk_used_bytes"]) == (0, 0)


class Counters:
    """Stands for what psutil counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.sent = 0
        self.has_disks = True
        monkeypatch.setattr(measure.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(psutil, "net_io_counters", self._net)
        monkeypatch.setattr(psutil, "disk_io_counters", self._disk)

    def _net(self, pernic: bool) -> dict[str, object]:
        make = psutil._ntuples.snetio if hasattr(psutil, "_ntuples") else None
        make = make or psutil._common.snetio
        return {
            "lo": make(10**12 + int(self.now), 10**12 + int(self.now), *[0] * 6),
            "eth0": make(self.sent, 2 * self.sent, *[0] * 6),
            "eth1": make(self.sent, 0, *[0] * 6),
        }

    def _disk(self) -> object:
        class Disk:
            read_bytes, write_bytes = int(self.now) * 7, 5

        return Disk if self.has_disks else None


def test_rates_are_per_second_since_the_sample_before(monkeypatch):
    counters = Counters(monkeypatch)
    measurer = Measurer(interval_s=1)
    first = measurer.sample()
    assert first["network_sent_bytes_per_s"] == 0
    counters.now, counters.sent = 104.0, 4000
    second = measurer.sample()
    assert second["network_sent_bytes_per_s"] == 2000
    assert second["network_received_bytes_per_s"] == 2000
    assert second["disk_read_bytes_per_s"] == 7
    assert second["disk_write_bytes_per_s"] == 0
    counters.now, counters.sent = 104.5, 9999
    assert measurer.sample() == second  # too soon to tell
    counters.now, counters.sent = 106.0, 10  # an interface went away
    assert measurer.sample()["network_sent_bytes_per_s"] == 0


def test_computer_without_disk_counters(monkeypatch):
    Counters(monkeypatch).has_disks = False
    assert Measurer().sample()["disk_read_bytes_per_s"] == 0


# --- processes ------------------------------------------------------------------------

_FAMILY = f"""
import os, signal
x = bytearray({30 * MB})
if os.fork() == 0:
    if os.fork() == 0:
        signal.pause()
    signal.pause()
os.write(1, b"up")
signal.pause()
"""


@pytest.fixture
def family():
    """A process with a child and a grandchild."""
    command = [sys.executable, "-c", _FAMILY]
    options = {"stdout": subprocess.PIPE, "start_new_session": True}
    with subprocess.Popen(command, **options) as process:
        assert process.stdout.read(2) == b"up"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition):
    give_up = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.mark.processes
@pytest.mark.parametrize("has_children_files", [True, False])
def test_process_and_what_it_forked(family, monkeypatch, has_children_files):
    if not has_children_files:
        monkeypatch.setattr(measure.os, "getpid", lambda: -1)
    wait_for(lambda: process_sample(family.pid)["children"] == 2)
    sample = process_sample(family.pid)
    assert sample["rss_bytes"] > 30 * MB
    assert sample["children_rss_bytes"] > 0
    assert sample["threads"] == 1
    assert sample["is_stopped"] is False
    assert json.loads(json.dumps(sample)) == sample


@pytest.mark.processes
def test_stopped_process_is_seen(family):
    family.send_signal(signal.SIGSTOP)
    wait_for(lambda: process_sample(family.pid)["is_stopped"])
    family.send_signal(signal.SIGCONT)
    wait_for(lambda: not process_sample(family.pid)["is_stopped"])


@pytest.mark.processes
def test_process_that_is_gone_has_no_figures(family):
    assert process_sample(family.pid)
    family.kill()
    family.wait()
    assert process_sample(family.pid) == {}


def test_cpu_time_counts_from_the_call_before():
    process_sample(os.getpid())
    busy_until = time.process_time() + 0.1
    while time.process_time() < busy_until:
        pass
    assert process_sample(os.getpid())["cpu_percent"] > 0
