"""What an operator can have done to a cluster: by command, on a page, or by a program.

Each function says in a sentence what was done, or raises an `OpenClusterError` that
says why it was not. What runs somewhere is changed by the workshop of its computer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from opencluster.config import Config
from opencluster.core.spreading import Computer, spread
from opencluster.errors import (
    FactoryUnreachable,
    OpenClusterError,
    RegistryError,
    StartFailed,
)
from opencluster.net.control import Control
from opencluster.node.orders import MAX_PROCESSES
from opencluster.observe.status import counted
from opencluster.wire import frames, kinds

START_TIMEOUT_S = 300.0
"""How long a process may take to load its data and register."""
STOP_MARGIN_S = 5.0
"""Beyond what a process may take to end and be killed: for word of it to arrive."""
INTERRUPT_WAIT_S = 5.0
"""How long to watch whether an interrupted piece ends."""
POLL_S = 0.05
PROCESSES = ("worker", "service")

Entry = Mapping[str, Any]
"""What a member registered."""


# --- who is meant -----------------------------------------------------------


def find_process(control: Control, name: str) -> Entry:
    """Return the worker or service of a name, or of an identity.

    Raises
    ------
    RegistryError
        When there is none, or more than one.
    """
    return named(name, control.factory("find"))


def named(name: str, entries: Iterable[Entry]) -> Entry:
    """Return that one of these entries which is a worker or service of this name.

    Raises
    ------
    RegistryError
        When there is none, or more than one.
    """
    processes = [e for e in entries if e["kind"] in PROCESSES]
    found = [entry for entry in processes if name in (entry["name"], entry["id"])]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{entry['id']} on {entry['host']}" for entry in found)
        raise RegistryError(f"{name!r} can be each of these: {listed}; give its id")
    known = ", ".join(entry["name"] for entry in processes) or "nothing"
    raise RegistryError(f"nothing named {name!r} runs in the cluster ({known} does)")


def find_computer(control: Control, name: str) -> Entry:
    """Return the workshop of a computer, by its name, its host or its identity.

    Raises
    ------
    RegistryError
        When there is none, or more than one.
    """
    shops = control.factory("find", {"kind": "workshop"})
    found = [shop for shop in shops if name in (shop["name"], shop["id"])]
    found = found or [shop for shop in shops if shop["host"] == name]
    if len(found) == 1:
        return dict(found[0])
    if found:
        listed = ", ".join(f"{shop['id']} on {shop['host']}" for shop in found)
        raise RegistryError(f"{name!r} can be each of these: {listed}; give its id")
    known = ", ".join(shop["name"] for shop in shops) or "none"
    raise RegistryError(
        f"no computer {name!r} has a workshop (those that have: {known})"
    )


# --- one process ------------------------------------------------------------


def stop(
    control: Control, names: Sequence[str], config: Config, wait_s: float | None = None
) -> str:
    """Stop workers and services, wherever they run: none takes their place.

    Each finishes what it has in hand, as far as ``[worker] drain_timeout_s`` allows,
    and hands the values that it keeps to others within ``[worker] hand_over_s``.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    names : sequence of str
        Their names or identities.
    config : Config
        The settings, which say how long an end may take.
    wait_s : float, optional
        How long to wait for it; by default until it must be over.

    Raises
    ------
    OpenClusterError
        When a name says nothing or too much, or a process does not end.
    """
    entries = control.factory("find")
    wanted = [named(name, entries) for name in names]
    for entry in wanted:
        control.workshop(_workshop_of(entry, entries), "stop", {"name": entry["id"]})
    stopped = ", ".join(entry["name"] for entry in wanted)
    limit_s = end_limit_s(config) if wait_s is None else wait_s
    left = _left_after(control, {entry["id"] for entry in wanted}, limit_s)
    if not left:
        return f"stopped {stopped}"
    names_left = ", ".join(entry["name"] for entry in left)
    if wait_s is None:
        raise OpenClusterError(
            f"still there after {limit_s:g} s: {names_left}; see `opencluster logs`"
        )
    return f"{names_left} will end with what is in hand, and nothing takes its place"


def restart(control: Control, name: str) -> str:
    """End a process when it has done what it has in hand; another takes its place."""
    entry = _order(control, name, "restart")
    return f"{entry['name']} starts again when it has done what it has in hand"


def kill(control: Control, name: str) -> str:
    """End a process at once; its piece runs again, and another takes its place."""
    entry = _order(control, name, "kill")
    return f"killed {entry['name']}; its piece runs again, and another takes its place"


def interrupt(control: Control, name: str, wait_s: float = INTERRUPT_WAIT_S) -> str:
    """Interrupt the piece that a worker runs: its program meets an `Interrupted`.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    name : str
        The worker.
    wait_s : float
        How long to wait for the piece to end, in seconds.

    Raises
    ------
    RegistryError
        When there is no such worker, or it runs nothing.
    """
    entry = find_process(control, name)
    piece = _piece_of(control, entry)
    if not piece:
        raise RegistryError(f"{entry['name']} runs no piece now")
    control.tell(entry, frames.pack(kinds.END, piece))
    is_over = _waited(lambda: _piece_of(control, entry) != piece, wait_s)
    if is_over:
        return f"piece {piece} of {entry['name']} is over"
    return f"piece {piece} of {entry['name']} is asked to stop"


# --- one computer -----------------------------------------------------------


def drain(control: Control, name: str, config: Config, wait_s: float = 0.0) -> str:
    """End what runs on a computer when it has done what it has in hand; start nothing.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    name : str
        The computer.
    config : Config
        The settings, which say how long an end may take.
    wait_s : float
        How long to wait until nothing runs, in seconds.
    """
    shop = find_computer(control, name)
    control.workshop(shop, "drain", {})
    here = {
        entry["id"]
        for entry in control.factory("find")
        if entry["kind"] in PROCESSES and entry["workshop"] == shop["id"]
    }
    left = _left_after(control, here, min(wait_s, end_limit_s(config)))
    if not left:
        return f"{shop['name']} is drained: nothing runs there, and nothing starts"
    ends = counted(len(left), "process ends", "processes end")
    return f"{shop['name']} starts nothing more; {ends} with what is in hand"


def undrain(control: Control, name: str) -> str:
    """Start again what is wanted on a computer that was drained."""
    shop = find_computer(control, name)
    control.workshop(shop, "undrain", {})
    return f"{shop['name']} works again"


def start(
    control: Control,
    shop: Entry,
    entry: Mapping[str, Any],
    count: int,
    wait_s: float = START_TIMEOUT_S,
) -> list[str]:
    """Have a workshop start processes that need not be in its catalogue.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    shop : mapping
        What the workshop registered.
    entry : mapping
        Fields of `CatalogueEntry`.
    count : int
        How many.
    wait_s : float
        How long to wait until they are ready, in seconds.

    Returns
    -------
    list of str
        Their names.

    Raises
    ------
    StartFailed
        When one of them ended before it was ready, with its output; none is left.
    """
    order = {"entry": dict(entry), "count": count}
    try:
        answer = control.workshop(shop, "start", order, wait_s)
    except FactoryUnreachable as error:
        raise StartFailed(
            f"the workshop of {shop['name']} did not say that it started "
            f"{entry.get('name')}: {error}; see `opencluster status` and "
            "`opencluster logs`"
        ) from None
    return [str(name) for name in answer["names"]]


def name_in(target: str, kind: str) -> str:
    """Return the type that a class has unless it says otherwise, by its target."""
    name = target.rpartition(":")[2]
    if kind == "service":
        return name.removesuffix("Service").lower() or name
    return name.removesuffix("Worker") or name


# --- a type -----------------------------------------------------------------


def scale(
    control: Control,
    type: str,
    count: int,
    computer: str = "",
    wait_s: float = START_TIMEOUT_S,
    may_end: bool = True,
) -> str:
    """Set how many processes of a type run, on one computer or on all together.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    type : str
        A name in the catalogues.
    count : int
        How many; over the whole cluster they are spread by the CPUs of the computers.
    computer : str
        The computer; by default all whose catalogue has the type and that are not
        drained.
    wait_s : float
        How long to wait until they are ready, in seconds.
    may_end : bool
        Let go of some if there are more; otherwise all stay, over the whole cluster.

    Raises
    ------
    RegistryError
        When no such computer or type is there.
    StartFailed
        When one of them ended before it was ready, with its output; it is tried again.
    """
    if count < 0:
        raise RegistryError(f"{count} {type} cannot run: give a number from 0")
    shops = [find_computer(control, computer)] if computer else _able(control, type)
    rows = {shop["id"]: _catalogued(control, shop, type) for shop in shops}
    counts = {id: Computer(row["count"]) for id, row in rows.items()}
    if computer:
        wanted = dict.fromkeys(rows, count)
    elif count > MAX_PROCESSES * len(shops):
        raise RegistryError(f"{count} {type} are too many for {len(shops)} computers")
    else:
        figures = control.factory("status")["figures"]
        for id, known in counts.items():
            cpus = figures.get(id, {}).get("cpu_count") or 1
            counts[id] = Computer(known.count, float(cpus))
        now = sum(known.count for known in counts.values())
        wanted = spread(count if may_end else max(count, now), counts)
    deadline = time.monotonic() + wait_s
    waiting = []
    for shop in shops:
        order = {"type": rows[shop["id"]]["name"], "count": wanted[shop["id"]]}
        left_s = max(0.1, deadline - time.monotonic())
        try:
            control.workshop(shop, "scale", order, left_s)
        except FactoryUnreachable:
            # it has answered a moment ago: its processes take their time
            waiting.append(str(shop["name"]))
    each = [f"{wanted[shop['id']]} on {shop['name']}" for shop in shops]
    said = f"{type}: {', '.join(each)}"
    return f"{said}; not ready yet on {', '.join(waiting)}" if waiting else said


# --- inside -----------------------------------------------------------------


def _order(control: Control, name: str, operation: str) -> Entry:
    entries = control.factory("find")
    entry = named(name, entries)
    control.workshop(_workshop_of(entry, entries), operation, {"name": entry["id"]})
    return entry


def _workshop_of(entry: Entry, entries: Iterable[Entry]) -> Entry:
    for shop in entries:
        if shop["id"] == entry["workshop"]:
            return shop
    raise RegistryError(
        f"{entry['name']} was started without a workshop: end its process yourself, "
        f"which is {entry['pid']} on {entry['host']}"
    )


def end_limit_s(config: Config) -> float:
    """Return after which time a process that was asked to end is gone, in seconds."""
    worker = config.worker
    limits_s = (worker.drain_timeout_s, worker.hand_over_s)
    return sum(limits_s) + config.workshop.stop_grace_s + STOP_MARGIN_S


def _left_after(control: Control, ids: set[str], wait_s: float) -> list[Entry]:
    """Return which of these entries still stand in the registry after a wait."""
    left: list[Entry] = []

    def look() -> bool:
        nonlocal left
        left = [e for e in control.factory("find") if e["id"] in ids]
        return not left

    _waited(look, wait_s)
    return left


def _waited(is_done: Callable[[], bool], wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while not is_done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _piece_of(control: Control, entry: Entry) -> str:
    figures = control.factory("status")["figures"]
    return str(figures.get(entry["id"], {}).get("piece", ""))


def _able(control: Control, type: str) -> list[Entry]:
    """Return the workshops that may run a type, and are not drained."""
    shops = control.factory("find", {"kind": "workshop"})
    have = [s for s in shops if type in _types(s)]
    if not have:
        known = ", ".join(sorted({t for s in shops for t in _types(s)})) or "nothing"
        raise RegistryError(f"no computer has {type!r} in its catalogue ({known} is)")
    able = [shop for shop in have if not shop["attributes"].get("is_drained")]
    if not able:
        raise RegistryError(
            f"every computer that has {type!r} in its catalogue is drained: see "
            "`opencluster undrain`"
        )
    return sorted(able, key=lambda shop: (shop["name"], shop["id"]))


def _types(shop: Entry) -> Sequence[str]:
    return list(shop["attributes"].get("catalogue") or {})


def _catalogued(control: Control, shop: Entry, type: str) -> Mapping[str, Any]:
    """Return what a workshop says of a type in its catalogue."""
    catalogue = control.workshop(shop, "status", {})["catalogue"]
    for key in ("name", "type"):
        for row in catalogue:
            if row[key] == type:
                return dict(row)
    known = ", ".join(row["name"] for row in catalogue) or "nothing"
    raise RegistryError(
        f"{type!r} is not in the catalogue of {shop['name']} ({known} is)"
    )
