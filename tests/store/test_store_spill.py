"""Files of values that were moved out of memory, on a real disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opencluster.store import spill as spill_module
from opencluster.store.spill import ALIGNMENT, Spill

A, B = b"a" * 16, b"b" * 16


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spill]:
    made = Spill(tmp_path / "spill", "node-1")
    yield made
    made.close()


def files(root: Path) -> set[str]:
    """Return the files of values below a folder."""
    found = {path.name for path in root.rglob("*") if path.is_file()}
    return found - {spill_module.LOCK_NAME}


@contextmanager
def file_size_limit(nbytes: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# --- values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b""],
        [b"x"],
        [b"payload", b"", np.arange(1000.0), memoryview(b"abc")],
        [bytes([n % 251]) * n for n in range(1500)],
    ],
    ids=["none", "empty", "one", "several", "many"],
)
def test_what_was_written_is_read(spill: Spill, parts: Sequence[Any]) -> None:
    spill.write(A, parts)
    assert [bytes(part) for part in spill.read(A)] == [bytes(part) for part in parts]


def test_parts_are_aligned_and_read_only(spill: Spill) -> None:
    spill.write(A, [b"payload", np.arange(10.0)])
    (_, part) = spill.read(A)
    array = np.frombuffer(part)
    assert part.readonly
    assert array.ctypes.data % ALIGNMENT == 0
    assert array.tolist() == list(range(10))


def test_parts_are_mapped_and_not_copied(spill: Spill) -> None:
    spill.write(A, [bytes(64 << 20)])
    before = _anonymous_kib()
    (part,) = spill.read(A)
    assert np.frombuffer(part, np.uint8).sum() == 0
    assert _anonymous_kib() - before < 8 << 10


def _anonymous_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("the kernel does not tell")


def test_a_value_is_read_after_its_file_is_gone(spill: Spill) -> None:
    spill.write(A, [b"abc" * 1000])
    (part,) = spill.read(A)
    spill.remove(A)
    spill.remove(A)
    assert bytes(part) == b"abc" * 1000
    with pytest.raises(FileNotFoundError):
        spill.read(A)


def test_a_value_that_is_written_again_is_replaced(spill: Spill) -> None:
    spill.write(A, [b"old"])
    (old,) = spill.read(A)
    spill.write(A, [b"new"])
    assert (bytes(old), bytes(spill.read(A)[0])) == (b"old", b"new")


def test_writing_goes_on_where_the_system_stopped(
    spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev = os.writev

    def hesitant(fd: int, views: list[memoryview]) -> int:
        return writev(fd, [views[0][:100]])

    monkeypatch.setattr(os, "writev", hesitant)
    monkeypatch.setattr(spill_module, "SYNC_BYTES", 150)
    data = os.urandom(1001)
    spill.write(A, [data, b"end"])
    assert [bytes(part) for part in spill.read(A)] == [data, b"end"]


def test_of_a_value_that_does_not_fit_nothing_is_left(
    spill: Spill, tmp_path: Path
) -> None:
    spill.write(B, [b"small"])
    with file_size_limit(1 << 20), pytest.raises(OSError, match="too large"):
        spill.write(A, [bytes(2 << 20)])
    assert files(tmp_path) == {B.hex()}
    assert bytes(spill.read(B)[0]) == b"small"


@pytest.mark.parametrize("cut", [0, 7, 12, 20, 100, 1100])
def test_a_torn_file_is_no_value(spill: Spill, tmp_path: Path, cut: int) -> None:
    spill.write(A, [b"a" * 500, b"b" * 600])
    (path,) = tmp_path.rglob(A.hex())
    os.truncate(path, cut)
    with pytest.raises(OSError, match="not whole"):
        spill.read(A)


@pytest.mark.parametrize("head", [b"OCSPILL2", b"OCSPILL1" + b"\xff" * 8])
def test_another_file_is_no_value(spill: Spill, tmp_path: Path, head: bytes) -> None:
    spill.write(A, [b"a" * 500])
    (path,) = tmp_path.rglob(A.hex())
    path.write_bytes(head + path.read_bytes()[len(head) :])
    with pytest.raises(OSError, match="not whole"):
        spill.read(A)


# --- folders ---------------------------------------------------------------------


def test_nothing_is_made_before_something_is_written(
    spill: Spill, tmp_path: Path
) -> None:
    spill.clear_leftovers()
    spill.remove(A)
    with pytest.raises(FileNotFoundError):
        spill.read(A)
    assert not (tmp_path / "spill").exists()


def test_folders_are_closed_to_others_and_go_with_their_process(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "spill", "node-1")
    spill.write(A, [b"secret"])
    (path,) = tmp_path.rglob(A.hex())
    modes = {p.stat().st_mode & 0o077 for p in (path, path.parent, path.parent.parent)}
    assert modes == {0}
    spill.close()
    spill.close()
    assert not path.parent.exists()


OTHER = """
import os, sys, time
from pathlib import Path
from opencluster.store.spill import Spill
spill = Spill(Path(sys.argv[1]), sys.argv[2])
spill.write(b"a" * 16, [b"of another process"])
print("written", flush=True)
time.sleep(60)
"""


@contextmanager
def other_process(root: Path, host: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(root), host],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "written\n"
            yield process
        finally:
            process.kill()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "spill"
    with other_process(root, "node-1") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert files(root) == {A.hex()}
        Spill(root, "node").clear_leftovers()
        Spill(root, "node-2").clear_leftovers()
        assert files(root) == {A.hex()}
        Spill(root, "node-1").clear_leftovers()
    assert files(root) == set()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "spill"
    with other_process(root, "node-1"):
        spill = Spill(root, "node-1")
        spill.write(B, [b"mine"])
        spill.clear_leftovers()
        assert files(root) == {A.hex(), B.hex()}
        spill.close()
        assert files(root) == {A.hex()}


def test_making_a_folder_removes_leftovers(tmp_path: Path) -> None:
    root = tmp_path / "spill"
    left = root / "node-1-123-abc"
    left.mkdir(parents=True)
    (left / A.hex()).write_bytes(b"half a va")
    spill = Spill(root, "node-1")
    spill.write(B, [b"mine"])
    assert files(root) == {B.hex()}
    spill.close()


def test_a_forked_child_leaves_the_folder_alone(spill: Spill, tmp_path: Path) -> None:
    spill.write(A, [b"value"])
    child = os.fork()
    if not child:
        spill.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert files(tmp_path) == {A.hex()}
