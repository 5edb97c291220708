"""Real processes: started under limits, ended, reaped, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opencluster.errors import StartFailed
from opencluster.node.launch import Limits, ProcessSpec
from opencluster.node.process import ChildProcess, ExitStatus, sweep_orphans

pytestmark = pytest.mark.processes

DEADLINE_S = 30.0
MB = 1_000_000
ON_LINUX = sys.platform == "linux"

Start = Callable[..., ChildProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python code or a program; what still runs at the end is killed."""
    children: list[ChildProcess] = []

    def start_one(code: str = "", **options: object) -> ChildProcess:
        options.setdefault("argv", (sys.executable, "-c", code))
        options.setdefault("environment", dict(os.environ))
        child = ChildProcess.start(ProcessSpec(**options))  # type: ignore[arg-type]
        children.append(child)
        return child

    yield start_one
    for child in children:
        child.kill_group()
        wait(child)
        child.close()


def wait(child: ChildProcess) -> ExitStatus:
    give_up = time.monotonic() + DEADLINE_S
    while (status := child.poll()) is None:
        left_s = give_up - time.monotonic()
        assert left_s > 0, "the process did not end"
        select.select(
            [child.pidfd] if child.pidfd >= 0 else [], [], [], min(0.1, left_s)
        )
    return status


def read_until(child: ChildProcess, wanted: bytes) -> bytes:
    """Return the output up to a text, or up to its end if `wanted` is empty."""
    seen = b""
    give_up = time.monotonic() + DEADLINE_S
    while not wanted or wanted not in seen:
        left_s = give_up - time.monotonic()
        assert left_s > 0, f"no {wanted!r} in {seen!r}"
        if not select.select([child.output_fd], [], [], left_s)[0]:
            continue
        data = os.read(child.output_fd, 65536)
        if not data:
            assert not wanted, f"no {wanted!r} in {seen!r}"
            break
        seen += data
    return seen


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_gone(pid: int) -> None:
    give_up = time.monotonic() + DEADLINE_S
    while is_alive(pid):
        assert time.monotonic() < give_up, f"process {pid} is still there"
        time.sleep(0.01)


# --- how it ends ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_code_is_known(start, code):
    status = wait(start(f"import os; os._exit({code})"))
    assert (status.exit_code, status.signal) == (code, "")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGINT", "SIGHUP"])
def test_signal_is_known(start, name):
    child = start("import signal\nprint('up', flush=True)\nsignal.pause()")
    read_until(child, b"up")
    child.signal(getattr(signal, name))
    if name == "SIGINT":  # Python makes it an exception, and then ends by the signal
        assert b"KeyboardInterrupt" in read_until(child, b"KeyboardInterrupt")
    status = wait(child)
    assert (status.exit_code, status.signal) == (None, name)


def test_segfault_is_known(start):
    status = wait(start("import ctypes; ctypes.string_at(8)"))
    assert (status.exit_code, status.signal) == (None, "SIGSEGV")


def test_realtime_signal_has_a_name_too(start):
    child = start("import signal\nprint('up', flush=True)\nsignal.pause()")
    read_until(child, b"up")
    child.signal(signal.SIGRTMIN + 3)
    assert wait(child).signal == f"signal {signal.SIGRTMIN + 3}"


def test_memory_and_cpu_time_are_known(start):
    code = f"import time; x = bytearray({200 * MB})\nwhile time.process_time() < 0.2: 0"
    status = wait(start(code))
    # the kernel counts what this process has, from which the other one was made
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 200 * MB < status.peak_memory_bytes < 400 * MB + ours
    assert 0.2 <= status.cpu_s < DEADLINE_S


def test_poll_keeps_its_answer_and_signals_after_it_reach_nobody(start, monkeypatch):
    child = start("pass")
    status = wait(child)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a stranger was hit"))
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("strangers were hit"))
    child.signal(signal.SIGKILL)
    child.kill_group()
    assert child.poll() is status


def test_signal_between_end_and_reaping_is_harmless(start):
    child = start("import os; os._exit(4)")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.signal(signal.SIGTERM)
    child.kill_group()
    assert child.poll().exit_code == 4


def test_process_reaped_by_somebody_else_is_over(start):
    child = start("pass")
    os.waitpid(child.pid, 0)
    status = wait(child)
    assert (status.exit_code, status.signal) == (None, "")


@pytest.mark.skipif(not ON_LINUX, reason="pidfd is a matter of Linux")
def test_pidfd_tells_of_the_end(start):
    child = start("input()")
    assert wait(child).exit_code == 1  # its standard input is empty
    assert select.select([child.pidfd], [], [], 0)[0]
    child.close()
    assert (child.pidfd, child.output_fd) == (-1, -1)
    child.close()


# --- what it forked -------------------------------------------------------------------

_FORKING = """
import os, signal
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    signal.pause()
"""


def test_grandchild_is_killed_with_the_group(start):
    child = start(_FORKING + "signal.pause()")
    grandchild = int(read_until(child, b"\n"))
    assert is_alive(grandchild)
    child.kill_group()
    assert wait(child).signal == "SIGKILL"
    wait_gone(grandchild)


def test_grandchild_left_behind_is_killed_when_the_end_is_seen(start):
    child = start(_FORKING)
    grandchild = int(read_until(child, b"\n"))
    assert wait(child).exit_code == 0
    wait_gone(grandchild)
    assert read_until(child, b"") == b""  # and so the pipe ends


# --- what it may do -------------------------------------------------------------------


@pytest.mark.skipif(not ON_LINUX, reason="affinity is a matter of Linux")
def test_affinity_is_set(start):
    cpu = max(os.sched_getaffinity(0))
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    child = start(code, limits=Limits(cpus=(cpu,)))
    assert json.loads(read_until(child, b"\n")) == [cpu]


@pytest.mark.skipif(not ON_LINUX, reason="affinity is a matter of Linux")
def test_missing_cpu_is_named(start):
    child = start("pass", limits=Limits(cpus=(4095,)))
    output = read_until(child, b"\n").decode()
    assert "cannot run on CPUs [4095], this computer offers [" in output
    assert wait(child).exit_code == 126


@pytest.mark.skipif(not ON_LINUX, reason="the OOM killer is a matter of Linux")
@pytest.mark.parametrize("more", [300, -300])
def test_oom_score_is_raised_and_never_lowered(start, more):
    own = int(Path("/proc/self/oom_score_adj").read_text())
    code = "print(open('/proc/self/oom_score_adj').read())"
    child = start(code, limits=Limits(oom_score_adj=min(1000, own + more)))
    assert int(read_until(child, b"\n")) == max(own, min(1000, own + more))


def test_address_space_limit_is_a_memory_error(start):
    code = f"x = bytearray({300 * MB}); print('not limited')"
    child = start(code, limits=Limits(memory_bytes=200 * MB))
    output = read_until(child, b"")
    assert wait(child).exit_code == 1
    assert b"MemoryError" in output
    within = start(code, limits=Limits(memory_bytes=600 * MB))
    assert b"not limited" in read_until(within, b"")


# --- where it runs --------------------------------------------------------------------

_INSPECT = """
import json, os, resource, signal, sys
print(json.dumps({
    "session": os.getsid(0) == os.getpid() == os.getpgid(0),
    "stdin": sys.stdin.read(),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "blocked": [int(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "hangup": signal.getsignal(signal.SIGHUP) is signal.SIG_DFL,
    "directory": os.getcwd(),
    "environment": dict(os.environ),
    "fds": sorted(int(f) for f in os.listdir("/proc/self/fd"))
}))
"""


@pytest.mark.skipif(not ON_LINUX, reason="reads /proc")
def test_process_begins_with_a_clean_slate(start, tmp_path):
    leaking = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaking, True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    environment = {"PATH": os.environ["PATH"], "ODD": "\udcff=é"}
    try:
        child = start(
            argv=(sys.executable, "-X", "utf8", "-I", "-c", _INSPECT),
            directory=str(tmp_path),
            environment=environment,
        )
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGHUP, hangup)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        os.close(leaking)
    found = json.loads(read_until(child, b"\n"))
    assert found["fds"][:3] == [0, 1, 2]
    assert len(found.pop("fds")) == 4  # and the folder that it lists
    found["environment"].pop("LC_CTYPE", None)  # Python's own, in a bare environment
    assert found == {
        "session": True,
        "stdin": "",
        "core": 0,
        "blocked": [],
        "interrupt": True,
        "hangup": True,
        "directory": str(tmp_path),
        "environment": environment,
    }


@pytest.mark.skipif(not ON_LINUX, reason="reads /proc")
def test_broken_pipe_ends_a_program_as_usual(start):
    shell = "grep -h SigIgn /proc/self/status"
    child = start(argv=("/bin/sh", "-c", shell))
    ignored = int(read_until(child, b"\n").split()[1], 16)
    assert not ignored >> (signal.SIGPIPE - 1) & 1


def test_output_and_errors_come_through_one_pipe_without_blocking(start):
    code = "import os; os.write(2, b'to err '); os.write(1, b'to out'); input()"
    child = start(code, argv=(sys.executable, "-u", "-c", code))
    assert b"to err to out" in read_until(child, b"to out")
    wait(child)
    read_until(child, b"")
    other = start("import signal; signal.pause()")
    with pytest.raises(BlockingIOError):
        os.read(other.output_fd, 1)


def test_worker_can_print_a_good_deal_before_anybody_reads(start):
    code = "import os; os.write(1, b'x' * 150_000)"
    if not ON_LINUX:
        code = "pass"
    assert wait(start(code)).exit_code == 0


@pytest.mark.parametrize(
    ("argv", "exit_code", "said"),
    [
        (("no-such-program", "-x"), 127, "cannot run 'no-such-program'"),
        (("/",), 126, "cannot run '/'"),
    ],
)
def test_program_that_cannot_be_run_is_named(start, argv, exit_code, said):
    child = start(argv=argv)
    output = read_until(child, b"").decode()
    assert wait(child).exit_code == exit_code
    assert said in output
    assert output.count("\n") == 1


def test_missing_directory_is_named(start, tmp_path):
    child = start("pass", directory=str(tmp_path / "missing"))
    output = read_until(child, b"").decode()
    assert wait(child).exit_code == 126
    assert f"working directory: [Errno 2] No such file or directory: '{tmp_path}" in (
        output
    )


def test_process_that_cannot_be_made_is_an_error(start):
    fds_before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(StartFailed, match="cannot start 'x'"):
        start(argv=("x", "y" * 4_000_000))
    assert len(list(Path("/dev/fd").iterdir())) == fds_before


# --- what a dead workshop leaves ------------------------------------------------------

_MIDDLE = """
import os, signal, sys
from opencluster.node.launch import Limits, ProcessSpec
from opencluster.node.process import ChildProcess
code = "os.write(1, b'up')\\nsignal.pause()"
if "fork" in sys.argv:  # into a session of its own; only that one prints
    code = "if os.fork(): signal.pause()\\nos.setsid()\\n" + code
code = "import os, signal\\n" + code
argv = (sys.executable, "-c", code)
child = ChildProcess.start(ProcessSpec(argv, dict(os.environ, MARK=sys.argv[1])))
os.set_blocking(child.output_fd, True)
os.read(child.output_fd, 9)
print(child.pid, flush=True)
signal.pause()
"""


@contextlib.contextmanager
def middle(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a parent that starts a child; yield both."""
    command = [sys.executable, "-c", _MIDDLE, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            yield parent, int(parent.stdout.readline())
        finally:
            parent.kill()


@pytest.mark.skipif(not ON_LINUX, reason="the parent's death signal is Linux's")
def test_parent_killed_with_9_takes_its_child_along():
    with middle("none") as (parent, child):
        assert is_alive(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_gone(child)


@pytest.mark.skipif(not ON_LINUX, reason="the parent's death signal is Linux's")
def test_child_whose_parent_is_gone_already_does_not_start(tmp_path):
    script = Path(__file__).parents[2] / "opencluster/node/child.py"
    command = [sys.executable, "-I", "-S", str(script)]
    order = ["", "", "0", "", "0", "touch", str(tmp_path / "ran")]
    elsewhere = "1" if os.getpid() != 1 else "2"
    orphan = subprocess.run([*command, elsewhere, *order], check=False)
    assert orphan.returncode == 126
    subprocess.run([*command, str(os.getpid()), *order], check=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.skipif(not ON_LINUX, reason="reads /proc")
def test_orphans_are_swept_by_their_marker():
    mark = uuid.uuid4().hex
    with middle(mark, "fork") as (parent, child):
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_gone(child)
        assert sweep_orphans("MARK", mark[:-1]) == []
        killed = sweep_orphans("MARK", mark)
        assert len(killed) == 1
        assert child not in killed
        wait_gone(killed[0])
    assert sweep_orphans("MARK", mark) == []


def test_sweep_spares_itself(tmp_path):
    code = (
        "from opencluster.node.process import sweep_orphans\n"
        "print(sweep_orphans('MARK', 'me-too'))"
    )
    environment = dict(os.environ, MARK="me-too")
    command = [sys.executable, "-c", code]
    output = subprocess.check_output(command, env=environment, text=True)
    assert output == "[]\n"


def test_sweep_works_without_proc(start, monkeypatch):
    from opencluster.node import process

    mark = uuid.uuid4().hex
    environment = dict(os.environ, MARK=mark)
    child = start(
        "import signal; print('up', flush=True); signal.pause()",
        environment=environment,
    )
    read_until(child, b"up")
    monkeypatch.setattr(process, "_marked", process._marked_elsewhere)
    monkeypatch.setattr(process, "_open_pidfd", lambda pid: -1)
    assert sweep_orphans("MARK", mark) == [child.pid]
    assert wait(child).signal == "SIGKILL"
