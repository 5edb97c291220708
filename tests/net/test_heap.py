"""Arrays that are made again and again: their memory is not cleared each time."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys

import numpy as np

from opencluster.net.arena import Arena

BLOCK_BYTES = 3_000_000


def faults_of_round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.empty(BLOCK_BYTES, np.uint8) for _ in range(10)]
    for block in blocks:
        block.fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


arena = Arena(64 << 20)
if sys.argv[1] == "sends":
    assert arena.place(bytes(100_000), "somebody")
faults_of_round()
faults_of_round()
print(faults_of_round())
"""


@pytest.mark.parametrize(
    ("what", "least", "most"), [("sends", 0, 100), ("does not", 1000, 100_000)]
)
def test_who_sends_arrays_keeps_the_memory_of_those_it_drops(
    what: str, least: int, most: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert least <= int(done.stdout) <= most
