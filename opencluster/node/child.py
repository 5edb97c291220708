"""What happens in a new process before the program that it is for takes over.

Run as a script with what `run` takes, and the program's own arguments last; it limits
itself and then becomes the program. Owns the order in which that is done. It imports
next to nothing, since it is started once for each worker, and nothing imports it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

TYPE_CHECKING = False  # not the one of typing, which takes long to import
if TYPE_CHECKING:
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_CANNOT_RUN, _NOT_FOUND = 126, 127
_OOM_SCORE_ADJ = "/proc/self/oom_score_adj"


def fail(what: str, error: object, code: int = _CANNOT_RUN) -> NoReturn:
    """Say in one line why the program was not started, and end."""
    print(f"opencluster: {what}: {error}", file=sys.stderr, flush=True)
    os._exit(code)


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when the workshop ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(_CANNOT_RUN)


def offer_to_oom_killer(adjustment: int) -> None:
    """Be killed sooner than others when memory runs out; never later than before."""
    if not os.path.exists(_OOM_SCORE_ADJ):  # noqa: PTH110 (pathlib is slow to import)
        return
    try:
        with open(_OOM_SCORE_ADJ, "r+") as file:  # noqa: PTH123
            if adjustment > int(file.read()):
                file.write(str(adjustment))
    except OSError as error:  # a sandbox; the program can do without
        print(f"opencluster: cannot set {_OOM_SCORE_ADJ}: {error}", file=sys.stderr)


def limit_cpus(cpus: list[int]) -> None:
    """Run on these CPUs only."""
    if sys.platform != "linux" or not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        there = sorted(os.sched_getaffinity(0))
        fail(f"cannot run on CPUs {cpus}, this computer offers {there}", error)


def join_groups(procs_paths: list[str]) -> None:
    """Enter control groups."""
    for path in procs_paths:
        try:
            with open(path, "w") as file:  # noqa: PTH123
                file.write(str(os.getpid()))
        except OSError as error:
            fail("cannot enter the control group that limits memory", error)


def limit_resources(address_space_bytes: int) -> None:
    """Limit the address space if asked, and leave no core files."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if not address_space_bytes:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        address_space_bytes = min(address_space_bytes, hard)
    limits = (address_space_bytes, address_space_bytes)
    try:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    except (OSError, ValueError) as error:
        fail(f"cannot limit memory to {address_space_bytes} bytes", error)


def reset_signals() -> None:
    """Undo what this interpreter and the shell that started the workshop ignore."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def become(argv: list[str], directory: str) -> NoReturn:
    """Replace this process by the program."""
    try:
        if directory:
            os.chdir(directory)
    except OSError as error:
        fail("cannot use the working directory", error)
    try:
        os.execvpe(argv[0], argv, os.environ)
    except FileNotFoundError as error:
        fail(f"cannot run {argv[0]!r}", error, _NOT_FOUND)
    except (OSError, ValueError) as error:
        fail(f"cannot run {argv[0]!r}", error)


def run(
    parent: int,
    directory: str,
    cpus: list[int],
    oom_score_adj: int,
    procs_paths: list[str],
    address_space_bytes: int,
    argv: list[str],
) -> NoReturn:
    """Limit this process and become the program."""
    die_with_parent(parent)
    offer_to_oom_killer(oom_score_adj)
    limit_cpus(cpus)
    join_groups(procs_paths)
    reset_signals()
    # Last, so that a small address space meets the program and not this script.
    limit_resources(address_space_bytes)
    become(argv, directory)


if __name__ == "__main__":
    parent, directory, cpus, adjustment, groups, nbytes, *argv = sys.argv[1:]
    run(
        int(parent),
        directory,
        [int(cpu) for cpu in cpus.split()],
        int(adjustment),
        groups.splitlines(),
        int(nbytes),
        argv,
    )
