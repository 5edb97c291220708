"""The directory of a host: what its daemons read, and the note of the order for it.

Owns what lies there, and which of it is secret. Starts nothing.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from opencluster.config import load
from opencluster.config.render import render_sections
from opencluster.config.sources import CONFIG_VARIABLE
from opencluster.core.roll import Roll
from opencluster.errors import LaunchFailed
from opencluster.launchers.changes import Change, change_between, outline
from opencluster.launchers.order import ROLL, Order
from opencluster.net import keyfiles
from opencluster.place import Place, replace_file


def place_of(order: Order) -> Place:
    """Return the directory of a host.

    Raises
    ------
    LaunchFailed
        When it is none, or would be in a home that there is not.
    """
    path = Path(order.directory)
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise LaunchFailed(f"{order.directory}: {error}") from None
    if not path.is_absolute():
        raise LaunchFailed(f"expected a path from / or ~/, got {order.directory!r}")
    return Place(path)


def lay_out(order: Order, place: Place) -> None:
    """Write what the daemons read: config.ini, programs and keys."""
    programs = place.path / "programs"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir(mode=0o700)
    _write_programs(order, place)
    forget_keys(place)
    _note_order(order, place)
    if order.keys:
        _write_keys(order.keys, place.path / "keys")


def change_of(order: Order, place: Place) -> Change | None:
    """Return how an order differs from the one that runs, ``None`` if in nothing."""
    note = _last_order(place)
    if note.get("digest") == order.digest():
        return None
    return change_between(note.get("outline", {}), outline(order))


def take_over(order: Order, place: Place, change: Change) -> None:
    """Write what an order has more than the one that runs.

    Raises
    ------
    LaunchFailed
        When it needs a restart.
    """
    if not change.is_joined_in:
        told = f" ({change.what})" if change.what else ""
        raise LaunchFailed(
            f"another order runs here, as the cluster file was changed since{told}: "
            "the same command with --restart ends that and starts this one"
        )
    _write_programs(order, place)
    _note_order(order, place)


def _write_programs(order: Order, place: Place) -> None:
    programs = config_file(place).parent
    for name, content in order.files.items():
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise LaunchFailed(f"the file {name!r} would lie outside {programs}")
        path = programs / pure
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
        if name in order.executables:
            path.chmod(0o700)
    text = render_sections(order.sections)
    config_file(place).write_text(text, encoding="utf-8")


def _note_order(order: Order, place: Place) -> None:
    note = {
        "digest": order.digest(),
        "has_keys": bool(order.keys),
        "outline": outline(order),
    }
    replace_file(_order_file(place), json.dumps(note))


def _order_file(place: Place) -> Path:
    return place.path / "order.json"


def _last_order(place: Place) -> Mapping[str, Any]:
    """Return the note of the order by which a place was laid out last."""
    try:
        return _fields(_order_file(place).read_text())
    except (OSError, ValueError):
        return {}


def forget_keys(place: Place) -> None:
    """Remove keys that came with an order: of those of others nothing is touched.

    Secrets of a cluster that has ended are of no use to anyone on a host.
    """
    if _last_order(place).get("has_keys"):
        shutil.rmtree(place.path / "keys", ignore_errors=True)


def config_file(place: Place) -> Path:
    """Return where config.ini lies: beside the programs that it names."""
    return place.path / "programs" / "config.ini"


def catalogue_in(place: Place) -> tuple[Mapping[str, Any], ...]:
    """Return what a workshop of this place would read, of that which can be sent."""
    environment = {**os.environ, CONFIG_VARIABLE: str(config_file(place))}
    entries = [asdict(entry) for entry in load(environ=environment).catalogue]
    return tuple(entry for entry in entries if _is_plain(entry))


def _is_plain(entry: Mapping[str, Any]) -> bool:
    try:
        json.dumps(entry)
    except (TypeError, ValueError):
        return False
    return True


def _write_keys(keys: Mapping[str, str], directory: Path) -> None:
    """Write the keys that a host needs into a new folder."""
    directory.mkdir(mode=0o700, exist_ok=True)
    keyfiles.check_closed(directory)
    for name, content in keys.items():
        if name == ROLL:
            continue
        if PurePosixPath(name).name != name:
            raise LaunchFailed(f"{name!r} is no name for a file of keys")
        fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(content)
    if ROLL in keys:
        # the one that is here may be newer: factories keep what they are told
        with keyfiles.locked(directory):
            keyfiles.save_roll(directory, Roll.from_fields(_fields(keys[ROLL])))


def _fields(text: str) -> Mapping[str, Any]:
    fields = json.loads(text)
    return fields if isinstance(fields, Mapping) else {}
