"""What is done on a host: ``python -m opencluster.launchers.node up|down|look|run``.

An order comes on standard input, an answer goes to standard output. Everything of a
host lies in one directory that is its owner's alone, named after the host, so that
hosts which share a file system do not meet in it. `up` and `down` may be said again at
any time, also when they were killed half-way: what runs as ordered is left alone.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from opencluster.config.sources import CONFIG_VARIABLE
from opencluster.core.roles import FACTORY, WORKSHOP
from opencluster.errors import LaunchFailed, OpenClusterError
from opencluster.launchers import embedded, logout
from opencluster.launchers.host_folder import (
    catalogue_in,
    change_of,
    config_file,
    forget_keys,
    lay_out,
    place_of,
    take_over,
)
from opencluster.launchers.order import MAX_ORDER_BYTES, Answer, Order
from opencluster.node.host import host_id
from opencluster.node.output import read_tail
from opencluster.place import Place

LOOK_S = 1.0
"""How often `run` looks whether its daemons are there."""
START_LIMIT_S = 60.0
"""How long a daemon may take to be ready: Python comes from a slow file system here."""
CONNECT_S = 1.0
LOG_LINES = 20
PREFIX = "OPENCLUSTER_"

Row = dict[str, Any]


def up(order: Order) -> Answer:
    """Start the daemons of a host that do not run yet, and return when they are ready.

    Raises
    ------
    OpenClusterError
        When they cannot be started; what this call has started is ended again.
    """
    place = place_of(order)
    place.make()
    with embedded.alone(place):
        running = _running(place)
        change = change_of(order, place) if running else None
        if change is not None and order.is_restart:
            _stop(place, (FACTORY, WORKSHOP))
            running = []
        elif change is not None:
            take_over(order, place, change)
        try:
            if not running:
                lay_out(order, place)
            started = _start(order, place, running)
        except (OpenClusterError, OSError):
            # of a full disk, too, neither a daemon nor a secret is to be left
            if not running:
                _stop(place, (FACTORY, WORKSHOP))
            _tidy(place)
            raise
    message = f"started {' and '.join(started)}" if started else "runs already"
    if started and logout.ends_processes():
        message = f"{message}; mind that {logout.REASON}"
    answer = Answer(True, message, directory=str(place.path), computer=host_id())
    if WORKSHOP not in order.roles or WORKSHOP in started:
        return answer
    answer = replace(answer, catalogue=catalogue_in(place))
    if change is None:
        return answer
    message = f"{message}, and takes over what is new: {change.what}"
    return replace(answer, message=message, is_changed=True, counts=change.counts)


def down(order: Order) -> Answer:
    """End the daemons of a host that have one of the roles of the order.

    Raises
    ------
    OpenClusterError
        When they belong to somebody else.
    """
    place = place_of(order)
    if not place.path.is_dir():
        return Answer(True, "nothing runs", directory=str(place.path))
    with embedded.alone(place):
        _stop(place, order.roles)
        _tidy(place)
    return Answer(True, "ended", directory=str(place.path))


def look(order: Order) -> Answer:
    """Return whether the daemons of a host are there, and if not, why that may be."""
    place = place_of(order)
    here = {row["command"] for row in _running(place)}
    gone = [role for role in order.roles if role not in here]
    if not gone:
        return Answer(True, "runs", directory=str(place.path))
    reason = (
        "a host may also end what a log-in leaves, as systemd-logind does with "
        "KillUserProcesses=yes (docs/launch.md)"
    )
    if logout.ends_processes():
        reason = logout.REASON
    what = " and ".join(gone)
    message = f"its {what} ended soon after the start: see {place.logs}; {reason}"
    output = read_tail(place.logs / f"{gone[0]}.log", LOG_LINES)
    return Answer(False, message, output, str(place.path))


def run(order: Order, is_over: Callable[[Place], bool] = lambda place: False) -> Answer:
    """Be there for as long as the daemons of a host are, for a batch job.

    It ends them on SIGTERM and on SIGINT, when the workshop has ended, and when
    `is_over` says so, which is asked every `LOOK_S`.

    Parameters
    ----------
    order : Order
        What is to run.
    is_over : callable, optional
        Takes the directory of the host, and returns whether it is to end.
    """
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    place = place_of(order)
    try:
        print(up(order).to_json(), flush=True)
        while not told.wait(LOOK_S) and _is_working(order, place):
            if is_over(place):
                break
    finally:
        answer = down(order)
    return answer


def _is_working(order: Order, place: Place) -> bool:
    """Return whether what the others need of this host is still there."""
    commands = {row["command"] for row in _running(place)}
    return WORKSHOP in commands if WORKSHOP in order.roles else bool(commands)


def _tidy(place: Place) -> None:
    """Remove what is of no use when nothing runs; logs and state stay."""
    if not _running(place):
        forget_keys(place)
        place.forget()


# --- the daemons ------------------------------------------------------------


@dataclass(frozen=True)
class _Daemon:
    """A daemon to start: its command, arguments, and how it is seen to be ready."""

    command: str
    arguments: tuple[str, ...]
    is_ready: Callable[[], bool]


def _start(order: Order, place: Place, running: list[Row]) -> list[str]:
    """Start what does not run yet; return which commands those are."""
    present = {row["command"] for row in running}
    missing = [role for role in (FACTORY, WORKSHOP) if role in order.roles]
    missing = [role for role in missing if role not in present]
    environment = {CONFIG_VARIABLE: str(config_file(place))}
    if not missing:
        return []
    if not order.number and FACTORY in order.roles:
        # a cluster of one computer: half of it is of no use
        _stop(place, (FACTORY, WORKSHOP))
        embedded.start_alone(place, environment=environment)
        return list(order.roles)
    if not running:
        place.forget()
        place.make()
    started: list[Row] = []
    try:
        for role in missing:
            daemon = _daemon(order, place, role)
            row = embedded.spawn(place, role, role, daemon.arguments, environment)
            started.append(row)
            _note(order, place, [*running, *_named(missing, started)])
            embedded.wait_for(place, row, role, daemon.is_ready, START_LIMIT_S)
    except (OpenClusterError, OSError):
        for row in reversed(started):
            embedded.end(row)
        raise
    return missing


def _named(roles: list[str], rows: list[Row]) -> list[Row]:
    return [row | {"command": role} for role, row in zip(roles, rows, strict=False)]


def _daemon(order: Order, place: Place, role: str) -> _Daemon:
    directory = ("--dir", str(place.path))
    if role == WORKSHOP:
        ready = embedded.ready_file(place)
        ready.unlink(missing_ok=True)
        return _Daemon(WORKSHOP, directory, ready.exists)
    host = order.sections.get("network", {}).get("bind", "127.0.0.1")
    port = _port(order)
    _check_free(host, port)
    options = ("--number", str(order.number), "--host", host, "--port", str(port))
    return _Daemon(FACTORY, (*options, *directory), partial(_answers, host, port))


def _endpoints(order: Order) -> list[str]:
    """Return the endpoints of all factories of the cluster."""
    text = order.sections.get("cluster", {}).get("factories", "")
    return text.replace(",", " ").split()


def _port(order: Order) -> int:
    return int(_endpoints(order)[order.number - 1].rpartition(":")[2])


def _check_free(host: str, port: int) -> None:
    """Refuse a port that somebody listens at: the factory would end at once."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise LaunchFailed(
                    f"no factory can listen at {host}:{port}: {error.strerror}; set "
                    "network: {bind: ADDRESS} in settings"
                ) from None
            raise LaunchFailed(
                f"port {port} of the factory is taken: end what listens there (`ss "
                f"-ltnp sport = :{port}` tells), or write another port in the cluster "
                "file"
            ) from None


def _answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(CONNECT_S)
        return probe.connect_ex((host, port)) == 0


def _note(order: Order, place: Place, rows: list[Row]) -> None:
    """Write the cluster file of the host, which says who runs here."""
    factories: list[Row] = [{"endpoints": [e]} for e in _endpoints(order)]
    for row in rows:
        if row["command"] == FACTORY:
            factories[order.number - 1] |= row
    shops = [row for row in rows if row["command"] == WORKSHOP]
    content = {"factories": factories, "workshops": shops, "started_at": time.time()}
    place.write(content)


def _running(place: Place) -> list[Row]:
    """Return the daemons of a place that run on this computer."""
    return embedded.strays(place)


def _stop(place: Place, roles: tuple[str, ...]) -> None:
    # the workshop first: it tells the factory goodbye for its workers
    for role in (WORKSHOP, FACTORY):
        for row in _running(place):
            if row["command"] == role and role in roles:
                embedded.end(row)


# --- the program ------------------------------------------------------------

DEEDS: Mapping[str, Callable[[Order], Answer]] = {
    "up": up,
    "down": down,
    "look": look,
    "run": run,
}


def main(arguments: list[str]) -> int:
    """Carry out one order, and print the answer; returns the exit code."""
    if len(arguments) != 1 or arguments[0] not in DEEDS:
        print(f"usage: node {'|'.join(DEEDS)} < ORDER", file=sys.stderr)
        return 2
    # what counts on a host is the order, and nothing that a shell of it sets
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    order = None
    try:
        text = sys.stdin.read(MAX_ORDER_BYTES)
        # what runs must be ended also when OpenCluster was replaced meanwhile
        order = Order.from_json(text, is_any_version=arguments[0] == "down")
        answer = DEEDS[arguments[0]](order)
    except OpenClusterError as error:
        output = getattr(error, "output", "")
        answer = Answer(False, str(error), output, may_run=order is not None)
    except OSError as error:
        what = f"cannot use {error.filename}" if error.filename else "cannot write"
        reason = f"{what}: {error.strerror}; make room there, or write another"
        answer = Answer(False, f"{reason} `directory:` in the cluster file")
    print(answer.to_json(), flush=True)
    return 0 if answer.is_done else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
