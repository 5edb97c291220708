"""The benchmarks run and write what they promise; what they measure is not judged."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FIGURES = {
    "round trip of a piece, median": "µs",
    "round trip of a piece, p99": "µs",
    "bare ZeroMQ loop, median": "µs",
    "bare ZeroMQ loop, p99": "µs",
    "ratio of the medians": "",
}
MACHINE = {
    "cpu",
    "cores",
    "system",
    "python",
    "pyzmq",
    "libzmq",
    "msgpack",
    "commit",
    "load_average_before",
}


@pytest.mark.processes
def test_a_quick_latency_run_writes_its_figures(tmp_path: Path) -> None:
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    page.write_text(
        "before\n"
        "<!-- results: written by the command, not by hand -->\n"
        "stale\n"
        "<!-- end of results -->\n"
        "after\n"
    )
    options = ["--quick", "--json", str(results), "--markdown", str(page)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "latency", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    content = json.loads(results.read_text())
    assert set(content) == {"command", "date", "machine", "figures"}
    assert content["command"] == "python -m bench latency --quick"
    assert set(content["machine"]) == MACHINE
    assert {f["name"]: f["unit"] for f in content["figures"]} == FIGURES
    for figure in content["figures"]:
        assert figure["measure"] == "latency"
        assert len(figure["runs"]) > 1
        assert all(math.isfinite(run) and run > 0 for run in figure["runs"])
        assert figure["min"] == min(figure["runs"]) <= figure["median"]
        assert figure["max"] == max(figure["runs"]) >= figure["median"]

    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "stale" not in lines
    for name in FIGURES:
        assert f"latency: {name}" in done.stdout
        assert sum(line.startswith(f"| {name} |") for line in lines) == 1
