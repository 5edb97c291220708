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
ODD_IN_A_ROW = 2
"""A wrong code may make the frame beside it look as if it were in step with it."""
ODD_AT_MOST = 0.1
"""If more of the frames break a rule, it is none."""


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
    if np.count_nonzero(wrong) > max(1.0, ODD_AT_MOST * len(time_ns)):
        wrong[:] = False  # files joined to one that is longer
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
    numbers = np.zeros(len(time_ns), dtype=np.int64)
    np.cumsum(steps, out=numbers[1:])
    return numbers


def odd_ones_out(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which keys are not those around them.

    One or two equal keys are odd between others that are equal, or at an end beside
    more of another kind. If too many are odd, then equal keys are not the rule, and
    none is.

    Parameters
    ----------
    keys : ndarray of int64, shape (n,)
        What should stay the same from frame to frame.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
    lengths = np.diff(starts, append=len(keys))
    of_run = keys[starts]
    is_odd = np.zeros(len(starts), dtype=bool)
    if len(starts) > 1:
        around = lengths[:-2] + lengths[2:]
        is_odd[1:-1] = (of_run[:-2] == of_run[2:]) & (around > lengths[1:-1])
        is_odd[0] = lengths[1] > lengths[0]
        is_odd[-1] = lengths[-2] > lengths[-1]
    odd: NDArray[np.bool_] = np.repeat(is_odd & (lengths <= ODD_IN_A_ROW), lengths)
    limit = max(ODD_IN_A_ROW, ODD_AT_MOST * len(keys))
    return odd if np.count_nonzero(odd) <= limit else np.zeros_like(odd)
