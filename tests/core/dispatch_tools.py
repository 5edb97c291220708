"""What the tests of dispatch ask besides."""

from __future__ import annotations

from opencluster.core.dispatch import Dispatch


def left_in(dispatch: Dispatch) -> int:
    """Return how many pieces have no verdict yet, or still stand at a worker."""
    return sum(piece.count for piece in dispatch._pieces.values())


def takers(dispatch: Dispatch, type: str) -> set[str]:
    """Return the workers of a type that take pieces."""
    crew = dispatch._crews.get(type)
    return set(crew.workers) if crew is not None else set()
