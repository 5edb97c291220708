"""Start and stop a cluster on this computer: its factory and its workshop.

The daemons run in the background, in sessions of their own. The cluster file in the
cluster's directory says who they are; a process is only ever signalled when its start
time is the one noted there, so that a recycled process number harms nobody.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from opencluster.config import Config
from opencluster.core.roles import FACTORY, MANAGER, OBSERVER, WORKER, WORKSHOP
from opencluster.errors import (
    FactoryUnreachable,
    OpenClusterError,
    StartFailed,
    indent,
)
from opencluster.net.control import Control
from opencluster.net.keyfiles import lock
from opencluster.net.keys import Keyring
from opencluster.net.zmq_transport import ipc_endpoint
from opencluster.node.host import host_id
from opencluster.node.output import read_tail
from opencluster.place import Place, factories, keys_directory

START_TIMEOUT_S = 20.0
READY_TIMEOUT_S = 60.0
"""How long it may take until the next worker or service is ready."""
STOP_TIMEOUT_S = 60.0
"""More than a workshop takes whose workers hand over values, by the defaults."""
POLL_S = 0.02
ASKING_ROLES = (MANAGER, OBSERVER, WORKSHOP, WORKER, FACTORY)
"""The certificate that a command uses: the best one of those that lie here."""
MAX_FACTORIES = 9
"""Factories that one computer runs; more than three serve trials only."""
DAEMONS = (["factory"], ["workshop"])
_NOT_YET = {"pid": 0, "start_time": 0.0}


def start(
    place: Place,
    arguments: Sequence[str] = (),
    while_pid: int = 0,
    environment: Mapping[str, str] | None = None,
    number_of_factories: int = 1,
) -> dict[str, Any]:
    """Start factories and a workshop, and return when all are ready.

    Parameters
    ----------
    place : Place
        The cluster's directory.
    arguments : sequence of str
        Further options of ``opencluster workshop``.
    while_pid : int, optional
        End the cluster when this process ends.
    environment : mapping of str to str, optional
        Added to the daemons' environment.
    number_of_factories : int
        How many factories copy the registry.

    Returns
    -------
    dict
        The content of the cluster file.

    Raises
    ------
    StartFailed
        When a cluster runs there already, or a daemon ends; with its output.
    """
    place.make()
    with alone(place):
        return start_alone(
            place, arguments, while_pid, environment, number_of_factories
        )


def start_alone(
    place: Place,
    arguments: Sequence[str] = (),
    while_pid: int = 0,
    environment: Mapping[str, str] | None = None,
    number_of_factories: int = 1,
) -> dict[str, Any]:
    """Do what `start` does, for one who has the place `alone`."""
    content = place.read()
    running = [d for d in daemons(content) if is_alive(d)]
    if running:
        raise StartFailed(
            f"a cluster runs already in {place.path} (pid {running[0]['pid']}); "
            "stop it with `opencluster stop`, or choose another --dir"
        )
    _refuse_launched(place, content)
    # what a cluster that was killed left behind would look like readiness
    place.forget()
    place.make()
    common = ["--dir", str(place.path)]
    if while_pid:
        common += ["--while-pid", str(while_pid)]
    names = [factory_log(number) for number in range(1, number_of_factories + 1)]
    endpoints = [ipc_endpoint(place.sockets, name) for name in names]
    content = {
        # each has to know of the others when it starts
        "factories": [_NOT_YET | {"endpoints": [e]} for e in endpoints],
        "workshops": [],
        "started_at": time.time(),
    }
    place.write(content)
    try:
        rows = content["factories"]
        for row, name, endpoint in zip(rows, names, endpoints, strict=True):
            place_in_list = str(names.index(name) + 1)
            options = ["--listen", endpoint, "--number", place_in_list, *common]
            row |= spawn(place, name, "factory", options, environment)
            place.write(content)
        for row, name, endpoint in zip(rows, names, endpoints, strict=True):
            wait_for(place, row, name, Path(endpoint.removeprefix("ipc://")).is_socket)
        shop = spawn(place, "workshop", "workshop", [*common, *arguments], environment)
        content["workshops"] = [shop]
        place.write(content)
        wait_for(place, shop, "workshop", ready_file(place).exists)
    except StartFailed:
        stop_alone(place)
        raise
    return content


def ready_file(place: Place) -> Path:
    """Return the file that is there once the workshop of a place is registered."""
    return place.sockets / "workshop.ready"


def _refuse_launched(place: Place, content: Mapping[str, Any]) -> None:
    """Refuse to start or stop here what runs elsewhere."""
    if not any(map(is_elsewhere, content.get("factories", []))):
        return
    raise StartFailed(
        f"the cluster of {place.path} was launched on other computers: "
        "`opencluster down` ends it"
    )


def control_of(config: Config, place: Place) -> Control:
    """Return a connection to the daemons of a cluster, a context manager.

    Parameters
    ----------
    config : Config
        The settings, which may name the factories and the keys.
    place : Place
        The cluster's directory, when they do not.

    Raises
    ------
    SecurityError
        When there are keys, and none that will do.
    """
    keys = Keyring.load(keys_directory(config, place), *ASKING_ROLES)
    return Control(config, partial(factories, config, place), keys, host_id())


def await_processes(place: Place, config: Config) -> None:
    """Wait until everything that should run here from the start has registered.

    Parameters
    ----------
    place : Place
        The cluster's directory.
    config : Config
        The settings.

    Raises
    ------
    StartFailed
        When a process ends instead; with its output.
    """
    known, deadline = -1, 0.0
    with control_of(config, place) as control:
        wanted: dict[str, Wanted] = {}
        while True:
            count, reason = _not_ready(control, wanted)
            if not reason:
                return
            now = time.monotonic()
            if count > known:
                # many that load much from one disk may take long together
                known, deadline = count, now + READY_TIMEOUT_S
            if now > deadline:
                raise StartFailed(
                    f"for {READY_TIMEOUT_S:g} s nothing more was ready, and {reason}; "
                    "see `opencluster status`"
                )
            time.sleep(POLL_S * max(1, len(wanted)))


Wanted = Sequence[Mapping[str, Any]]
"""The catalogue of a workshop, with how many should run of each."""


def _not_ready(control: Control, wanted: dict[str, Wanted]) -> tuple[int, str]:
    """Return how many have registered, and in words what has not of what should run.

    Each workshop is asked once what it is to run, and the answer kept in `wanted`.
    """
    try:
        here = control.factory("find")
        for shop in here:
            if shop["kind"] == "workshop" and shop["id"] not in wanted:
                status = control.workshop(shop, "status", {})
                is_resting = status["is_drained"]
                wanted[shop["id"]] = [] if is_resting else status["catalogue"]
        lacking = [
            name
            for shop, catalogue in wanted.items()
            for name in _lacking(catalogue, [e for e in here if e["workshop"] == shop])
        ]
    except FactoryUnreachable as error:
        # it may be busy with all that start at once
        return 0, str(error)
    names = ", ".join(dict.fromkeys(lacking))
    return len(here), f"not all of {names} were" if names else ""


def stop(place: Place, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """End the cluster of a directory, with everything that it started.

    Parameters
    ----------
    place : Place
        The cluster's directory.
    timeout_s : float
        After this long a daemon is killed.

    Returns
    -------
    bool
        Whether one was running.
    """
    if not place.path.is_dir():
        return False
    with alone(place):
        _refuse_launched(place, place.read())
        return stop_alone(place, timeout_s)


def stop_alone(place: Place, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Do what `stop` does, for one who has the place `alone`."""
    content = place.read()
    running = [d for d in daemons(content) if is_alive(d)]
    # the workshop first: it tells the factory goodbye for its workers
    for daemon in content.get("workshops", []) + content.get("factories", []):
        end(daemon, timeout_s)
    place.forget()
    return bool(running)


def factory_log(number: int) -> str:
    """Return what the log and the socket of a factory are called, without ending."""
    return "factory" if number == 1 else f"factory-{number}"


def is_alive(daemon: Mapping[str, Any]) -> bool:
    """Return whether the process that a cluster file names still is that one."""
    if is_elsewhere(daemon):
        return False
    started = start_time(daemon["pid"])
    return started is not None and started == daemon["start_time"]


def is_elsewhere(daemon: Mapping[str, Any]) -> bool:
    """Return whether a cluster file names a daemon of another computer."""
    return "pid" not in daemon


def start_time(pid: int) -> float | None:
    """Return when a process started, in clock ticks since boot, or ``None``."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else float(fields[19])


@contextmanager
def alone(place: Place, name: str = "lock") -> Iterator[None]:
    """Let one process at a time start or stop the cluster of a directory.

    Parameters
    ----------
    place : Place
        The cluster's directory.
    name : str
        Of the file that is locked; those who start daemons lock the default one.
    """
    with (place.path / name).open("a") as file:
        lock(file.fileno())
        yield


def daemons(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all daemons that a cluster file names."""
    return [*content.get("factories", []), *content.get("workshops", [])]


def spawn(
    place: Place,
    name: str,
    command: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Start a daemon, a command of ``opencluster``, and return its row.

    Parameters
    ----------
    place : Place
        The cluster's directory.
    name : str
        Of its log.
    command : str
        ``factory`` or ``workshop``.
    arguments : sequence of str
        Of the command.
    environment : mapping of str to str, optional
        Added to that of this process.
    """
    log_path = place.logs / f"{name}.log"
    argv = [sys.executable, "-m", "opencluster", command, *arguments]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(os.environ) | dict(environment or {}),
            start_new_session=True,
        )
    # reaped when it has ended: by a thread of nobody's, since we may outlive it
    started = start_time(process.pid)
    _children[process.pid] = process
    return {"pid": process.pid, "start_time": started}


_children: dict[int, subprocess.Popen[bytes]] = {}


def reap() -> None:
    """Take note of daemons of this process that have ended by themselves."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            del _children[pid]


def wait_for(
    place: Place,
    daemon: Mapping[str, Any],
    name: str,
    is_ready: Callable[[], bool],
    limit_s: float = START_TIMEOUT_S,
) -> None:
    """Wait until a daemon that was started here is ready.

    Raises
    ------
    StartFailed
        When it ends instead, or takes too long; with its output.
    """
    deadline = time.monotonic() + limit_s
    while not is_ready():
        child = _children[daemon["pid"]]
        if child.poll() is not None or time.monotonic() > deadline:
            output = read_tail(place.logs / f"{name}.log", 20)
            raise StartFailed(f"the {name} did not start:\n{output}", output)
        time.sleep(POLL_S)


def end(daemon: Mapping[str, Any], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """End a daemon of this computer in good order, and kill it when that takes long."""
    if is_elsewhere(daemon):
        return
    deadline = time.monotonic() + timeout_s
    if is_alive(daemon):
        _signal(daemon, signal.SIGTERM)
    while is_alive(daemon):
        child = _children.get(daemon["pid"])
        if child is not None:
            child.poll()
        if time.monotonic() > deadline:
            _signal(daemon, signal.SIGKILL)
            deadline += timeout_s
        time.sleep(POLL_S)
    child = _children.pop(daemon["pid"], None)
    if child is not None:
        child.wait()


def strays(
    place: Place, commands: Sequence[list[str]] = DAEMONS
) -> list[dict[str, Any]]:
    """Return the daemons of a place that run here, whoever noted them or did not.

    One who starts daemons may be killed between a start and the note of it.

    Parameters
    ----------
    place : Place
        The cluster's directory.
    commands : sequence of list of str
        What they were started by, after ``opencluster``.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            is_ours = entry.stat().st_uid == os.getuid()
            words = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        argv = words.split("\0")
        named = [argv[i + 1] for i in range(len(argv) - 1) if argv[i] == "--dir"]
        is_daemon = argv[1:3] == ["-m", "opencluster"] and any(
            argv[3 : 3 + len(command)] == command for command in commands
        )
        started = start_time(int(entry.name))
        if is_ours and is_daemon and str(place.path) in named and started is not None:
            row = {"pid": int(entry.name), "start_time": started, "command": argv[3]}
            found.append(row)
    return found


def _signal(daemon: Mapping[str, Any], number: signal.Signals) -> None:
    try:
        os.kill(daemon["pid"], number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise OpenClusterError(
            f"process {daemon['pid']} belongs to another user; stop the cluster as "
            "the user who started it"
        ) from None


def _lacking(
    wanted: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the names in the catalogue of which fewer are here than should run.

    The names of processes tell, as one may register another type than the catalogue's.
    """
    for entry in here:
        if entry["kind"] == "failure":
            message, output = (entry["attributes"][k] for k in ("message", "output"))
            raise StartFailed(f"{message}\n{indent(output)}", output)
    count = Counter((each["kind"], each["name"].rpartition("-")[0]) for each in here)
    return [w["name"] for w in wanted if count[w["kind"], w["name"]] < w["count"]]
