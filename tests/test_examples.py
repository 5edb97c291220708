"""Each example runs from its README, with equal results on every engine."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from opencluster.launchers import embedded
from opencluster.place import Place
from opencluster.targets import load_class

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TIMEOUT_S = 60.0
PAPER_PORT = "9280"
SCRIPTS = {
    "hello": ["examples/hello/hello.py"],
    "paper": ["examples/paper/wordcount_manager.py", "LICENSE"],
    "pipeline": ["examples/pipeline/transits.py"],
    "scatter_gather": ["examples/scatter_gather/survey.py"],
    "service": ["examples/service/ephemeris.py", "52"],
    "wordcount": ["examples/wordcount/wordcount.py", "LICENSE"],
}
"""What the README of each example runs."""


def blocks(example: str) -> list[str]:
    """Return the blocks of commands in the README of an example."""
    text = (EXAMPLES / example / "README.md").read_text()
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


ALL_BLOCKS = [
    pytest.param(example, block, id=f"{example}-{number}")
    for example in SCRIPTS
    for number, block in enumerate(blocks(example))
]


@pytest.fixture
def place() -> Iterator[Place]:
    """Return a cluster directory in which nothing runs when the test has ended."""
    with tempfile.TemporaryDirectory(prefix="oc-") as directory:
        place = Place(Path(directory) / "c")
        try:
            yield place
        finally:
            embedded.stop(place)


def environment(**ours: str) -> dict[str, str]:
    theirs = {n: v for n, v in os.environ.items() if not n.startswith("OPENCLUSTER_")}
    return theirs | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | ours


def run_commands(block: str, place: Place) -> str:
    """Run the commands of a README in a shell, and return what they print."""
    commands = place.path.parent / "bin"
    commands.mkdir()
    for name, command in {"opencluster": "-m opencluster", "python": ""}.items():
        script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command} "$@"\n'
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    ours = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "OPENCLUSTER_DIR": str(place.path),
        "XDG_CONFIG_HOME": str(place.path.parent / "config"),
    }
    with subprocess.Popen(
        ["bash", "-euc", block.replace(PAPER_PORT, str(free_port()))],
        cwd=ROOT,
        env=environment(**ours),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            out, err = shell.communicate(timeout=TIMEOUT_S)
        finally:
            # what a README runs in the background, if a command before its end failed
            if shell.poll() != 0:
                os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, out + err
    assert "Traceback" not in err
    return out


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@cache
def output_in_one_process(example: str) -> str:
    done = subprocess.run(
        [sys.executable, *(["-c", PAPER] if example == "paper" else SCRIPTS[example])],
        cwd=ROOT,
        env=environment(OPENCLUSTER_ENGINE="local"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PAPER = """
import runpy, sys
sys.path.insert(0, "examples/paper")
import wordcount_worker
sys.argv[1:] = ["LICENSE"]
runpy.run_path("examples/paper/wordcount_manager.py", run_name="__main__")
"""
"""The paper's manager, with the worker's file imported for the local engine."""


def test_every_example_has_a_readme() -> None:
    folders = {
        p.name for p in EXAMPLES.iterdir() if p.is_dir() and p.name[0] not in "._"
    }
    assert folders == set(SCRIPTS)
    assert all(blocks(example) for example in SCRIPTS)


@pytest.mark.processes
@pytest.mark.parametrize(("example", "block"), ALL_BLOCKS)
def test_commands_of_the_readme(example: str, block: str, place: Place) -> None:
    out = run_commands(block, place)
    expected = output_in_one_process(example)
    assert expected in out
    if "opencluster status" not in block:
        assert out == expected
    assert place.read() == {}, "the cluster was not stopped"


# --- what the examples compute -----------------------------------------------


def test_hello_greets_everyone() -> None:
    assert output_in_one_process("hello").splitlines() == [
        f"Hello, {name}!"
        for name in ("Factory", "Workshop", "Worker", "Service", "Manager")
    ]


def test_wordcount_counts_right() -> None:
    text = (ROOT / "LICENSE").read_text()
    counts = Counter(re.findall(r"\w+", text.lower()))
    shown = [line.split() for line in output_in_one_process("wordcount").splitlines()]
    assert len(shown) == 10
    assert [int(count) for count, _ in shown] == [n for _, n in counts.most_common(10)]
    assert all(counts[word] == int(count) for count, word in shown)


LARGE = """
import re, sys
from collections import Counter
from pathlib import Path
sys.path.insert(0, "examples/wordcount")
from wordcount import WordCountManager, WorkPiece, split
path = Path(sys.argv[1])
words = WordCountManager().run(WorkPiece(filepath=path))["words"]
assert words == Counter(re.findall(r"\\w+", path.read_text())), "wrong"
print(len(list(split(path))))
"""


def test_wordcount_splits_a_large_file_at_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "text"
    lines = [f"é{number} tail\n" for number in range(300_000)]
    path.write_text("".join(lines) + "no end of line")
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(path)],
        cwd=ROOT,
        env=environment(OPENCLUSTER_ENGINE="local"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == path.stat().st_size // (1 << 20) + 1


def test_paper_counts_right() -> None:
    counts = Counter((ROOT / "LICENSE").read_text().split())
    shown = [line.split() for line in output_in_one_process("paper").splitlines()]
    assert [int(count) for count, _ in shown] == [n for _, n in counts.most_common(10)]
    assert all(counts[word] == int(count) for count, word in shown)


def test_pipeline_finds_the_planets_that_are_there() -> None:
    import numpy as np

    found = {}
    for line in output_in_one_process("pipeline").splitlines():
        _, name, *_, period, _ = line.split()
        found[int(name.rstrip(":"))] = float(period)
    assert len(found) == 3
    true = {}
    for star in range(1, max(found) + 1):
        random = np.random.default_rng(star)
        random.uniform(0, 30, 1000)
        random.normal(1, 1, 1000)
        if random.random() < 0.1:
            true[star] = random.uniform(1, 5)
    assert found == pytest.approx(true, rel=0.01)


def test_the_survey_finds_all_stars_in_the_sum_alone() -> None:
    lines = output_in_one_process("scatter_gather").splitlines()
    first, deep = (int(line.rpartition(" ")[2]) for line in lines)
    assert first < 0.1 * deep
    # a few of sixteen times twenty fall into the same pixel
    assert 310 < deep <= 320


SERVICE = str(EXAMPLES / "service" / "ephemeris.py:EphemerisService")


@pytest.mark.parametrize(
    ("time", "ra_deg", "dec_deg", "distance_au"),
    [
        # Meeus, Astronomical Algorithms, example 25.a
        (datetime(1992, 10, 13, tzinfo=UTC), 198.38083, -7.78507, 0.99766),
        # the equinox and the solstice of 2026 (March 20, 14:46; June 21, 08:25)
        (datetime(2026, 3, 20, 14, 46, tzinfo=UTC), 360.0, 0.0, 0.99600),
        (datetime(2026, 6, 21, 8, 25, tzinfo=UTC), 90.0, 23.4364, 1.01620),
    ],
)
def test_ephemeris_knows_the_sun(
    time: datetime, ra_deg: float, dec_deg: float, distance_au: float
) -> None:
    sun = load_class(SERVICE)().sun_position(time)
    off_deg = (sun["ra_deg"] - ra_deg + 180) % 360 - 180
    assert off_deg == pytest.approx(0, abs=0.015)
    assert sun["dec_deg"] == pytest.approx(dec_deg, abs=0.015)
    assert sun["distance_au"] == pytest.approx(distance_au, abs=0.0002)


def test_days_are_long_in_summer() -> None:
    lines = output_in_one_process("service").splitlines()
    hours = {line.split()[1]: float(line.split()[2]) for line in lines[1:]}
    assert len(hours) == 12
    assert max(hours, key=lambda month: hours[month]) == "June"
    assert min(hours, key=lambda month: hours[month]) == "December"
    assert hours["March"] == pytest.approx(12, abs=0.1)
    assert hours["June"] + hours["December"] == pytest.approx(24, abs=0.01)
