"""The words for a death."""

from __future__ import annotations

import pytest

from opencluster.node.diagnosis import diagnose
from opencluster.node.process import ExitStatus

KILLED = ExitStatus(None, "SIGKILL", peak_memory_bytes=5)
MB = 1_000_000


@pytest.mark.parametrize(
    ("status", "evidence", "reason"),
    [
        (ExitStatus(3), {}, "exited with code 3"),
        (ExitStatus(0), {}, "exited with code 0"),
        (ExitStatus(0), {"asked": "stop"}, "ended by its workshop: stop"),
        (
            ExitStatus(1),
            {"asked": "stop"},
            "exited with code 1 while its workshop ended it: stop",
        ),
        (
            ExitStatus(None, "SIGSEGV"),
            {},
            "killed by SIGSEGV (invalid memory access)",
        ),
        (
            ExitStatus(None, "SIGSEGV"),
            {"asked": "stop"},
            "killed by SIGSEGV (invalid memory access) while its workshop ended it: "
            "stop",
        ),
        (KILLED, {}, "killed by SIGKILL from outside OpenCluster"),
        (
            ExitStatus(None, "SIGTERM"),
            {},
            "killed by SIGTERM from outside OpenCluster",
        ),
        (KILLED, {"asked": "time limit"}, "ended by its workshop: time limit"),
        (
            ExitStatus(None, "signal 37"),
            {},
            "killed by signal 37 from outside OpenCluster",
        ),
        (ExitStatus(None), {}, "ended, nobody knows how: something else reaped it"),
    ],
)
def test_reason(status, evidence, reason):
    found = diagnose(status, **evidence)
    assert found.reason == reason
    assert (found.exit_code, found.signal) == (status.exit_code, status.signal)
    assert not found.out_of_memory


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (
            {"oom_kills": 1, "memory_limit_bytes": 200 * MB},
            "killed by SIGKILL: out of memory (limit 200 MB)",
        ),
        ({"oom_kills": 1}, "killed by SIGKILL: out of memory"),
        (
            {"machine_oom_kills": 1, "memory_limit_bytes": 200 * MB},
            "killed by SIGKILL: the computer ran out of memory",
        ),
    ],
)
def test_out_of_memory(evidence, reason):
    found = diagnose(KILLED, **evidence)
    assert found.reason == reason
    assert found.out_of_memory
    assert found.peak_memory_bytes == 5


def test_memory_killed_only_what_it_forked():
    found = diagnose(ExitStatus(1), oom_kills=1)
    assert found.reason == (
        "exited with code 1; a process of its group was killed: out of memory"
    )
    assert not found.out_of_memory


def test_kill_that_was_asked_for_is_not_blamed_on_memory():
    found = diagnose(KILLED, asked="stop", machine_oom_kills=3)
    assert found.reason == "ended by its workshop: stop"
    assert not found.out_of_memory
