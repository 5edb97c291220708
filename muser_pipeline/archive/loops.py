"""Loops over all bands and both hands, found by what frames say and not by counting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.raw.neighbours import slots


@dataclass(frozen=True, eq=False)
class Loops:
    """Which loop each frame belongs to.

    Attributes
    ----------
    loop : ndarray of int64, shape (n,)
        Numbers of loops in order of time, from 0; -1 for a frame that does not tell its
        place in one.
    frames : ndarray of int64, shape (loop,)
        How many of its frames each loop has.
    is_complete : ndarray of bool, shape (loop,)
        No frame of the loop is missing.
    """

    loop: NDArray[np.int64]
    frames: NDArray[np.int64]
    is_complete: NDArray[np.bool_]


def find_loops(
    time_ns: NDArray[np.int64],
    band: NDArray[np.int64],
    hand: NDArray[np.int64],
    frames_per_loop: int,
) -> Loops:
    """Return the loops that frames belong to.

    A frame knows its place in the loop, so that its loop began as many periods before
    it. Lost frames, and a loop that begins anew, do no harm.

    Parameters
    ----------
    time_ns : ndarray of int64, shape (n,)
        Times, ascending.
    band : ndarray of int64, shape (n,)
        Bands.
    hand : ndarray of int64, shape (n,)
        0 for the left hand, 1 for the right one, 2 if it is not known.
    frames_per_loop : int
        8 or 66.
    """
    tells = hand < 2
    start = (slots(time_ns) - 2 * band - hand)[tells]
    starts, which, frames = np.unique(start, return_inverse=True, return_counts=True)
    loop = np.full(len(time_ns), -1, dtype=np.int64)
    loop[tells] = which
    return Loops(loop, frames.astype(np.int64), frames == frames_per_loop)
