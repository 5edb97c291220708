"""Which colour stands for which type: the same in every job, as far as that goes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

HUES = ("blue", "orange", "green", "purple", "sky", "yellow", "grey")
"""Names of colours; vermillion is for failures alone."""


def hues_of(types: Sequence[str]) -> list[str]:
    """Return the name of a colour for each type.

    A type has the colour that its name gives it, unless another one of the same job,
    of a name that comes before, has taken that: then it has the next one that is free.
    Of more types than colours some share one.
    """
    taken: dict[str, str] = {}
    for type in sorted(set(types)):
        first = zlib.crc32(type.encode()) % len(HUES)
        turned = HUES[first:] + HUES[:first]
        used = taken.values()
        taken[type] = next((hue for hue in turned if hue not in used), turned[0])
    return [taken[type] for type in types]
