"""What a header says: band and polarisation, in every mode and layout."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import Array
from muser_pipeline.errors import LayoutWarning
from muser_pipeline.raw.format import POLARIZATION_CODES
from muser_pipeline.raw.frames import LEFT, RIGHT, UNKNOWN
from muser_pipeline.raw.neighbours import is_next

NEW_LAYOUT_SINCE = np.datetime64("2015-01-01T00:00", "ns")
"""UTC. The observatory's software of 2017 says so; its successor of 2020 says
2015-05-01 Beijing time. Data of 2014-12-17 are old, of 2017-09 new."""
_SUCCESSOR_SAYS = np.datetime64("2015-04-30T16:00", "ns")
ENOUGH_FRAMES = 8
"""In a loop, to tell the layout from them."""
HANDS = np.array([LEFT, RIGHT, UNKNOWN])
"""Polarisations by number; what does not tell is the last."""


@dataclass(frozen=True)
class Meaning:
    """What the headers of frames say.

    Attributes
    ----------
    band : ndarray of int64, shape (n,)
        Band, or -1 where the code is impossible.
    hand : ndarray of int64, shape (n,)
        0 for left, 1 for right, 2 where the frame does not tell: an index of `HANDS`.
    is_loop : ndarray of bool, shape (n,)
        The frame is of a loop over all bands; else the band is fixed.
    """

    band: NDArray[np.int64]
    hand: NDArray[np.int64]
    is_loop: NDArray[np.bool_]


def read_codes(words: Mapping[str, NDArray[Any]], array: Array, layout: str) -> Meaning:
    """Return band and polarisation of frames as far as each frame tells by itself.

    Parameters
    ----------
    words : mapping of str to ndarray, shape (n,)
        The words of the header, see `gather_headers`.
    array : Array
        Whose frames they are.
    layout : str
        ``"old"`` or ``"new"``.
    """
    band = _band_of([each.fixed_code for each in array.bands], words["band_code"])
    is_loop = band < 0
    hand = np.full(len(band), 2, dtype=np.int64)
    for number, each in enumerate(POLARIZATION_CODES):
        hand[words["polarization_code"] == each] = number
    code = words["loop_code"].astype(np.int64)
    old_codes = [each.old_loop_code for each in array.bands]
    if layout == "old" and None not in old_codes:
        in_loop = _band_of(old_codes, code)
        loop_hand = np.full(len(band), 2, dtype=np.int64)
    else:
        in_loop = np.where(code < array.frames_per_loop, code >> 1, -1)
        loop_hand = code & 1
    return Meaning(
        band=np.where(is_loop, in_loop, band),
        hand=np.where(is_loop, loop_hand, hand),
        is_loop=is_loop,
    )


def _band_of(codes: list[Any], found: NDArray[Any]) -> NDArray[np.int64]:
    bands = np.full(1 << 16, -1, dtype=np.int64)
    bands[codes] = np.arange(len(codes))
    return np.asarray(bands[found])


def pair_hands(
    band: NDArray[np.int64], time_ns: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the polarisations of frames of the old layout in a loop, from pairs.

    Two consecutive frames have the same code, the left hand first. Only frames one
    period apart are compared, so that the answer does not depend on where reading
    began, and a lost frame does no harm.

    Parameters
    ----------
    band : ndarray of int64, shape (n,)
        Bands that the frames tell.
    time_ns : ndarray of int64, shape (n,)
        Their times, in any order.

    Returns
    -------
    hand : ndarray of int64, shape (n,)
        0 for left, 1 for right, 2 where neither neighbour is there.
    is_wrong : ndarray of bool, shape (n,)
        The band fits neither neighbour, or both of them.
    """
    times, first, where = np.unique(time_ns, return_index=True, return_inverse=True)
    bands = band[first]
    joined = is_next(times, np.arange(len(times)))
    same = joined & (bands[1:] == bands[:-1])
    edge = np.zeros(1, dtype=bool)
    has_before, is_like_before = np.append(edge, joined), np.append(edge, same)
    has_after, is_like_after = np.append(joined, edge), np.append(same, edge)
    hand = np.full(len(times), 2, dtype=np.int64)
    hand[has_before & ~is_like_before] = 0
    hand[has_before & is_like_before] = 1
    only_after = has_after & ~has_before
    hand[only_after & is_like_after] = 0
    hand[only_after & ~is_like_after] = 1
    is_wrong = has_before & has_after & (is_like_before == is_like_after)
    is_wrong |= bands < 0
    return hand[where], is_wrong[where]


def find_layout(
    old: Meaning,
    new: Meaning,
    new_codes: NDArray[np.int64],
    time_ns: NDArray[np.int64],
    new_layout_since_ns: int,
) -> str:
    """Return the layout of a file of MUSER-I from frames in a loop, or by its date.

    It is new if the new layout's code counts 0 to 7 and again, and old if the codes of
    the old one come in pairs and in order.

    Parameters
    ----------
    old, new : Meaning
        What the headers say in either layout.
    new_codes : ndarray of int64, shape (n,)
        The codes at the place of the new layout.
    time_ns : ndarray of int64, shape (n,)
        Times of the frames, UTC.
    new_layout_since_ns : int
        UTC; when neither or both fit, files from then on are taken as new.

    Warns
    -----
    LayoutWarning
        When the date decides against the evidence, or for want of it in the months of
        which nothing is known.
    """
    by_date = "new" if time_ns[0] >= new_layout_since_ns else "old"
    if not new.is_loop.any():
        return by_date
    enough = np.count_nonzero(new.is_loop) >= ENOUGH_FRAMES
    if enough:
        places = np.arange(len(time_ns))
        step = is_next(time_ns, places) & new.is_loop[1:] & new.is_loop[:-1]
        counts = (new_codes[1:] - new_codes[:-1]) % 8 == 1
        fits_new = _is_rule(counts & (new.band[1:] >= 0), step)
        pair = step[1:] & step[:-1]
        turns = (old.band[2:] - old.band[:-2]) % 4 == 1
        fits_old = _is_rule(turns & (old.band[2:] >= 0) & (old.band[:-2] >= 0), pair)
        if fits_new != fits_old:
            return "new" if fits_new else "old"
    start, end = sorted((NEW_LAYOUT_SINCE, _SUCCESSOR_SAYS))
    is_open = start <= time_ns[0].astype("datetime64[ns]") < end
    if enough or is_open:
        seen = "frames fit no layout" if enough else "too few frames in a loop"
        warnings.warn(
            f"{seen}: the layout is taken as {by_date} by the date "
            f"{time_ns[0].astype('datetime64[ns]').astype('datetime64[D]')}; "
            'say layout="old" or layout="new" if you know it',
            LayoutWarning,
            stacklevel=6,
        )
    return by_date


def _is_rule(holds: NDArray[np.bool_], where: NDArray[np.bool_]) -> bool:
    """Tell whether something holds mostly; by chance it would one time in four."""
    cases = int(np.count_nonzero(where))
    return cases > 0 and 2 * int(np.count_nonzero(holds & where)) > cases
