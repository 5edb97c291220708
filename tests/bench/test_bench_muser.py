"""What MUSER takes is measured; the figures are not judged."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def figures_of(path: Path) -> list[dict[str, Any]]:
    figures: list[dict[str, Any]] = json.loads(path.read_text())["figures"]
    for figure in figures:
        assert all(math.isfinite(run) and run >= 0 for run in figure["runs"])
    return figures


@pytest.mark.processes
def test_making_files_is_measured(tmp_path: Path) -> None:
    results, picture = tmp_path / "results.json", tmp_path / "out.png"
    done = bench(
        *("uvfits", "--quick", "--workers", "1"),
        *("--json", str(results), "--plot", str(picture)),
    )
    assert done.returncode == 0, done.stderr
    figures = figures_of(results)
    assert {f["measure"] for f in figures} == {"MUSER-I, 1 worker"}
    rates = [f for f in figures if f["name"] == "frames a second, averages of 1 s"]
    assert [len(f["runs"]) for f in rates] == [1]
    if importlib.util.find_spec("matplotlib") is None:
        assert "no picture: matplotlib is not installed" in done.stderr
        return
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.processes
def test_decoding_is_measured_for_both_arrays(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = bench("muser-decode", "--quick", "--json", str(results))
    assert done.returncode == 0, done.stderr
    figures = figures_of(results)
    assert {f["measure"] for f in figures} == {"MUSER-I", "MUSER-II"}
    assert {"decode a frame", "copy its bytes", "delays and fringes of a frame"} < {
        f["name"] for f in figures
    }


@pytest.mark.processes
def test_images_are_measured(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = bench("imaging", "--quick", "--json", str(results))
    assert done.returncode == 0, done.stderr
    figures = figures_of(results)
    assert {f["measure"] for f in figures} == {"imaging, 512 pixels, 500 iterations"}
    rates = {f["name"]: f["runs"] for f in figures}
    assert len(rates["Hogbom, images a second of a core"]) == 1
    # where WSClean is installed, it finds the same components
    assert rates.get("pixels that one has and the other has not", [0]) == [0]


@pytest.mark.processes
def test_ingest_is_measured(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = bench("ingest", "--quick", "--json", str(results))
    assert done.returncode == 0, done.stderr
    figures = figures_of(results)
    assert {f["measure"] for f in figures} == {"ingest of MUSER-I"}
    # whatever the machine does, nothing is lost
    lost = [f["runs"] for f in figures if f["name"] == "frames not decoded"]
    assert lost == [[0.0]]
