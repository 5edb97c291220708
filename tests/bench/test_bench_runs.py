"""The benchmarks run and write what they promise; what they measure is not judged."""

from __future__ import annotations

import importlib.util
import json
import math
import signal
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


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


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
    done = bench("latency", *options)
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


@pytest.mark.processes
def test_a_comparison_shows_and_writes_both_sides(tmp_path: Path) -> None:
    results, picture = tmp_path / "out.json", tmp_path / "out.png"
    names = ["startup", "memory", "roundtrip", "pieces", "submits", "results-5m"]
    names += ["figure8", "figure9"]
    done = bench(
        *("compare", "--quick", "--peers", "zmq", "--workers", "1"),
        *("--workloads", ",".join(names)),
        *("--json", str(results), "--plot", str(picture)),
    )
    assert done.returncode == 0, done.stderr

    content = json.loads(results.read_text())
    assert content["left_out"] == []
    assert MACHINE | {"others_percent_median"} <= set(content["machine"])
    measured = {(s["workload"], s["peer"]) for s in content["samples"]}
    assert measured == {
        (name, peer)
        for name in names
        for peer in ("opencluster", "zmq")
        if (name, peer) != ("submits", "zmq")
    }
    for sample in content["samples"]:
        assert math.isfinite(sample["value"]) and sample["value"] > 0
    compared = {row["workload"] for row in content["rows"] if row["times_better"]}
    assert compared == {*names} - {"submits"}
    assert "round trip of a trivial piece, median, 1 worker" in done.stdout

    if importlib.util.find_spec("matplotlib") is None:
        assert "no picture: matplotlib is not installed" in done.stderr
        return
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again.png"
    assert bench("plot", str(results), str(again)).returncode == 0
    assert again.read_bytes().startswith(b"\x89PNG")


@pytest.mark.processes
def test_opencluster_is_compared_with_itself_over_tcp_with_keys(
    tmp_path: Path,
) -> None:
    results = tmp_path / "out.json"
    done = bench(
        *("compare", "--quick", "--peers", "opencluster-curve"),
        *("--workloads", "blocks-100k", "--workers", "1"),
        *("--json", str(results)),
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(results.read_text())
    assert content["left_out"] == []
    assert {(s["workload"], s["peer"]) for s in content["samples"]} == {
        ("blocks-100k", "opencluster-curve"),
        ("blocks-100k", "opencluster"),
    }


@pytest.mark.processes
def test_an_interrupt_ends_it_with_what_was_measured(tmp_path: Path) -> None:
    results = tmp_path / "out.json"
    options = ["--peers", "limit-unix", "--workloads", "roundtrip", "--workers", "1"]
    options += ["--rounds", "100", "--budget", "0.01", "--json", str(results)]
    with subprocess.Popen(
        [sys.executable, "-m", "bench", "compare", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round 2:"):
                process.send_signal(signal.SIGINT)
                break
        output, errors = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "limit-unix" in output
    content = json.loads(results.read_text())
    assert content["machine"]["interrupted"] is True
    assert {s["peer"] for s in content["samples"] if s["round"] == 1} == {
        "opencluster",
        "limit-unix",
    }


def test_peers_that_are_missing_are_named_with_the_command_that_brings_them(
    tmp_path: Path,
) -> None:
    done = bench("peers")
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert lines["zmq"].endswith(" here")
    for peer, module in (("dask", "distributed"), ("ray-tasks", "ray")):
        if importlib.util.find_spec(module) is None:
            assert "pip install" in lines[peer]
        else:
            assert lines[peer].endswith(" here")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compare", "--peers", "dusk"), "'dusk' is no peer; there are: opencluster"),
        (("compare", "--workloads", "blocks"), "'blocks' is no workload"),
        (("compare", "--workers", "0,1"), "no list of numbers"),
        (("targets", "--only", "speed"), "no workload: speed"),
    ],
)
def test_a_word_that_means_nothing_is_answered_with_those_that_do(
    arguments: tuple[str, ...], says: str
) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
