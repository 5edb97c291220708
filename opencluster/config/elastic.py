"""How many workers there are to be by themselves: ``[elastic]`` and ``[elastic:TYPE]``.

Owns the settings of elasticity and the meaning of one section for a type. Decides
nothing: that is for `opencluster.core.elasticity`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from opencluster.config.section import Settings
from opencluster.config.sources import Problem, RawSection, unknown_key
from opencluster.config.values import INTEGER, SECONDS, Kind, Setting

PREFIX = "elastic:"
MAX_WORKERS = 100_000
MAX_ALLOCATIONS = 1000


def _setting(
    kind: Kind,
    default: object,
    explanation: str,
    minimum: float | None = 0,
    maximum: float | None = None,
) -> Any:
    described = Setting(kind, explanation, minimum, maximum)
    return field(default=default, metadata={"setting": described})


class ElasticSettings(Settings):
    """What holds for all elastic types together."""

    interval_s: float = _setting(
        SECONDS, 1.0, "Seconds between two looks at the work that waits.", 0.05
    )
    ceiling: int = _setting(
        INTEGER, 1000, "Most workers of all elastic types together.", 1, MAX_WORKERS
    )
    allocations: int = _setting(
        INTEGER,
        10,
        "Most jobs of a batch system that stand or wait for it at a time.",
        0,
        MAX_ALLOCATIONS,
    )
    launches_per_minute: int = _setting(
        INTEGER,
        6,
        "Most launches in a minute: orders to workshops, or jobs that are submitted.",
        1,
        600,
    )
    rise_s: float = _setting(
        SECONDS, 5.0, "Seconds of too much work before more workers are launched."
    )
    cooldown_s: float = _setting(
        SECONDS, 60.0, "Seconds for which workers must be idle before some are let go."
    )
    first_step: int = _setting(
        INTEGER,
        4,
        "Workers to begin with, while nobody knows how long a piece takes.",
        1,
        MAX_WORKERS,
    )
    failures: int = _setting(
        INTEGER, 3, "Launches in a row that may fail before nothing is launched.", 1
    )
    backoff_s: float = _setting(
        SECONDS, 10.0, "Seconds without a launch after one failed; then doubled."
    )
    backoff_max_s: float = _setting(SECONDS, 600.0, "Most seconds of that.")
    start_timeout_s: float = _setting(
        SECONDS, 300.0, "Seconds after which workers that are not ready have failed.", 1
    )
    ending_s: float = _setting(
        SECONDS,
        300.0,
        "Seconds before the end of a batch job from which its workers count as none.",
    )


@dataclass(frozen=True)
class ElasticType:
    """What is wanted of one type.

    Attributes
    ----------
    type : str
        The TYPE of its section.
    """

    type: str
    minimum: int = _setting(
        INTEGER, 0, "Workers that are there without any work.", 0, MAX_WORKERS
    )
    maximum: int = _setting(
        INTEGER, 1, "Workers that are there at most.", 1, MAX_WORKERS
    )
    target_s: float = _setting(
        SECONDS, 30.0, "Seconds of work that may wait for each worker.", 0.001
    )

    @property
    def section(self) -> str:
        """The name of its section in the configuration."""
        return f"{PREFIX}{self.type}"

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield each key with its value as text."""
        for key, setting in ELASTIC_SETTINGS.items():
            yield key, setting.kind.render(getattr(self, key))


ELASTIC_SETTINGS: Mapping[str, Setting] = {
    item.name: item.metadata["setting"]
    for item in fields(ElasticType)
    if "setting" in item.metadata
}
"""The keys of a section for a type."""


def is_elastic_section(section: str) -> bool:
    """Tell whether a section is an ``[elastic:TYPE]`` one."""
    return section.startswith(PREFIX)


def read_type(
    section: str, raw: RawSection, problems: list[Problem]
) -> ElasticType | None:
    """Return what a section says of a type, or ``None`` after noting why not."""
    before = len(problems)
    type = section.removeprefix(PREFIX)
    if not type:
        problem = "expected the name of a worker type after the colon"
        problems.append(Problem(raw.origin, problem, section))
    values: dict[str, Any] = {}
    for key, value in raw.values.items():
        try:
            if key not in ELASTIC_SETTINGS:
                raise ValueError(unknown_key(key, ELASTIC_SETTINGS))
            values[key] = ELASTIC_SETTINGS[key].read(value.text)
        except ValueError as error:
            problems.append(Problem(value.origin, str(error), section, key))
    if problems[before:]:
        return None
    read = ElasticType(type, **values)
    if read.minimum > read.maximum:
        origin = raw.values["minimum"].origin if "minimum" in raw.values else raw.origin
        message = f"got {read.minimum}, expected at most maximum = {read.maximum}"
        problems.append(Problem(origin, message, section, "minimum"))
        return None
    return read
