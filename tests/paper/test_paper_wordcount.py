"""Tables 1 and 2 of Wei et al. (2017): the word count, on a real cluster."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opencluster.testing import LocalCluster

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "paper"
DEADLINE_S = 30.0


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as started:
        yield started


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    lines = [f"solar radio{n % 7} burst\n" * (n % 5) for n in range(3000)]
    path.write_text("".join(lines) + "flare " * 2000 + "\nthe end")
    return path


@pytest.fixture
def workers(
    cluster: LocalCluster, free_port: Callable[[], int]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the program of Table 1 twice, and wait until both have registered."""
    program = [sys.executable, str(EXAMPLE / "wordcount_worker.py")]
    started = [subprocess.Popen([*program, str(free_port())]) for _ in range(2)]
    try:
        deadline = time.monotonic() + DEADLINE_S
        while len(cluster.ask_factory("find", {"type": "WordCount"})) < 2:
            assert time.monotonic() < deadline, "the workers did not register"
            assert all(worker.poll() is None for worker in started)
            time.sleep(0.02)
        yield started
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait(DEADLINE_S)


def count_words(text: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "wordcount_manager.py"), str(text)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def expected(text: Path) -> str:
    counts = Counter(text.read_text().split())
    first = sorted(counts, key=lambda word: (-counts[word], word))[:10]
    return "".join(f"{counts[word]:8d}  {word}\n" for word in first)


def test_the_tables_count_words(
    workers: list[subprocess.Popen[bytes]], cluster: LocalCluster, text: Path
) -> None:
    assert count_words(text) == expected(text)
    (job,) = cluster.ask_factory("status")["jobs"]
    assert (job["name"], job["state"]) == ("WordCountManager", "done")
    # one part of the file for each worker that the manager saw
    assert 1 <= job["pieces_done"] <= 2


def test_the_workers_stop_in_good_order(
    workers: list[subprocess.Popen[bytes]], cluster: LocalCluster
) -> None:
    for worker in workers:
        worker.terminate()
    assert [worker.wait(DEADLINE_S) for worker in workers] == [0, 0]
    assert cluster.ask_factory("find", {"type": "WordCount"}) == []


def test_the_tables_count_small_files(
    workers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "small"
    for content in ("", "one", "\n\n", "one\ntwo", "long " * 999):
        path.write_text(content)
        assert count_words(path) == expected(path)


def test_the_worker_of_the_table_runs_under_a_workshop(text: Path) -> None:
    target = f"{EXAMPLE / 'wordcount_worker.py'}:WordCountWorker"
    with LocalCluster({target: 2}):
        assert count_words(text) == expected(text)
