"""A process gets as many connections as the system allows, whatever its own limit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import resource, sys
from pathlib import Path
from opencluster.config import load
from opencluster.net.joined import open_transport
from opencluster.net.lane import LaneTransport

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
transport = open_transport(load(files=[], environ={}), None)
there = [LaneTransport() for _ in range(100)]
for number, lane in enumerate(there):
    endpoint = lane.listen(f"unix://{Path(sys.argv[1])}/{number}")
    transport.connect(endpoint)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_a_process_may_have_more_connections_than_it_was_started_with(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300
