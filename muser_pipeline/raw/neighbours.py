"""What the neighbours of a frame say of it.

A frame has no checksum. But frames come in a fixed rhythm, and a loop goes through its
bands in a fixed order; a frame that alone is out of step, where those before and after
it agree with each other, has had its header damaged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import FRAME_PERIOD_NS

LOSS_NS = 4_000_000
"""A longer step from frame to frame means that frames were lost."""
JITTER_NS = LOSS_NS - FRAME_PERIOD_NS
"""So much may a step differ from the period."""
FILE_SPAN_NS = 3600 * 10**9
"""A file holds about a minute; what is an hour away from the rest is no time."""
IN_STEP = 0.9
"""So many of the frames must keep to a rule for it to be one."""


def is_next(time_ns: NDArray[np.int64], number: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of each frame but the first whether it follows the one before at once.

    Parameters
    ----------
    time_ns : ndarray of int64, shape (n,)
        Times of the frames.
    number : ndarray of int64, shape (n,)
        Their places in the file.

    Returns
    -------
    ndarray of bool, shape (n - 1,)
    """
    on_time = np.abs(np.diff(time_ns) - FRAME_PERIOD_NS) <= JITTER_NS
    return np.asarray(on_time & (np.diff(number) == 1))


def out_of_time(
    time_ns: NDArray[np.int64], number: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which frames have a time that cannot be theirs.

    Those before and after are two periods apart, and this is not in the middle; or it
    is far away from all the rest of the file. A wrong time that differs by less than
    the jitter allowed, or stands beside a gap, is not noticed.

    Parameters
    ----------
    time_ns : ndarray of int64, shape (n,)
        Times of the frames.
    number : ndarray of int64, shape (n,)
        Their places in the file.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    if len(time_ns) < 3:
        return np.zeros(len(time_ns), dtype=bool)
    wrong = np.abs(time_ns - int(np.median(time_ns))) > FILE_SPAN_NS
    before, here, after = time_ns[:-2], time_ns[1:-1], time_ns[2:]
    in_a_row = number[2:] - number[:-2] == 2
    agree = np.abs(after - before - 2 * FRAME_PERIOD_NS) <= JITTER_NS
    aside = np.abs(here - before - FRAME_PERIOD_NS) > JITTER_NS
    wrong[1:-1] |= in_a_row & agree & aside
    return wrong


def slots(time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the times in periods, so that a clock that drifts does no harm.

    Parameters
    ----------
    time_ns : ndarray of int64, shape (n,)
        Times of the frames.

    Returns
    -------
    ndarray of int64, shape (n,)
        0 for the first; a lost frame leaves a number out.
    """
    steps = np.rint(np.diff(time_ns) / FRAME_PERIOD_NS).astype(np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(steps)])[
        : len(time_ns)
    ]


def odd_ones_out(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which keys differ from both neighbours while those are equal.

    The first and the last are compared with the two next to them. If too many are odd,
    then equal keys are not the rule, and none is.

    Parameters
    ----------
    keys : ndarray of int64, shape (n,)
        What should stay the same from frame to frame.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    if len(keys) < 3:
        return np.zeros(len(keys), dtype=bool)
    before = np.concatenate([keys[2:3], keys[:-1]])
    after = np.concatenate([keys[1:], keys[-3:-2]])
    odd: NDArray[np.bool_] = (before == after) & (keys != before)
    limit = max(1.0, (1 - IN_STEP) * len(keys))
    return odd if np.count_nonzero(odd) <= limit else np.zeros_like(odd)
