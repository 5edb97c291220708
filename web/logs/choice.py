"""Which messages an address asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from opencluster.core.log_lines import LEVELS, Wanted
from opencluster.observe.logs import moment, question

NAMES = ("text", "host", "process", "type", "level", "piece", "since", "until")
MAX_TEXT = 200
"""Characters of what is looked for."""
DAEMONS = ("factory", "workshop")


@dataclass(frozen=True)
class Choice:
    """What somebody wants to see of the logs.

    Attributes
    ----------
    asked : dict
        What the address says, by name; only what is not empty.
    wanted : Wanted
        Which messages.
    problem : str
        Why the address makes no sense in part, in words; that part is left out.
    """

    asked: dict[str, str] = field(default_factory=dict)
    wanted: Wanted = field(default_factory=Wanted)
    problem: str = ""

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> Choice:
        """Return what an address asks for."""
        asked = {
            name: arguments[name].strip()[:MAX_TEXT]
            for name in NAMES
            if arguments.get(name, "").strip()
        }
        problem, moments = "", {}
        for name in ("since", "until"):
            try:
                moments[name] = moment(asked.get(name, ""))
            except ValueError as error:
                problem = str(error)
                moments[name] = ""
        level = asked.get("level", LEVELS[0]).upper()
        if level not in LEVELS:
            problem = f"{level!r} is none of {', '.join(LEVELS)}"
            level = LEVELS[0]
        text, piece = asked.get("text", ""), asked.get("piece", "")
        return cls(asked, Wanted(level, text, piece, **moments), problem)

    def question(
        self, lines: int, processes: Collection[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return what computers are asked.

        Parameters
        ----------
        lines : int
            Last lines of each log.
        processes : collection of mapping
            Rows of the status: what types are there.
        """
        names = [self.asked["process"]] if "process" in self.asked else []
        if "type" in self.asked:
            of_type = {r["name"] for r in processes if r["type"] == self.asked["type"]}
            # nobody has that name, so nothing is found
            names = sorted(of_type.intersection(names or of_type)) or ["/"]
        return question(self.wanted, lines, names)
