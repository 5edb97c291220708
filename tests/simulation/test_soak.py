"""The program behind ``make soak``."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent / "soak.py"


def begin(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SOAK), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_soak_says_what_passed() -> None:
    with begin("20", "--first", "1000", "--jobs", "2") as soak:
        said, _ = soak.communicate()
    assert soak.returncode == 0
    assert "20 of 20 seeds, 0." in said
    assert said.splitlines()[-1] == "all 20 seeds from 1000 passed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_in_good_order(number: signal.Signals) -> None:
    with begin("1000000", "--jobs", "2") as soak:
        assert soak.stdout is not None
        assert "10 of 1000000 seeds" in soak.stdout.readline()
        # a terminal, make and timeout may each send one
        for _ in range(3):
            soak.send_signal(number)
        said = soak.stdout.read()
    assert soak.returncode == 130
    assert said.splitlines()[-1] == "stopped"
    assert "Traceback" not in said
