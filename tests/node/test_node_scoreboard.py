"""The scoreboard: what a worker writes is what a workshop reads, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from opencluster.errors import RemoteProtocolError
from opencluster.node.scoreboard import (
    PAGE_BYTES,
    TEXT_BYTES,
    TRACEBACK_BYTES,
    LastError,
    Reading,
    Scoreboard,
    State,
)

DEADLINE_S = 30.0


@pytest.fixture
def pair(tmp_path):
    """The two sides of one scoreboard: the worker's and the workshop's."""
    reader = Scoreboard.create(tmp_path / "w.board")
    writer = Scoreboard.open(tmp_path / "w.board")
    yield writer, reader
    writer.close()
    reader.close()


def test_fresh_scoreboard_says_nothing(pair):
    assert pair[1].read() == Reading()
    assert pair[1].read().state is State.STARTING


def test_reader_sees_what_the_writer_wrote(pair):
    writer, reader = pair
    before = time.monotonic()
    writer.state(State.IDLE)
    writer.registered("worker-7")
    writer.started("job:3", deadline=before + 60)
    writer.progress(2, 8)
    reading = reader.read()
    assert reading.pid == os.getpid()
    assert reading.state is State.IDLE
    assert reading.worker_id == "worker-7"
    assert (reading.piece, reading.deadline) == ("job:3", before + 60)
    assert (reading.progress_done, reading.progress_total) == (2, 8)
    assert before <= reading.started_at <= reading.seen_at <= time.monotonic()


def test_the_piece_that_failed_last_is_told_with_the_end_of_its_traceback(pair):
    writer, reader = pair
    writer.erred(LastError(1.5, "ab:1", "KeyError", "first", "short"))
    long = "".join(f"  File {number}, in ünicode\n" for number in range(500))
    writer.erred(
        LastError(2.5, "ab:2", "E" * 500, "no\nbeam " * 500, f"{long}KeyError")
    )
    error = reader.read().last_error
    assert error is not None
    assert (error.at, error.piece) == (2.5, "ab:2")
    assert error.kind == "E" * TEXT_BYTES
    assert error.message.startswith("no\nbeam no")
    lines = error.traceback.splitlines()
    assert lines[-2:] == ["  File 499, in ünicode", "KeyError"]
    assert lines[0].startswith("  File 4")
    assert len(error.traceback.encode()) > TRACEBACK_BYTES // 2
    # heartbeats are small
    assert "traceback" not in reader.read().figures()["last_error"]
    assert error.to_fields()["traceback"] == error.traceback


def test_state_and_worker_id_do_not_erase_each_other(pair):
    writer, reader = pair
    writer.registered("worker-7")
    writer.state(State.DRAINING)
    assert reader.read().worker_id == "worker-7"
    writer.registered("worker-8")
    assert reader.read().state is State.DRAINING


def test_the_values_that_a_worker_keeps_are_told(pair):
    writer, reader = pair
    assert reader.read().kept_bytes == 0
    for nbytes in (1 << 40, 7):
        writer.keeps(nbytes)
        assert reader.read().kept_bytes == nbytes
    assert reader.read().figures()["kept_bytes"] == 7


def test_finished_pieces_are_counted_and_forgotten(pair):
    writer, reader = pair
    for failed in (False, True, False):
        writer.started("p", 5.0)
        writer.progress(1, 1)
        writer.finished(failed)
    reading = reader.read()
    assert (reading.pieces_done, reading.pieces_failed) == (2, 1)
    assert (reading.piece, reading.started_at, reading.deadline) == ("", 0.0, 0.0)
    assert (reading.progress_done, reading.progress_total) == (0.0, 0.0)


def test_the_running_piece_of_a_bundle_is_told_by_its_place(pair):
    writer, reader = pair
    writer.started("m:17+", 0.0)
    assert reader.read().piece == "m:17+0"
    for place in (0, 1, 1023):
        writer.started_next(place)
        assert reader.read().piece == f"m:17+{place}"
    writer.idle()
    assert reader.read().piece == ""


def test_a_place_counts_for_its_own_bundle_only(pair):
    writer, reader = pair
    writer.started("m:17+", 0.0)
    writer.started_next(9)
    writer.started("m:40+", 0.0)
    assert reader.read().piece == "m:40+0"
    writer.started("m:50", 0.0)
    assert reader.read().piece == "m:50"
    writer.started_next(2)
    assert reader.read().piece == "m:50"


def test_the_place_outlives_the_worker(pair):
    writer, reader = pair
    writer.started("m:17+", 0.0)
    writer.started_next(5)
    writer.close()
    assert reader.read().piece == "m:17+5"


def test_the_end_of_a_bundle_is_asked_for_by_the_piece_that_runs(pair):
    writer, reader = pair
    writer.started("m:17+", 0.0)
    writer.started_next(2)
    writer.enforce("m:17+", 99.0)
    reading = reader.read()
    assert (reading.enforce_piece, reading.enforce_at) == ("m:17+2", 99.0)
    assert reading.enforce_piece == reading.piece
    # it is one asking, whichever runs by then
    writer.started_next(3)
    assert reader.read().enforce_piece == "m:17+3"
    writer.started("m:40+", 0.0)
    assert reader.read().enforce_piece == ""


def test_rejections_are_no_sign_of_work(pair):
    writer, reader = pair
    writer.counted(1, 2, 3, 4)
    writer.counted(4, 5, 6, 7)
    figures = reader.read().figures()
    assert figures["rejected_messages"] == 4
    assert figures["rejected_handshakes"] == 5
    assert figures["dropped_connections"] == 6
    assert figures["rejected_credentials"] == 7
    assert reader.read().seen_at == 0.0


def test_progress_of_one_piece_is_not_taken_for_that_of_the_next(pair):
    writer, reader = pair
    writer.started("a", 0)
    writer.progress(9, 10)
    writer.finished(False)
    writer.started("a", 0)
    assert reader.read().progress_done == 0


def test_enforcement_ends_with_its_piece(pair):
    writer, reader = pair
    writer.started("a", 0)
    writer.enforce("a", 123.0)
    assert (reader.read().enforce_piece, reader.read().enforce_at) == ("a", 123.0)
    writer.finished(True)
    assert reader.read().enforce_piece == ""
    writer.started("a", 0)  # the same piece again, after a retry
    assert reader.read().enforce_piece == ""


def test_enforcement_of_another_piece_is_void(pair):
    writer, reader = pair
    writer.started("b", 0)
    writer.enforce("a", 123.0)
    assert reader.read().enforce_piece == ""


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        ("x" * 300, "x" * TEXT_BYTES),
        ("y" * (TEXT_BYTES - 1) + "é", "y" * (TEXT_BYTES - 1)),
        ("太阳", "太阳"),
        ("a\udcffb", "a?b"),
        ("", ""),
    ],
)
def test_long_and_odd_ids_are_cut_safely(pair, piece, shown):
    writer, reader = pair
    writer.started(piece, 0)
    writer.enforce(piece, 1.0)
    assert reader.read().piece == shown
    assert reader.read().enforce_piece == shown


def test_half_written_slot_is_not_believed(pair, tmp_path):
    writer, reader = pair
    writer.started("first", 0)
    writer.started("second", 0)
    path = tmp_path / "w.board"
    data = path.read_bytes()
    at = data.index(b"second")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"SECO")
    fresh = Scoreboard.open(path)
    assert fresh.read().piece == "first"
    fresh.close()
    assert reader.read().piece == "first"
    writer.started("third", 0)
    assert reader.read().piece == "third"


def test_scribbled_page_leaves_the_reading_seen_last(pair, tmp_path):
    writer, reader = pair
    writer.state(State.BUSY)
    writer.started("p", 0)
    seen = reader.read()
    with (tmp_path / "w.board").open("r+b") as file:
        file.write(os.urandom(PAGE_BYTES))
    assert reader.read() == seen


def test_counts_go_on_when_the_worker_opens_it_again(pair, tmp_path):
    writer, reader = pair
    writer.state(State.BUSY)
    writer.registered("w")
    writer.started("a", 0)
    writer.finished(False)
    again = Scoreboard.open(tmp_path / "w.board")
    again.started("b", 0)
    again.finished(False)
    again.state(State.IDLE)
    again.close()
    reading = reader.read()
    assert (reading.pieces_done, reading.worker_id) == (2, "w")
    assert reading.state is State.IDLE


def test_create_replaces_the_page_of_the_worker_before(pair, tmp_path):
    pair[0].started("old", 0)
    fresh = Scoreboard.create(tmp_path / "w.board")
    pair[0].started("older still writes", 0)
    assert fresh.read() == Reading()
    fresh.close()
    assert (tmp_path / "w.board").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"x" * PAGE_BYTES, b"OCsb\1\0"])
def test_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(RemoteProtocolError, match="foreign is no scoreboard"):
        Scoreboard.open(path)


def test_anonymous_scoreboard_reads_what_it_wrote():
    board = Scoreboard.anonymous()
    board.started("p", 0)
    assert board.read().piece == "p"
    board.close()


def test_threads_of_a_writer_do_not_mix(pair):
    writer, reader = pair
    ends = threading.Event()

    def other_thread() -> None:
        number = 0
        while not ends.is_set():
            number += 1
            writer.registered(f"{number}" * 8)

    thread = threading.Thread(target=other_thread)
    thread.start()
    for number in range(3000):
        writer.started(f"piece-{number}", float(number))
        reading = reader.read()
        assert reading.piece == f"piece-{number}"
        worker_id = reading.worker_id
        assert worker_id == worker_id[: len(worker_id) // 8] * 8
    ends.set()
    thread.join()


_ENDLESS_WRITER = """
import itertools, sys
from pathlib import Path
from opencluster.node.scoreboard import Scoreboard, State
board = Scoreboard.open(Path(sys.argv[1]))
board.state(State.BUSY)
for n in itertools.count():
    board.started(f"{n % 7}" * 64, n % 7)
    board.progress(n % 7, n % 7)
"""


def _start_endless_writer(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _ENDLESS_WRITER, str(path)])


@pytest.mark.processes
def test_reader_never_sees_a_torn_record_and_reads_on_after_kill_9(tmp_path):
    path = tmp_path / "w.board"
    reader = Scoreboard.create(path)
    process = _start_endless_writer(path)
    try:
        give_up = time.monotonic() + DEADLINE_S
        while not reader.read().piece:
            assert time.monotonic() < give_up
        seen = set()
        for _ in range(5000):
            seen.add(_whole(reader.read()))
        assert len(seen) > 1
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = reader.read()
    assert last.pid == process.pid
    assert _whole(last) in range(7)
    fresh = Scoreboard.open(path)  # a workshop that starts only now
    assert fresh.read() == last
    fresh.close()
    reader.close()


def _whole(reading: Reading) -> int:
    """Check that all fields of a reading come from one call."""
    digit = int(reading.piece[0])
    assert reading.piece == f"{digit}" * 64
    assert reading.deadline == digit
    assert reading.progress_done == reading.progress_total
    return digit


@pytest.mark.processes
def test_stopped_writer_does_not_stop_the_reader(tmp_path):
    path = tmp_path / "w.board"
    reader = Scoreboard.create(path)
    process = _start_endless_writer(path)
    try:
        give_up = time.monotonic() + DEADLINE_S
        while not reader.read().piece:
            assert time.monotonic() < give_up
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert reader.read() == reader.read()
        assert _whole(reader.read()) in range(7)
    finally:
        process.kill()
        process.wait()
        reader.close()


_FORKER = """
import os, sys
from pathlib import Path
from opencluster.node.scoreboard import Scoreboard
board = Scoreboard.open(Path(sys.argv[1]))
board.started("p", 0)
if os.fork() == 0:
    board.progress(3, 4)
    os._exit(0)
os.wait()
"""


@pytest.mark.processes
def test_forked_child_is_seen_too(tmp_path):
    board = Scoreboard.create(tmp_path / "w.board")
    command = [sys.executable, "-c", _FORKER, str(tmp_path / "w.board")]
    subprocess.run(command, check=True)
    assert board.read().piece == "p"
    assert board.read().progress_done == 3
    board.close()
