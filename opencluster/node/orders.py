"""What somebody may ask a workshop to start, checked before anything of it is kept.

Owns the checks of an entry that came in a message rather than from a file. Whether it
can be started is seen when it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from opencluster.config import CatalogueEntry
from opencluster.config.catalogue import ENTRY_SETTINGS, KINDS
from opencluster.config.values import TARGET, TEXT, Setting, shown
from opencluster.errors import RequestRefused

MAX_NAME = 64
"""Longest name of a kind of process that is started on request, in characters."""
MAX_PROCESSES = 1000
"""Processes of one kind that run on request on one computer, at most."""

_NAMES = {item.name for item in fields(CatalogueEntry)}


def read_entry(given: Any) -> CatalogueEntry:
    """Return the catalogue entry that a request describes.

    Parameters
    ----------
    given : mapping
        Fields of `CatalogueEntry`, as they came in a message.

    Raises
    ------
    RequestRefused
        The message names the field that is wrong, what was seen and what was expected.
    """
    values = dict(_mapping("entry", given))
    for key in values.keys() - _NAMES:
        raise _refusal("entry", key, f"fields out of {', '.join(sorted(_NAMES))}")
    if values.get("kind") not in KINDS:
        raise _refusal("kind", values.get("kind"), " or ".join(KINDS))
    _check_name(values.get("name"))
    for key, setting in ENTRY_SETTINGS.items():
        if key in values:
            values[key] = _read_setting(key, setting, values[key])
    if bool(values.get("target")) == bool(values.get("command")):
        seen = [values.get("target"), values.get("command")]
        raise _refusal("target", seen, "one of target and command")
    _check_environment(values.get("environment", {}))
    _check_arguments(values.get("arguments", {}))
    return CatalogueEntry(**values)


def read_count(given: Any) -> int:
    """Return how many processes a request asks for.

    Raises
    ------
    RequestRefused
        When that is no number, or one that no computer runs.
    """
    if type(given) is not int or not 0 <= given <= MAX_PROCESSES:
        raise _refusal("count", given, f"an integer from 0 to {MAX_PROCESSES}")
    return given


def _check_name(name: Any) -> None:
    is_text = isinstance(name, str) and name.isprintable()
    if not is_text or not 0 < len(name) <= MAX_NAME or Path(name).name != name:
        raise RequestRefused(
            f"{shown(str(name))} cannot be the name of processes, as their files are "
            f"named after them; give one of {MAX_NAME} characters at most, without "
            "slashes"
        )


def _read_setting(key: str, setting: Setting, given: Any) -> Any:
    """Return a value if the text of a configuration file could stand for it."""
    kind = setting.kind
    if kind in (TEXT, TARGET):
        return _text(key, given)
    default = CatalogueEntry.__dataclass_fields__[key].default
    value = tuple(given) if isinstance(given, list) else given
    if value is None and default is None:
        return None
    for word in value if isinstance(value, tuple) else ():
        if isinstance(word, str):
            _text(key, word)
    if not _has_text(setting, value):
        expected = ", ".join(filter(None, [kind.expected, setting.range_text()]))
        raise _refusal(key, given, expected)
    return value


def _has_text(setting: Setting, value: Any) -> bool:
    try:
        read = setting.read(setting.kind.render(value))
    except (ValueError, TypeError, AttributeError, OverflowError):
        return False
    # a kind may write more than it reads, such as "7" where a number is meant
    return type(read) is type(value) and bool(read == value)


def _check_environment(given: Any) -> None:
    for name, value in _mapping("environment", given).items():
        if not name or "=" in _text("environment", name):
            raise _refusal("environment", name, "names without '='")
        _text(f"environment {name}", value)


def _check_arguments(given: Any) -> None:
    """Refuse what cannot be handed to the process in its command line."""
    arguments = _mapping("arguments", given)
    try:
        json.dumps(arguments)
    except (ValueError, TypeError, RecursionError) as error:
        raise _refusal("arguments", given, f"plain values ({error})") from None


def _mapping(key: str, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not all(isinstance(k, str) for k in given):
        raise _refusal(key, given, "a mapping from names")
    return given


def _text(key: str, given: Any) -> str:
    if not isinstance(given, str) or "\0" in given:
        raise _refusal(key, given, "a text without NUL characters")
    return given


def _refusal(key: str, given: Any, expected: str) -> RequestRefused:
    return RequestRefused(f"{key}: got {shown(str(given))}, expected {expected}")
