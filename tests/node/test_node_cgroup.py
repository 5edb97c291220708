"""Memory limits: the kernel's own where they can be had, else a made-up tree."""

from __future__ import annotations

import errno
import os
import select
import shutil
import sys
import time
import uuid
from pathlib import Path

import pytest

from opencluster.node import cgroup
from opencluster.node.cgroup import Cgroups, Group, oom_kills_of_machine
from opencluster.node.diagnosis import diagnose
from opencluster.node.launch import Limits, ProcessSpec
from opencluster.node.process import ChildProcess, ExitStatus

DEADLINE_S = 30.0
MB = 1_000_000
LIMIT_BYTES = 100 * MB


@pytest.fixture
def groups():
    """Real groups, or ``None`` where this process may not make any."""
    found = Cgroups.detect(f"test-{uuid.uuid4().hex}")
    yield found
    if found is not None:
        give_up = time.monotonic() + DEADLINE_S
        while not found.close():
            assert time.monotonic() < give_up, f"{found.path} is still there"
            time.sleep(0.01)


def run(code: str, group: Group | None, memory_bytes: int = LIMIT_BYTES) -> ExitStatus:
    argv = (sys.executable, "-c", code)
    limits = Limits(memory_bytes=memory_bytes)
    child = ChildProcess.start(ProcessSpec(argv, dict(os.environ), "", limits), group)
    give_up = time.monotonic() + DEADLINE_S
    while (status := child.poll()) is None:
        assert time.monotonic() < give_up
        select.select([child.output_fd], [], [], 0.01)
        time.sleep(0.001)
    child.close()
    return status


@pytest.mark.processes
def test_memory_beyond_the_limit_is_refused(groups):
    greedy = f"x = bytearray({3 * LIMIT_BYTES})"
    if groups is None:
        assert run(greedy, None).exit_code == 1  # MemoryError
        return
    group = groups.create("greedy", LIMIT_BYTES)
    machine_before = oom_kills_of_machine()
    assert group.oom_kills() == 0
    status = run(greedy, group)
    assert status.signal == "SIGKILL"
    assert group.oom_kills() == 1
    assert oom_kills_of_machine() > machine_before
    assert 0.5 * LIMIT_BYTES < group.peak_bytes() <= LIMIT_BYTES
    evidence = diagnose(
        status, oom_kills=group.oom_kills(), memory_limit_bytes=LIMIT_BYTES
    )
    assert evidence.reason == "killed by SIGKILL: out of memory (limit 100 MB)"
    assert evidence.out_of_memory
    assert group.remove()


@pytest.mark.processes
def test_memory_within_the_limit_is_given(groups):
    group = groups.create("modest", LIMIT_BYTES) if groups else None
    status = run(f"x = bytearray({LIMIT_BYTES // 4})", group)
    assert status.exit_code == 0
    if group is not None:
        assert group.oom_kills() == 0
        assert group.remove()


@pytest.mark.processes
def test_address_space_may_be_larger_than_a_group_limit(groups):
    reserve = f"import mmap; mmap.mmap(-1, {4 * LIMIT_BYTES})"
    group = groups.create("reserving", LIMIT_BYTES) if groups else None
    assert run(reserve, group).exit_code == (0 if groups else 1)


@pytest.mark.processes
def test_removing_a_group_ends_what_hides_in_it(groups):
    daemon = (
        "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    signal.pause()"
    )
    if groups is None:
        assert run("pass", None).exit_code == 0
        return
    group = groups.create("daemonic", 0)
    run(daemon, group)
    give_up = time.monotonic() + DEADLINE_S
    while not group.remove():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert not group.path.exists()


def test_groups_of_one_name_are_told_apart(groups):
    if groups is None:
        return
    names = ["twin", "twin", "../escape", "memory.limit_in_bytes"]
    made = [groups.create(name, LIMIT_BYTES) for name in names]
    paths = {group.path for group in made}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {groups.path}
    assert all(group.remove() for group in made)


def test_groups_left_by_a_dead_workshop_are_removed(groups):
    if groups is None:
        return
    mine = groups.create("mine", 0)
    (groups.path / "dead.4194305.0").mkdir()  # beyond the largest pid there is
    (groups.path / f"alive.{os.getppid()}.0").mkdir()
    assert Cgroups.detect(groups.path.name.removeprefix("opencluster-")) is not None
    left = sorted(path.name for path in groups.path.iterdir() if path.is_dir())
    assert left == [f"alive.{os.getppid()}.0"]
    assert mine.remove()
    (groups.path / f"alive.{os.getppid()}.0").rmdir()


# --- version 2, made up ---------------------------------------------------------------


class MadeUpKernel:
    """A tree that behaves like cgroup version 2 in what matters here."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root / "cgroup"
        self.proc = root / "proc"
        self.own = self.root / "my.service"
        really_make = Path.mkdir

        def make(path: Path, *args: object, **options: object) -> None:
            really_make(path, *args, **options)
            if path.is_relative_to(self.root):
                self._fill(path)

        monkeypatch.setattr(Path, "mkdir", make)
        monkeypatch.setattr(cgroup, "_write", self._write)
        monkeypatch.setattr(cgroup, "_rmdir", self._remove)
        root.joinpath("proc").mkdir()
        self.root.mkdir()
        (self.root / "cgroup.controllers").write_text("cpu io memory\n")
        (self.root / "cgroup.subtree_control").write_text("cpu memory\n")
        self.own.mkdir()
        self._write(self.own / "cgroup.procs", str(os.getpid()))
        (self.proc / "cgroup").write_text("0::/my.service\n")
        (self.proc / "mountinfo").write_text(
            f"22 1 0:20 / /proc rw shared:1 - proc proc rw\n"
            f"29 22 0:26 / {self.root} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
        )

    def enter(self, pid: int, path: Path) -> None:
        (path / "cgroup.procs").write_text(
            (path / "cgroup.procs").read_text() + f"{pid}\n"
        )

    def _fill(self, path: Path) -> None:
        """Give a new group its files."""
        if (path / "cgroup.procs").exists():
            return
        given = path.parent / "cgroup.subtree_control"
        controllers = given.read_text().split() if given.exists() else []
        (path / "cgroup.controllers").write_text(" ".join(controllers))
        (path / "cgroup.subtree_control").write_text("")
        (path / "cgroup.procs").write_text("")
        files = {
            "memory": ("memory.max", "memory.swap.max", "memory.events"),
            "cpu": ("cpu.max",),
        }
        for controller in controllers:
            for name in files.get(controller, ()):
                (path / name).write_text("")

    def _write(self, path: Path, text: str) -> None:
        before = path.read_text()
        if path.name == "cgroup.procs":
            for other in self.root.rglob("cgroup.procs"):
                pids = [pid for pid in other.read_text().split() if pid != text]
                other.write_text("\n".join(pids))
            self.enter(int(text), path.parent)
        elif path.name == "cgroup.subtree_control":
            if (path.parent / "cgroup.procs").read_text().split():
                raise OSError(errno.EBUSY, "group holds processes")
            path.write_text(f"{before} {text.removeprefix('+')}")
        else:
            path.write_text(text)

    def _remove(self, path: Path) -> bool:
        shutil.rmtree(path)
        return True


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    return MadeUpKernel(tmp_path, monkeypatch)


def test_v2_daemon_alone_in_its_group_steps_aside(kernel):
    groups = Cgroups.detect("w", kernel.proc)
    assert (groups.version, groups.path) == (2, kernel.own / "opencluster-w")
    leaf = kernel.own / "opencluster.daemon"
    assert (leaf / "cgroup.procs").read_text().split() == [str(os.getpid())]
    assert (groups.path / "cgroup.subtree_control").read_text().split() == [
        "memory",
        "cpu",
    ]
    # Once it has stepped aside, the group above is still the one to use.
    (kernel.proc / "cgroup").write_text("0::/my.service/opencluster.daemon\n")
    assert Cgroups.detect("w", kernel.proc).path == groups.path


def test_v2_group_limits_memory_swap_and_cpu(kernel):
    group = Cgroups.detect("w", kernel.proc).create("a/b", LIMIT_BYTES, cpus=1.5)
    assert group.path.parent == kernel.own / "opencluster-w"
    assert (group.path / "memory.max").read_text() == str(LIMIT_BYTES)
    assert (group.path / "memory.swap.max").read_text() == "0"
    assert (group.path / "cpu.max").read_text() == "150000 100000"
    (group.path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.oom_kills() == 2
    assert group.peak_bytes() == 0  # an old kernel has no such file
    (group.path / "memory.peak").write_text("12345\n")
    assert group.peak_bytes() == 12345


def test_v2_group_with_others_in_it_is_left_alone(kernel):
    kernel.enter(1, kernel.own)
    assert Cgroups.detect("w", kernel.proc) is None
    assert [path for path in kernel.own.iterdir() if path.is_dir()] == []


def test_v2_without_the_memory_controller_is_no_use(kernel):
    (kernel.own / "cgroup.controllers").write_text("cpu io\n")
    assert Cgroups.detect("w", kernel.proc) is None


def test_container_that_sees_a_part_of_the_tree(kernel):
    (kernel.proc / "cgroup").write_text("0::/docker/abc/my.service\n")
    mountinfo = f"29 22 0:26 /docker/abc {kernel.root} rw - cgroup2 cgroup rw\n"
    (kernel.proc / "mountinfo").write_text(mountinfo)
    assert Cgroups.detect("w", kernel.proc).path.parent == kernel.own
    (kernel.proc / "cgroup").write_text("0::/../my.service\n")
    assert Cgroups.detect("w", kernel.proc) is None
    (kernel.proc / "cgroup").write_text("0::/elsewhere\n")
    assert Cgroups.detect("w", kernel.proc) is None


def test_v1_memory_goes_before_v2(kernel):
    (kernel.proc / "cgroup").write_text("4:cpu,memory:/my.service\n0::/\n")
    mountinfo = (kernel.proc / "mountinfo").read_text()
    mountinfo += f"30 22 0:27 / {kernel.root} rw - cgroup cgroup rw,cpu,memory\n"
    (kernel.proc / "mountinfo").write_text(mountinfo)
    assert Cgroups.detect("w", kernel.proc).version == 1


@pytest.mark.parametrize("lines", ["", "1:cpu:/\n", "0::/\n"])
def test_system_without_memory_groups(tmp_path, lines):
    assert Cgroups.detect("w", tmp_path) is None
    (tmp_path / "cgroup").write_text(lines)
    (tmp_path / "mountinfo").write_text("22 1 0:20 / /proc rw - proc proc rw\n")
    assert Cgroups.detect("w", tmp_path) is None


def test_refused_group_is_a_warning(kernel, monkeypatch, caplog):
    groups = Cgroups.detect("w", kernel.proc)

    def refuse(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "too many groups")

    monkeypatch.setattr(cgroup, "_write", refuse)
    assert groups.create("one too many", LIMIT_BYTES) is None
    assert "no control group for one too many" in caplog.text
    assert not list(groups.path.glob("one*"))
