"""A figure: one quantity, measured several times, and how it is summed up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One quantity of a measure.

    Attributes
    ----------
    measure, name : str
        ``latency``, and what of it.
    unit : str
        What the runs are counted in; empty for a ratio.
    runs : sequence of float
        What each run gave.
    """

    measure: str
    name: str
    unit: str
    runs: Sequence[float]

    @property
    def median(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    @property
    def text(self) -> str:
        """The median with the range of the runs, for people."""
        return spread(self.runs)

    def to_fields(self) -> dict[str, Any]:
        """Return the figure as plain types."""
        return {
            "measure": self.measure,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.runs),
            "max": max(self.runs),
            "runs": list(self.runs),
        }


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    if 0 < value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def spread(values: Sequence[float]) -> str:
    """Return the median with the range of the values, for people."""
    low, high = min(values), max(values)
    return f"{number(statistics.median(values))} [{number(low)}-{number(high)}]"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of the values that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
