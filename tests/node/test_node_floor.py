"""The processes of a workshop: real ones, started, watched, ended, cleared away."""

from __future__ import annotations

import gc
import math
import os
import select
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from opencluster.config import CatalogueEntry, Config, load
from opencluster.core.entries import Entry
from opencluster.core.supervision import ReportStartFailure, SlotState
from opencluster.errors import DeathEvidence, RequestRefused, StartFailed
from opencluster.node import process as process_module
from opencluster.node.bench import Bench
from opencluster.node.cgroup import Cgroups, Group
from opencluster.node.floor import Floor
from opencluster.node.handover import SCOREBOARD_VARIABLE
from opencluster.node.launch import ProcessSpec, launch
from opencluster.node.orders import MAX_PROCESSES
from opencluster.node.process import ChildProcess
from opencluster.node.scoreboard import Scoreboard

pytestmark = pytest.mark.processes

DEADLINE_S = 30.0
READY = """
import os, sys, time
from pathlib import Path
import msgpack
from opencluster.core.registry import Entry
from opencluster.node.handover import SCOREBOARD_VARIABLE, entry_path
from opencluster.node.scoreboard import Scoreboard

board = Path(os.environ[SCOREBOARD_VARIABLE])
fields = Entry(id=sys.argv[1], kind="worker", type="T").to_fields()
content = b"\\xc1" if sys.argv[1] == "spoiled" else msgpack.packb(fields)
entry_path(board).write_bytes(content)
Scoreboard.open(board).registered(sys.argv[1])
time.sleep(60)
"""
LEAVES_A_SOCKET = """
import os
from pathlib import Path
from opencluster.node.handover import SCOREBOARD_VARIABLE, socket_name

board = Path(os.environ[SCOREBOARD_VARIABLE])
board.with_name(socket_name(board, os.getpid()) + ".sock").touch()
print("listening", flush=True)
os.kill(os.getpid(), 9)
"""


class Shop:
    """Runs a floor, and notes what it tells."""

    def __init__(self, sockets: Path, logs: Path, config: Config) -> None:
        self.ready: list[str] = []
        self.deaths: list[tuple[str, DeathEvidence]] = []
        self.failures: list[DeathEvidence] = []
        self.is_empty = False
        self.readers: dict[int, Callable[[], None]] = {}
        self.floor = Floor(
            config,
            uuid.uuid4().hex,
            sockets,
            logs,
            uuid.uuid4().hex,
            uuid.uuid4().hex,
            self,
            self.readers.__setitem__,
            self.unwatch,
        )

    def unwatch(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def process_ready(self, entry: Entry) -> None:
        self.ready.append(entry.id)

    def process_died(self, entry: Entry, evidence: DeathEvidence) -> None:
        self.deaths.append((entry.id, evidence))

    def start_failed(self, failure: ReportStartFailure, death: DeathEvidence) -> None:
        self.failures.append(death)

    def start_recovered(self, name: str) -> None:
        """Nothing here waits for it."""

    def floor_empty(self) -> None:
        self.is_empty = True

    def run_until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            for fd in select.select(list(self.readers), [], [], 0.02)[0]:
                if fd in self.readers:
                    self.readers[fd]()
            self.floor.poll()


Open = Callable[..., Shop]


@pytest.fixture
def open_shop(tmp_path: Path) -> Iterator[Open]:
    shops: list[Shop] = []

    def open_one(*catalogue: CatalogueEntry, **settings: Any) -> Shop:
        config = Config(catalogue=catalogue)
        workshop = config.workshop.changed(**settings)
        shops.append(Shop(tmp_path, tmp_path, replace(config, workshop=workshop)))
        return shops[-1]

    yield open_one
    for shop in shops:
        shop.floor.stop_all()
        shop.run_until(partial(getattr, shop, "is_empty"))
        shop.floor.close()


def entry_of(name: str, *command: str, **values: Any) -> CatalogueEntry:
    return CatalogueEntry(kind="worker", name=name, command=command, **values)


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *arguments)


def boards(folder: Path) -> list[Path]:
    return [*folder.glob("*.board"), *folder.glob("*.entry"), *folder.glob("*.sock")]


# --- starts that fail ------------------------------------------------------------


def test_a_start_that_raises_whatever_it_may_fails_and_leaves_nothing(
    open_shop: Open, tmp_path: Path
) -> None:
    good = entry_of("T", "sleep", "60")
    shop = open_shop(good)
    bad = replace(good, environment=[1])  # type: ignore[arg-type]
    outcome = shop.floor.add(bad, 1)
    with pytest.raises(StartFailed, match="T-1 did not start: TypeError"):
        outcome.result(0)
    assert boards(tmp_path) == []
    shop.run_until(lambda: shop.floor.count("T") == 0)
    # what does not start does not replace what does
    assert shop.floor.catalogue["T"] == good


def test_a_start_that_the_system_refuses_leaves_no_file_and_no_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = OrdinaryFolders(tmp_path / "groups", 2)
    monkeypatch.setattr(ChildProcess, "start", refuse)
    entry = entry_of("T", "true", memory_bytes=1 << 30)
    bench = Bench("T-1", entry, Config(), tmp_path, tmp_path, "shop", "mark", groups)
    assert len(boards(tmp_path)) == len(list(groups.path.iterdir())) == 1
    with pytest.raises(StartFailed, match="no more processes"):
        bench.start(None)
    assert boards(tmp_path) == list(groups.path.iterdir()) == []


@pytest.mark.parametrize(
    ("memory_bytes", "arena_bytes", "kept_bytes"),
    [(0, 1 << 30, 0), (800 << 20, 100 << 20, 200 << 20)],
)
def test_shared_memory_and_kept_values_are_parts_of_the_memory_limit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    memory_bytes: int,
    arena_bytes: int,
    kept_bytes: int,
) -> None:
    started: list[ProcessSpec] = []

    def keep(spec: ProcessSpec, *arguments: object) -> None:
        started.append(spec)
        raise StartFailed("not in this test")

    monkeypatch.setattr(ChildProcess, "start", keep)
    entry = entry_of("T", "true", memory_bytes=memory_bytes)
    bench = Bench("T-1", entry, Config(), tmp_path, tmp_path, "shop", "mark", None)
    with pytest.raises(StartFailed):
        bench.start(None)
    memory = load([], environ=started[0].environment).memory
    assert (memory.arena_bytes, memory.kept_bytes) == (arena_bytes, kept_bytes)


class OrdinaryFolders(Cgroups):
    """Folders in place of control groups, which most systems do not let tests make."""

    def create(
        self, child_name: str, memory_bytes: int, cpus: float | None = None
    ) -> Group:
        group = Group(self.path / child_name, self.version)
        group.path.mkdir(parents=True)
        return group


def refuse(*arguments: object) -> None:
    raise StartFailed("no more processes")


def test_a_start_that_raises_leaves_no_descriptor_open() -> None:
    gc.collect()
    before = pipes()
    with pytest.raises(TypeError):
        launch(ProcessSpec(("true",), {"A": 1}))  # type: ignore[dict-item]
    assert pipes() == before


def pipes() -> set[Path]:
    return {path for path in Path("/proc/self/fd").iterdir() if path.is_fifo()}


def test_a_scoreboard_that_cannot_be_made_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        Scoreboard.create(tmp_path / "a.board")
    assert boards(tmp_path) == []


def test_a_missing_gpu_is_tried_for_again_after_a_while_without_any_delay_set(
    open_shop: Open,
) -> None:
    shop = open_shop(entry_of("T", "sleep", "60", gpus=10_000), restart_delay_s=0.0)
    with pytest.raises(StartFailed, match="it needs 10000 GPUs"):
        shop.floor.scale("T", 1).result(0)
    assert len(shop.failures) == 1
    shop.run_until(lambda: len(shop.failures) >= 3)


def test_more_processes_than_a_computer_runs_are_refused(open_shop: Open) -> None:
    good = entry_of("T", "sleep", "60")
    shop = open_shop(good)
    with pytest.raises(RequestRefused, match="count: 1001 processes"):
        shop.floor.add(entry_of("T", "true"), MAX_PROCESSES + 1)
    with pytest.raises(RequestRefused, match="count: 1001 processes"):
        shop.floor.scale("T", MAX_PROCESSES + 1)
    assert shop.floor.count("T") == 0
    assert shop.floor.catalogue["T"] == good


def test_whoever_waits_for_a_slot_that_is_given_up_is_told(open_shop: Open) -> None:
    shop = open_shop(entry_of("T", "sleep", "60", gpus=0))
    outcome = shop.floor.scale("T", 1)
    # as if its process had ended, to be started again later
    (bench,) = shop.floor._benches.values()
    (slot,) = shop.floor._supervision.slots()
    slot.state, slot.restart_at = SlotState.WAITING, math.inf
    shop.floor.scale("T", 0)
    with pytest.raises(StartFailed, match="T-1 .*was stopped before it was ready"):
        outcome.result(0)
    bench.condemn("the test is over")
    shop.run_until(lambda: not shop.floor._benches)


# --- processes that tell nonsense, or end unseen ---------------------------------


def test_a_process_that_tells_nonsense_is_ended_and_harms_no_other(
    open_shop: Open,
) -> None:
    shop = open_shop(
        entry_of("Bad", *python(READY, "spoiled")),
        entry_of("Good", *python(READY, "a")),
    )
    bad, good = shop.floor.scale("Bad", 1), shop.floor.scale("Good", 1)
    shop.run_until(lambda: bad.done() and good.done())
    assert good.result() == {"names": ["Good-1"]}
    with pytest.raises(StartFailed, match="what it tells makes no sense"):
        bad.result()
    assert shop.failures[0].signal == "SIGKILL"
    assert shop.ready == ["a"]


def test_a_state_that_nobody_knows_does_not_hide_an_end(open_shop: Open) -> None:
    code = f"""
import os, struct, time
from pathlib import Path
from opencluster.node.scoreboard import Scoreboard
Scoreboard.open(Path(os.environ[{SCOREBOARD_VARIABLE!r}]))._state.write(1, 99, b"x")
time.sleep(60)
"""
    shop = open_shop(entry_of("T", *python(code)))
    outcome = shop.floor.scale("T", 1)
    shop.run_until(outcome.done)
    with pytest.raises(StartFailed, match="makes no sense"):
        outcome.result()


def test_ends_are_noticed_where_the_system_has_no_pidfd(
    open_shop: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process_module, "_open_pidfd", lambda pid: -1)
    shop = open_shop(entry_of("A", "false"), entry_of("B", *python(READY, "b")))
    failing, running = shop.floor.scale("A", 1), shop.floor.scale("B", 1)
    assert -1 not in shop.readers
    shop.run_until(lambda: failing.done() and running.done())
    with pytest.raises(StartFailed, match="exited with code 1"):
        failing.result()
    assert running.result() == {"names": ["B-1"]}
    shop.floor.stop("B-1")
    shop.run_until(lambda: shop.deaths)
    assert "SIGTERM" in shop.deaths[0][1].reason


def test_a_piece_that_ended_in_time_is_not_said_to_have_exceeded_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(
        "T-1",
        entry_of("T", "sleep", "60"),
        Config(),
        tmp_path,
        tmp_path,
        "s",
        "m",
        None,
    )
    bench.start(None)
    try:
        board = Scoreboard.open(next(tmp_path.glob("*.board")))
        board.started("p", 1.0)
        read = bench._scoreboard.read

        def read_at_the_end() -> Any:
            """Have the piece end right after it was seen running."""
            reading = read()
            board.finished(failed=False)
            return reading

        monkeypatch.setattr(bench._scoreboard, "read", read_at_the_end)
        bench.poll(time.monotonic())
        bench.condemn("the test is over")
        deadline = time.monotonic() + DEADLINE_S
        while (death := bench.end()) is None:
            assert time.monotonic() < deadline
            select.select([bench.process.pidfd], [], [], 1.0)
        assert death.evidence.exceeded == ""
        board.close()
    finally:
        bench.process.kill_group()
        bench.process.poll()
        bench.close()


def test_the_socket_of_a_process_that_was_killed_early_is_removed(
    open_shop: Open, tmp_path: Path
) -> None:
    shop = open_shop(entry_of("T", *python(LEAVES_A_SOCKET)), restart_delay_s=60.0)
    outcome = shop.floor.scale("T", 1)
    shop.run_until(outcome.done)
    with pytest.raises(StartFailed) as caught:
        outcome.result()
    assert "listening" in caught.value.output
    assert boards(tmp_path) == []
