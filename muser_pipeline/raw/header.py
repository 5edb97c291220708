"""The header words of frames: taken from a file as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.raw.format import HEADER, HEADER_BYTES, OLD_LOOP_CODE, WORDS


def gather(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], count: int
) -> NDArray[np.uint8]:
    """Return some bytes from each of many places on.

    Parameters
    ----------
    data : ndarray of uint8, shape (bytes,)
        The file.
    offsets : ndarray of int64, shape (n,)
        The places.
    count : int
        How many from each.

    Returns
    -------
    ndarray of uint8, shape (n, count)
    """
    windows = np.lib.stride_tricks.sliding_window_view(data, count)
    return np.ascontiguousarray(windows[offsets])


@dataclass(frozen=True, eq=False)
class Headers:
    """The headers of frames, as they are written.

    Attributes
    ----------
    array : int
        1 or 2.
    heads : ndarray of HEADER, shape (n,)
        The heads of the frames.
    old_loop_code : ndarray of uint16, shape (n,)
        What stands in the place of the loop code of MUSER-I in the old layout; zeros
        for MUSER-II.
    """

    array: int
    heads: NDArray[np.void]
    old_loop_code: NDArray[np.uint16]

    def select(self, which: NDArray[Any]) -> Headers:
        """Return some of the headers, as numpy indexes them."""
        return Headers(self.array, self.heads[which], self.old_loop_code[which])

    def words(self, layout: str) -> dict[str, NDArray[Any]]:
        """Return the words by name.

        Parameters
        ----------
        layout : str
            ``"old"`` or ``"new"``.

        Returns
        -------
        dict of str to ndarray, shape (n,)
            Those of `WORDS`, and ``"loop_code"`` as uint16.
        """
        words: dict[str, NDArray[Any]] = {
            name: np.ascontiguousarray(self.heads[name]) for name in WORDS
        }
        if self.array == 2:
            words["loop_code"] = np.ascontiguousarray(self.heads["loop_code_2"])
        elif layout == "new":
            words["loop_code"] = self.heads["loop_code_1"].astype(np.uint16)
        else:
            words["loop_code"] = self.old_loop_code
        return words


def gather_headers(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], array: int
) -> Headers:
    """Return the headers of frames.

    Parameters
    ----------
    data : ndarray of uint8, shape (bytes,)
        The file.
    offsets : ndarray of int64, shape (n,)
        Where frames begin.
    array : int
        1 or 2.
    """
    heads = gather(data, offsets, HEADER_BYTES).view(HEADER)[:, 0]
    old = np.zeros(len(offsets), dtype=np.uint16)
    if array == 1:
        old = gather(data, offsets + OLD_LOOP_CODE, 2).view("<u2")[:, 0]
    return Headers(array, heads, old)
