"""What may run on this computer: the ``[worker:NAME]`` and ``[service:NAME]`` sections.

Owns the meaning of one such section. Starts nothing, and imports no user code to see
whether a target exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from opencluster.config.sources import Problem, RawSection, RawValue, unknown_key
from opencluster.config.values import (
    COMMAND,
    CPUS,
    INTEGER,
    SIZE,
    TARGET,
    TEXT,
    Kind,
    Setting,
    parse_literal,
    shown,
    unquote,
)

KINDS: tuple[Literal["worker", "service"], ...] = ("worker", "service")
ENVIRONMENT = "env"
ARGUMENTS = "arg"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _key(kind: Kind, default: object, explanation: str, minimum: int | None = 0) -> Any:
    if kind not in (INTEGER, SIZE):
        minimum = None
    return field(
        default=default, metadata={"setting": Setting(kind, explanation, minimum)}
    )


@dataclass(frozen=True)
class CatalogueEntry:
    """One type of worker or service that a workshop may run.

    Exactly one of `target` and `command` is given. Relative paths in `target` and
    `directory` count from the folder of the file that names them.

    Attributes
    ----------
    kind : {"worker", "service"}
        Which base class it belongs to.
    name : str
        The NAME of its section.
    environment : mapping of str to str
        Environment variables that are added, from keys ``env.NAME``.
    arguments : mapping of str to object
        Arguments of the class, from keys ``arg.NAME``.
    """

    kind: Literal["worker", "service"]
    name: str
    target: str = _key(
        TARGET, "", "The class to run, as module:Class or path.py:Class."
    )
    command: tuple[str, ...] = _key(
        COMMAND, (), "A command line to run in place of a class."
    )
    type: str = _key(
        TEXT, "", "Worker type or service name; empty means the section's NAME."
    )
    count: int = _key(INTEGER, 0, "Processes to start with the workshop.")
    cpus: tuple[int, ...] = _key(
        CPUS, (), "CPUs that its processes may use; empty means all."
    )
    memory_bytes: int = _key(
        SIZE, 0, "Memory that one process may use at most; 0 means no limit."
    )
    gpus: int = _key(INTEGER, 0, "GPUs that each process has for itself.")
    directory: str = _key(
        TEXT, "", "Working directory; empty means that of the workshop."
    )
    max_pieces: int | None = _key(
        INTEGER, None, "As in [worker]; unset means what stands there."
    )
    max_memory: int | None = _key(
        SIZE, None, "As in [worker]; unset means what stands there."
    )
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the type, which is the name unless something else is said."""
        if not self.type:
            object.__setattr__(self, "type", self.name)

    @property
    def section(self) -> str:
        """The name of its section in the configuration."""
        return f"{self.kind}:{self.name}"

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield each key that is not at its default with its value as text."""
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ENTRY_SETTINGS and value != item.default:
                yield item.name, ENTRY_SETTINGS[item.name].kind.render(value)
        for name, text in self.environment.items():
            yield f"{ENVIRONMENT}.{name}", text
        for name, argument in self.arguments.items():
            yield f"{ARGUMENTS}.{name}", repr(argument)


ENTRY_SETTINGS: Mapping[str, Setting] = {
    item.name: item.metadata["setting"]
    for item in fields(CatalogueEntry)
    if "setting" in item.metadata
}
"""The keys of a catalogue section besides ``env.NAME`` and ``arg.NAME``."""


def is_catalogue_section(section: str) -> bool:
    """Tell whether a section is a ``[worker:...]`` or ``[service:...]`` one."""
    kind, colon, _ = section.partition(":")
    return bool(colon) and kind in KINDS


def read_entry(
    section: str, raw: RawSection, problems: list[Problem]
) -> CatalogueEntry | None:
    """Return the entry that a section describes, or ``None`` after noting why not."""
    before = len(problems)
    kind, _, name = section.partition(":")
    if not _NAME.fullmatch(name):
        expected = "letters, digits, '.', '_' and '-', 64 at most, after the colon"
        problem = f"got the name {shown(name)}, expected {expected}"
        problems.append(Problem(raw.origin, problem, section))
    values: dict[str, Any] = {}
    mappings: dict[str, dict[str, Any]] = {ENVIRONMENT: {}, ARGUMENTS: {}}
    for key, value in raw.values.items():
        try:
            _read_key(key, value, values, mappings)
        except ValueError as error:
            problems.append(Problem(value.origin, str(error), section, key))
    if not problems[before:]:
        problems.extend(_target_problems(section, raw, values))
    if problems[before:]:
        return None
    return CatalogueEntry(
        kind="worker" if kind == "worker" else "service",
        name=name,
        **values,
        environment=mappings[ENVIRONMENT],
        arguments=mappings[ARGUMENTS],
    )


def _read_key(
    key: str,
    raw: RawValue,
    values: dict[str, Any],
    mappings: dict[str, dict[str, Any]],
) -> None:
    prefix, dot, name = key.partition(".")
    if dot and prefix in mappings:
        if not _IDENTIFIER.fullmatch(name):
            raise ValueError(f"got {shown(name)}, expected a name after {prefix}.")
        read = unquote if prefix == ENVIRONMENT else parse_literal
        mappings[prefix][name] = read(raw.text)
    elif key in ENTRY_SETTINGS:
        values[key] = _resolved(key, ENTRY_SETTINGS[key].read(raw.text), raw.folder)
    else:
        raise ValueError(unknown_key(key, [*ENTRY_SETTINGS, "env.NAME", "arg.NAME"]))


def _resolved(key: str, value: Any, folder: Path) -> Any:
    """Anchor a relative path, so that it means the same wherever a daemon runs."""
    if key == "directory" and value:
        return _absolute(value, folder)
    if key == "target" and ".py:" in value:
        path, _, name = value.rpartition(":")
        return f"{_absolute(path, folder)}:{name}"
    return value


def _absolute(path: str, folder: Path) -> str:
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError(f"got {shown(path)}, {error}") from None


def _target_problems(
    section: str, raw: RawSection, values: Mapping[str, Any]
) -> Iterator[Problem]:
    given = [key for key in ("target", "command") if values.get(key)]
    if len(given) == 1:
        return
    seen = "both are given" if given else "neither is given"
    origin = raw.values[given[-1]].origin if given else raw.origin
    text = f"expected one of target and command, {seen}"
    yield Problem(origin, text, section, "command" if given else "target")
