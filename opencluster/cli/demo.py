"""``opencluster demo``: a cluster that loses a worker and no word.

What it runs stands in ``opencluster/demo``; here is the show around it.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import click

from opencluster.cli import workers
from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.demo import words as demo
from opencluster.engines.choice import close_engines
from opencluster.launchers import embedded
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.observe.status import counted, status_of
from opencluster.place import (
    DIRECTORY_VARIABLE,
    FACTORIES_VARIABLE,
    KEYS_VARIABLE,
    Place,
)
from opencluster.workpiece import WorkPiece

SUFFIXES = (".py", ".txt")
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}
PART_BYTES = 128 * 1024
"""Largest part of a file that one piece counts, about."""
PARTS_PER_WORKER = 64
"""So many at least if the text has the lines for it: half of them is then half way."""
PIECES_AHEAD = 16
"""Pieces that each worker is handed before their results are taken."""
WORDS_SHOWN = 10
EVIDENCE_TIMEOUT_S = 10.0
"""How long word of the killed worker may take to come."""
POLL_S = 0.05
APPLICATION = "muser_pipeline.demo"
"""The part of the demo that belongs to a package installed beside this one."""
EXTRA = "pip install 'opencluster[muser]'"


@dataclass
class Outcome:
    """What the demo found out.

    Attributes
    ----------
    workers : int
        How many there were.
    words : Counter
        How often each word was counted on the cluster.
    killed : list of str
        Identities of the workers that were killed.
    is_right : bool
        A count in this process came to the same.
    cluster_s, plain_s, elapsed_s : float
        How long the cluster, this process and everything together took.
    converted : Converted or None
        What came of the frames of MUSER, if that part could be done; see
        ``muser_pipeline/demo.py``.
    """

    workers: int
    words: Counter[str] = field(default_factory=Counter)
    killed: list[str] = field(default_factory=list)
    is_right: bool = False
    cluster_s: float = 0.0
    plain_s: float = 0.0
    elapsed_s: float = 0.0
    converted: Any = None

    def to_fields(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        converted = self.converted
        return {
            "words": self.words.total(),
            "distinct": len(self.words),
            "matches_single_process": self.is_right,
            "workers": self.workers,
            "workers_killed": len(self.killed),
            "elapsed_s": round(self.elapsed_s, 3),
            "muser_frames": converted and converted.frames,
            "uvfits_files": converted and converted.files,
            "frames_per_s": converted and round(converted.frames_per_s, 1),
        }


class Parts(list[WorkPiece]):
    """Pieces that call a function when half of them have been handed out."""

    def __init__(self, pieces: list[WorkPiece], half_way: Callable[[], None]) -> None:
        super().__init__(pieces)
        self._half_way = half_way

    def __iter__(self) -> Iterator[WorkPiece]:
        """Hand them out."""
        for number, piece in enumerate(super().__iter__()):
            if number == len(self) // 2:
                self._half_way()
            yield piece


@click.command("demo")
@click.option(
    "--path",
    type=click.Path(exists=True, path_type=Path),
    help="Count this file, or the .py and .txt files below this directory.",
)
@click.option(
    "--workers",
    "count",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many workers; by default one for each core.",
)
@click.option("--json", "is_json", is_flag=True, help="Print a summary for programs.")
@click.option("--keep", is_flag=True, help="Keep all the files of the cluster.")
@directory_option
def demo_command(
    path: Path | None, count: int | None, is_json: bool, keep: bool
) -> None:
    """Count words on a cluster of this computer, and kill a worker half way.

    The text is that of Python's standard library. Then three seconds of a solar radio
    telescope, MUSER-I, are simulated and made into UVFITS files, if the extra `muser`
    is installed. The cluster lives in a directory of its own and ends with the demo;
    what its processes logged stays.

    \b
    Examples:
        opencluster demo
        opencluster demo --path ~/books --workers 4
        opencluster demo --json
    """
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _end)
    files = text_files(path)
    outcome = Outcome(count or len(os.sched_getaffinity(0)))
    with embedded_cluster(keep) as place:
        with connect(load(), place) as control:
            start_workers(outcome.workers, control)
            count_on_cluster(outcome, files, control)
            convert_frames(outcome, control, place)
        compare(outcome, files)
    outcome.elapsed_s = time.monotonic() - began
    if is_json:
        click.echo(json.dumps(outcome.to_fields()))
    else:
        show(outcome)
    sys.exit(0 if outcome.is_right else 1)


# --- acts -------------------------------------------------------------------


def start_workers(count: int, control: Control) -> None:
    """Start workers, and return when all of them are ready."""
    target = f"{demo.__name__}:{demo.WordCountWorker.__name__}"
    names = workers.start(control, "worker", "", target, count, {})
    say(f"started a factory, a workshop and {', '.join(names)}")


def count_on_cluster(outcome: Outcome, files: Sequence[Path], control: Control) -> None:
    """Count the words of files, and kill a worker half way."""
    total_bytes = sum(file.stat().st_size for file in files)
    part_bytes = total_bytes // (outcome.workers * PARTS_PER_WORKER)
    part_bytes = max(1, min(PART_BYTES, part_bytes))
    pieces = [piece for file in files for piece in demo.split(file, part_bytes)]
    of_files = counted(len(files), "file")
    say(f"counting the {total_bytes:,} bytes of {of_files} in parts: {len(pieces):,}")
    # so few that half way there is work in the workers' hands, and some left over
    window = max(2, min(PIECES_AHEAD * outcome.workers, len(pieces) // 4))
    os.environ["OPENCLUSTER_MANAGER_WINDOW"] = str(window)

    def half_way() -> None:
        outcome.killed.append(kill_one(control))

    began = time.monotonic()
    manager = demo.WordCountManager(engine="cluster")
    result = manager.run(WorkPiece(parts=Parts(pieces, half_way)))
    outcome.cluster_s = time.monotonic() - began
    outcome.words = result["words"]
    for identity in outcome.killed:
        say(f"the cluster knows why it was lost: {cause_of_death(identity, control)}")


def kill_one(control: Control) -> str:
    """Kill a worker, one that is busy if there is such, and return its identity."""
    here = status_of(control.factory("status"))["workers"]
    busy = [worker for worker in here if worker["state"] == "busy"]
    victim = (busy or here)[0]
    os.kill(victim["pid"], signal.SIGKILL)
    say(f"half way: killed {victim['name']} (process {victim['pid']}) with SIGKILL")
    return str(victim["id"])


def cause_of_death(identity: str, control: Control) -> str:
    """Return what the factory was told about the end of a worker."""
    deadline = time.monotonic() + EVIDENCE_TIMEOUT_S
    while time.monotonic() < deadline:
        for death in status_of(control.factory("status"))["deaths"]:
            if death["id"] == identity:
                piece = f", with piece {death['piece']}" if death["piece"] else ""
                return f"{death['reason']}{piece}"
        time.sleep(POLL_S)
    return "not known yet"


def convert_frames(outcome: Outcome, control: Control, place: Place) -> None:
    """Simulate frames of MUSER-I and have the cluster make files of them."""
    try:
        application = importlib.import_module(APPLICATION)
    except ModuleNotFoundError as error:
        missing = [str(error.name)]
    else:
        missing = application.lacking()
    if missing:
        what = " and ".join(missing)
        say(f"the part with MUSER is left out, without {what}: {EXTRA}")
        return
    say(f"simulating {application.FRAMES:,} frames of MUSER-I")
    archive = application.simulate_sun(place.path / "muser" / "archive")
    workers.start(control, "worker", "", application.WORKER, outcome.workers, {})
    say(f"making UVFITS files of them on {counted(outcome.workers, 'worker')}")
    outcome.converted = application.convert(archive, place.path / "muser" / "uvfits")


def compare(outcome: Outcome, files: Sequence[Path]) -> None:
    """Count again, in this process."""
    say("counting again, in one process and without OpenCluster")
    began = time.monotonic()
    outcome.is_right = demo.count_plainly(files) == outcome.words
    outcome.plain_s = time.monotonic() - began


def show(outcome: Outcome) -> None:
    """Print the result for people."""
    for word, count in outcome.words.most_common(WORDS_SHOWN):
        click.echo(f"{count:12,}  {word}")
    verdict = "the same" if outcome.is_right else "SOMETHING ELSE, which is a bug"
    click.echo(
        f"{outcome.words.total():,} words, {len(outcome.words):,} different ones, in "
        f"{outcome.cluster_s:.1f} s on {outcome.workers} workers of which "
        f"{len(outcome.killed)} was killed;\n"
        f"a plain count in one process gives {verdict}, in {outcome.plain_s:.1f} s"
    )
    if outcome.converted is not None:
        for line in outcome.converted.lines():
            click.echo(line)


def say(text: str) -> None:
    """Tell people what goes on."""
    click.echo(text, err=True)


# --- the stage --------------------------------------------------------------


def text_files(path: Path | None) -> list[Path]:
    """Return the files to count: those that can be read and are not empty.

    Raises
    ------
    click.BadParameter
        When there are none.
    """
    root = path or Path(sysconfig.get_path("stdlib"))
    found = [root.absolute()] if root.is_file() else sorted(_below(root.absolute()))
    files = [f for f in found if os.access(f, os.R_OK) and f.stat().st_size]
    if not files:
        raise click.BadParameter(f"no text in {root}: give a directory with .txt files")
    return files


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        paths = (Path(folder, name) for name in names if name.endswith(SUFFIXES))
        yield from (path for path in paths if path.is_file())


@contextmanager
def embedded_cluster(keep: bool) -> Iterator[Place]:
    """Run a cluster of one's own in a temporary directory; nothing but logs is left.

    Parameters
    ----------
    keep : bool
        Leave the directory too.
    """
    kept_logs = logs_directory()
    place = Place(Path(tempfile.mkdtemp(prefix="opencluster-")))
    ours = {FACTORIES_VARIABLE: "", KEYS_VARIABLE: ""}
    os.environ.update({DIRECTORY_VARIABLE: str(place.path)} | ours)
    try:
        embedded.start(place, ["--only"], while_pid=os.getpid())
        yield place
    finally:
        # a second Ctrl-C must not leave half of it running
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        close_engines(place)
        embedded.stop(place)
        if keep:
            say(f"the files of the cluster are in {place.path}")
        else:
            move(place.logs, kept_logs)
            shutil.rmtree(place.path, ignore_errors=True)


def logs_directory() -> Path:
    """Return where the logs of the demo are kept: those of the last one."""
    place = Place.find()
    is_named = bool(os.environ.get(DIRECTORY_VARIABLE))
    return (place.path / "demo" if is_named else place.path.with_name("demo")) / "logs"


def move(logs: Path, to: Path) -> None:
    """Put logs in place of those of an earlier demo, and say where they are."""
    try:
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copytree(logs, to, dirs_exist_ok=True)
    except OSError as error:
        say(f"the logs cannot be kept in {to}: {error}")
    else:
        say(f"the logs are in {to}")


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
