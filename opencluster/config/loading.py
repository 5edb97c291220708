"""From the texts of all sources to one checked `Config`.

Owns the order of the sources and the checks that concern more than one value. Every
problem is collected, so that a user mends the configuration in one go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opencluster.config.catalogue import (
    KINDS,
    CatalogueEntry,
    is_catalogue_section,
    read_entry,
)
from opencluster.config.elastic import ElasticType, is_elastic_section, read_type
from opencluster.config.settings import SECTIONS, Config
from opencluster.config.sources import (
    CONFIG_VARIABLE,
    Problem,
    RawSection,
    RawSections,
    RawValue,
    merge,
    read_file,
    sources,
    suggestion,
    unknown_key,
)
from opencluster.errors import ConfigError

PREFIX = "OPENCLUSTER_"
OTHER_VARIABLES = frozenset(
    {
        *(CONFIG_VARIABLE, "OPENCLUSTER_DIR", "OPENCLUSTER_ENGINE"),
        *("OPENCLUSTER_NAME", "OPENCLUSTER_SCOREBOARD", "OPENCLUSTER_MARKER"),
    }
)
"""Variables with the prefix that are not settings. The last three are in each process
that a workshop starts."""

COMMAND_LINE = "command line"
ENVIRONMENT = "environment variable"
_MAX_SHOWN_PROBLEMS = 20
_NEAR_ENOUGH_FOR_A_TYPO = 0.85

_AT_LEAST = (
    ("cluster", "lease_s", 2.0, "heartbeat_interval_s"),
    ("network", "zmtp_timeout_s", 1.0, "zmtp_heartbeat_s"),
    ("workshop", "restart_delay_max_s", 1.0, "restart_delay_s"),
    ("taskqueue", "lease_s", 4.0, "poll_interval_s"),
    ("elastic", "backoff_max_s", 1.0, "backoff_s"),
)
"""Section, key, factor and the other key: key is at least factor times the other."""


def load(
    files: Sequence[Path] | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[tuple[str, str], str] | None = None,
) -> Config:
    """Read the configuration of this process.

    From weak to strong: the defaults, ``/etc/opencluster/config.ini``,
    ``$XDG_CONFIG_HOME/opencluster/config.ini``, the file that the variable
    ``OPENCLUSTER_CONFIG`` names, `files`, the variables
    ``OPENCLUSTER_<SECTION>_<KEY>``, and `overrides`.

    Parameters
    ----------
    files : sequence of Path, optional
        Files that the command line names; each must exist.
    environ : mapping, optional
        The environment, that of the process by default.
    overrides : mapping of (section, key) to str, optional
        What options of the command line say.

    Returns
    -------
    Config
        Checked settings; `Config.origin` tells where each comes from.

    Raises
    ------
    ConfigError
        With every problem, each naming its file, section and key.
    """
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    raw: RawSections = {}
    for source in sources(files or (), environ):
        merge(raw, read_file(source, problems))
    merge(raw, _from_environment(environ, problems))
    merge(raw, _from_overrides(overrides or {}))
    config = _build(raw, problems)
    if not problems:
        problems.extend(_contradictions(config))
    if problems:
        raise ConfigError(report(problems))
    return config


def problems_in(raw: RawSections) -> list[Problem]:
    """Return all that is wrong with texts of one source, on top of the defaults."""
    problems: list[Problem] = []
    config = _build(raw, problems)
    return problems or list(_contradictions(config))


def _from_environment(
    environ: Mapping[str, str], problems: list[Problem]
) -> RawSections:
    variables = {
        f"{PREFIX}{section}_{key}".upper(): (section, key)
        for section, described in SECTIONS.items()
        for key in described.settings
    }
    layer: RawSections = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        origin = f"{ENVIRONMENT} {name}"
        if name in variables:
            section, key = variables[name]
            value = RawValue(environ[name].strip(), origin, Path.cwd())
            layer.setdefault(section, RawSection(origin)).values[key] = value
        else:
            problems.extend(_unknown_variable(name, origin, list(variables)))
    return layer


def _unknown_variable(name: str, origin: str, known: list[str]) -> Iterator[Problem]:
    """Yield a problem when a variable looks like a misspelt setting.

    Others are left alone: they may belong to a program that is built on OpenCluster.
    """
    section, _, key = name.removeprefix(PREFIX).lower().partition("_")
    if section in SECTIONS:
        message = unknown_key(key, SECTIONS[section].settings)
        yield Problem(origin, message, section, key)
    else:
        import difflib

        near = difflib.get_close_matches(name, known, 1, _NEAR_ENOUGH_FOR_A_TYPO)
        for variable in near:
            yield Problem(origin, f"no such setting, did you mean {variable}?")


def _from_overrides(overrides: Mapping[tuple[str, str], str]) -> RawSections:
    layer: RawSections = {}
    for (section, key), text in overrides.items():
        value = RawValue(text.strip(), COMMAND_LINE, Path.cwd())
        layer.setdefault(section, RawSection(COMMAND_LINE)).values[key] = value
    return layer


def _build(raw: RawSections, problems: list[Problem]) -> Config:
    sections: dict[str, Any] = {}
    catalogue: list[CatalogueEntry] = []
    elastic: list[ElasticType] = []
    origins: dict[tuple[str, str], str] = {}
    for name, section in raw.items():
        if name in SECTIONS:
            values = _read_section(name, section, problems)
            sections[name] = SECTIONS[name].kind(**values)
        elif is_catalogue_section(name):
            entry = read_entry(name, section, problems)
            catalogue.extend([entry] if entry else [])
        elif is_elastic_section(name):
            type = read_type(name, section, problems)
            elastic.extend([type] if type else [])
        else:
            known = [*(f"{kind}:NAME" for kind in KINDS), "elastic:TYPE"]
            known = known if ":" in name else [*SECTIONS, *known]
            message = f"unknown section{suggestion(name, known)}"
            key = next(iter(section.values), "")
            problems.append(Problem(section.origin, message, name, key))
        origins.update({(name, k): value.origin for k, value in section.values.items()})
    return Config(
        **sections,
        catalogue=tuple(catalogue),
        elastic_types=tuple(elastic),
        origins=origins,
    )


def _read_section(
    name: str, raw: RawSection, problems: list[Problem]
) -> dict[str, Any]:
    settings = SECTIONS[name].settings
    values = {}
    for key, value in raw.values.items():
        try:
            if key not in settings:
                raise ValueError(_misplaced(key) or unknown_key(key, settings))
            values[key] = settings[key].read(value.text)
        except ValueError as error:
            problems.append(Problem(value.origin, str(error), name, key))
    return values


def _misplaced(key: str) -> str:
    homes = [name for name, section in SECTIONS.items() if key in section.settings]
    listed = " or ".join(f"[{home}]" for home in homes)
    return f"unknown key {key!r} here, it belongs into {listed}" if homes else ""


def _contradictions(config: Config) -> Iterator[Problem]:
    for section, key, factor, other in _AT_LEAST:
        values = getattr(config, section)
        least = factor * getattr(values, other)
        if getattr(values, key) < least:
            of_other = f"{other} = {getattr(values, other)}"
            message = (
                f"got {getattr(values, key)}, expected at least {least} since "
                f"{of_other} ({config.origin(section, other)})"
            )
            yield Problem(config.origin(section, key), message, section, key)


def report(problems: Sequence[Problem], where: str = "the configuration") -> str:
    """Return what is wrong, a line for each problem."""
    if len(problems) == 1:
        return str(problems[0])
    lines = [f"{len(problems)} problems in {where}:"]
    lines += [f"  {problem}" for problem in problems[:_MAX_SHOWN_PROBLEMS]]
    hidden = len(problems) - _MAX_SHOWN_PROBLEMS
    return "\n".join(lines + ([f"  and {hidden} more"] if hidden > 0 else []))
