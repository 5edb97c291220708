"""Numbers by which a daemon is watched from outside, as plain values.

Names follow the conventions of Prometheus: the unit at the end, in base units, and
``_total`` for what only grows. `opencluster.observe.exposition` shows them.

Source: "Metric and label naming" in the documentation of Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

PREFIX = "opencluster_"
Labels = tuple[tuple[str, str], ...]
"""Names and texts that tell of whom a number is."""
Named = tuple[str, str, float, str]
"""What a metric is called, the figure that it is made of, what that is multiplied by,
and what it is in one line."""


class Metric(NamedTuple):
    """One thing that is measured, of one or of many.

    Attributes
    ----------
    name : str
        With its unit, without `PREFIX`.
    help : str
        What it is, in one line.
    samples : sequence of (labels, value)
        Of whom, and how much.
    """

    name: str
    help: str
    samples: Sequence[tuple[Labels, float]]

    @property
    def is_counter(self) -> bool:
        """Whether it only grows."""
        return self.name.endswith("_total")


def one(name: str, help: str, value: float) -> Metric:
    """Return a metric of the daemon itself."""
    return Metric(name, help, [((), float(value))])


def each(
    names: Iterable[Named],
    figures: Mapping[Labels, Mapping[str, Any]],
) -> list[Metric]:
    """Return metrics of many, made of the figures that each has.

    Parameters
    ----------
    names : iterable of Named
        How each metric is made.
    figures : mapping
        The figures of each, by labels. What is missing or no number is left out.
    """
    return [
        Metric(
            name,
            help,
            [
                (labels, own[figure] * factor)
                for labels, own in figures.items()
                if _is_number(own.get(figure))
            ],
        )
        for name, figure, factor, help in names
    ]


def rejected(counts: Mapping[str, Any]) -> list[Metric]:
    """Return what came in that should not have, of what a transport counted."""
    names: list[Named] = [
        ("rejected_messages_total", "rejected_messages", 1, "Malformed messages."),
        ("rejected_handshakes_total", "rejected_handshakes", 1, "Strange connections."),
        ("dropped_connections_total", "dropped_connections", 1, "Ended connections."),
        ("rejected_credentials_total", "rejected_credentials", 1, "What keys forbid."),
    ]
    return each(names, {(): counts})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
