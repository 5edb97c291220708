from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from cli_tools import Cli

import muser_pipeline.demo
from muser_pipeline.demo import Converted
from opencluster.cli.demo import Outcome, Parts, show, text_files
from opencluster.demo.words import WordCountWorker, count_plainly, count_words, split
from opencluster.workpiece import WorkPiece

BOOK = b"".join(
    b"The %d stars, and the planets\nof the night-sky\n" % number
    for number in range(2000)
)
SUMMARY = [
    "words",
    "distinct",
    "matches_single_process",
    "workers",
    "workers_killed",
    "elapsed_s",
    "muser_frames",
    "uvfits_files",
    "frames_per_s",
]


@pytest.fixture
def books(cli: Cli) -> Path:
    folder = cli.directory / "books"
    (folder / "site-packages").mkdir(parents=True)
    (folder / "a.txt").write_bytes(BOOK)
    (folder / "b.py").write_bytes(b"import stars\n")
    (folder / "c.dat").write_bytes(b"nothing that counts")
    (folder / "empty.txt").touch()
    (folder / "site-packages" / "d.txt").write_bytes(b"neither")
    return folder


@pytest.fixture
def _without_muser(cli: Cli) -> None:
    """Hide the part of the demo that is installed beside OpenCluster."""
    package = cli.directory / "muser_pipeline"
    package.mkdir()
    (package / "__init__.py").touch()
    # an editable installation would find the module where it is, were there none here
    (package / "demo.py").write_text(
        "raise ModuleNotFoundError(name='muser_pipeline')\n"
    )


def clusters_left() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("opencluster-*"))


@pytest.mark.processes
def test_demo_as_json(cli: Cli, books: Path) -> None:
    before = clusters_left()
    done = cli("demo", "--json", "--path", str(books), "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    summary = json.loads(done.stdout)
    assert list(summary) == SUMMARY
    assert summary["words"] == 9 * 2000 + 2
    assert summary["distinct"] == 8
    assert summary["matches_single_process"] is True
    assert summary["workers"] == 2
    assert summary["workers_killed"] == 1
    assert 0.0 < summary["elapsed_s"] < 60.0
    assert "half way: killed WordCount-" in done.stderr
    assert "killed by SIGKILL" in done.stderr
    assert clusters_left() <= before
    assert (summary["muser_frames"], summary["uvfits_files"]) == (960, 3)
    assert summary["frames_per_s"] > 0

    logs = cli.place.path / "demo" / "logs"
    assert f"the logs are in {logs}" in done.stderr
    assert {"factory.log", "workshop.log"} <= {path.name for path in logs.iterdir()}
    assert "killed by SIGKILL" in (logs / "workshop.log").read_text()


@pytest.mark.processes
@pytest.mark.usefixtures("_without_muser")
def test_demo_for_people(cli: Cli, books: Path) -> None:
    state = {"OPENCLUSTER_DIR": ""}
    (cli.directory / "one.txt").write_bytes(b"Sun sun moon\n")
    path = str(cli.directory / "one.txt")
    done = cli("demo", "--path", path, "--workers", "1", environment=state)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[:2]] == [
        ["2", "sun"],
        ["1", "moon"],
    ]
    assert "3 words, 2 different ones" in done.stdout
    assert "a plain count in one process gives the same" in done.stdout
    assert "the part with MUSER is left out, without muser_pipeline" in done.stderr
    assert "pip install 'opencluster[muser]'" in done.stderr
    assert (cli.directory / "state/opencluster/demo/logs/factory.log").is_file()


@pytest.mark.processes
@pytest.mark.usefixtures("_without_muser")
def test_demo_is_alone_whatever_the_user_has_configured(cli: Cli, books: Path) -> None:
    config = cli.directory / "config.ini"
    config.write_text(
        "[cluster]\nfactories = 127.0.0.1:1\n"
        "[worker:Other]\ncount = 1\ncommand = touch other-was-here\n"
    )
    environment = {"OPENCLUSTER_CONFIG": str(config), "OPENCLUSTER_ENGINE": "local"}
    options = ["--json", "--path", str(books), "--workers", "1"]
    summary = json.loads(cli.ok("demo", *options, environment=environment))
    assert [summary[name] for name in SUMMARY[-3:]] == [None, None, None]
    assert not (cli.directory / "other-was-here").exists()


@pytest.mark.processes
@pytest.mark.usefixtures("_without_muser")
def test_demo_keeps_its_cluster_when_asked(cli: Cli, books: Path) -> None:
    done = cli("demo", "--keep", "--path", str(books), "--workers", "1")
    line = next(line for line in done.stderr.splitlines() if "files of the" in line)
    path = Path(line.rpartition(" in ")[2])
    try:
        assert (path / "logs" / "factory.log").is_file()
        assert not (path / "cluster.json").exists()
    finally:
        shutil.rmtree(path)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_demo_stops_everything_when_it_is_stopped(
    cli: Cli, number: signal.Signals, code: int
) -> None:
    before = clusters_left()
    demo = cli.background("demo")
    demo.line_with("started a factory")
    os.kill(demo.process.pid, number)
    assert demo.process.wait(60) == code
    rest = demo.rest()
    assert "Traceback" not in rest
    assert "the logs are in" in rest
    assert clusters_left() <= before


# --- the parts --------------------------------------------------------------


def test_the_manifest_of_muser_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = {
        "array": "MUSER-I",
        "frames": {"missing": 2, "flagged": 1},
        "files": [{"bytes": 12345, "sha256": "0123456789abcdef", "name": "a.uvfits"}],
    }
    show(Outcome(1, converted=Converted(318, 1, 4000.0, manifest, Path("m.json"))))
    *_, file, last = capsys.readouterr().out.splitlines()
    assert file.split() == ["12,345", "0123456789ab", "a.uvfits"]
    assert last.startswith("1 UVFITS files of 318 frames of MUSER-I, 2 missing and 1")


def test_what_muser_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert muser_pipeline.demo.lacking() == []
    monkeypatch.setattr(muser_pipeline.demo, "NEEDED", ("numpy", "not_there"))
    assert muser_pipeline.demo.lacking() == ["not_there"]


def test_words_are_counted_in_lower_case() -> None:
    assert count_words(b"A b, a_b\n2c! \xc3\xa9t") == Counter(
        {"a": 2, "b": 2, "c": 1, "t": 1}
    )


@pytest.mark.parametrize("part_bytes", [1, 7, 100, 10_000_000])
@pytest.mark.parametrize("text", [BOOK, b"one line", b"a\n", b"\n\n\nx"])
def test_parts_of_a_file_make_the_whole(
    tmp_path: Path, text: bytes, part_bytes: int
) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(text[:5000])
    parts = list(split(path, part_bytes))
    whole: Counter[str] = Counter()
    for part in parts:
        whole.update(WordCountWorker().perform(part)["words"])
    assert whole == count_plainly([path])
    assert sum(part["size"] for part in parts) == path.stat().st_size
    assert all(part["size"] for part in parts)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_half_way_is_before_the_middle_piece(count: int) -> None:
    handed_out: list[WorkPiece] = []
    seen: list[int] = []
    pieces = [WorkPiece(number=number) for number in range(count)]
    parts = Parts(pieces, lambda: seen.append(len(handed_out)))
    assert len(parts) == count
    for piece in parts:
        handed_out.append(piece)
    assert handed_out == pieces
    assert seen == [count // 2]


def test_text_files_are_those_that_count(books: Path) -> None:
    assert text_files(books) == [books / "a.txt", books / "b.py"]
    assert text_files(books / "c.dat") == [books / "c.dat"]


def test_text_files_of_python_are_many() -> None:
    files = text_files(None)
    assert len(files) > 100
    assert not any("site-packages" in path.parts for path in files)
