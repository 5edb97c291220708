"""Where things stand in a frame.

Offsets are in bytes from the start of what they belong to; numbers are little-endian.
The payload is a row of blocks. A block holds records of correlations, then groups of
four inputs each: their autocorrelations and, in the last blocks, their delays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SYNC = b"\x55" * 28
"""What every frame begins with."""
HEADER_BYTES = 210
"""As much of a frame as `HEADER` describes."""
HEADER = np.dtype(
    {
        "names": [
            *("sync", "after_sync", "time", "frequency_switching", "bandwidth"),
            *("quantisation", "delay", "fringe", "polarization_code", "band_code"),
            *("target", "array_tag", "loop_code_2", "loop_code_1"),
        ],
        "formats": [
            *("V28", "<u4", "<u8", "<u4", "<u4"),
            *("<u4", "<u4", "<u4", "<u2", "<u2"),
            *("<u2", "<u2", "<u2", "u1"),
        ],
        "offsets": [
            *(0, 28, 32, 40, 172),
            *(176, 180, 184, 188, 190),
            *(192, 194, 196, 208),
        ],
        "itemsize": HEADER_BYTES,
    }
)
"""The head of a frame. ``loop_code_1`` is MUSER-I's in the new layout, ``loop_code_2``
MUSER-II's; the old layout of MUSER-I has its own at `OLD_LOOP_CODE`."""
OLD_LOOP_CODE = 99264
"""Offset of 16 bits."""

WORDS = (
    *("after_sync", "time", "frequency_switching", "bandwidth", "quantisation"),
    *("delay", "fringe", "polarization_code", "band_code", "target", "array_tag"),
)
"""Words that ``Frames.header`` has under the same name; besides, ``"loop_code"``."""

SWITCHED_ON = 0x33333333
SWITCHED_OFF = 0xCCCCCCCC
"""Of the words for delay and fringe."""
FREQUENCY_SWITCHING_ON = 0x33
FREQUENCY_SWITCHING_OFF = 0xCC
BANDWIDTHS_HZ = {
    0x33333333: 25e6,
    0x77777777: 12.5e6,
    0x88888888: 6.25e6,
    0xBBBBBBBB: 3.125e6,
    0xCCCCCCCC: 1.5625e6,
}
"""By code. Only the first has known frequencies of channels."""
BANDWIDTH_25_MHZ = 0x33333333
QUANTISATION_2_BIT = 0x22
POLARIZATION_CODES = (0x3333, 0xCCCC)
"""Of the left and the right hand, in a fixed band."""
TARGETS = {0x0000: "sun", 0x0101: "satellite", 0x0202: "swan"}
"""By code; anything else is ``"other"``."""
ARRAY_TAGS = {1: 0x0000, 2: 0x4E4E}
"""By array, in files from 2015."""
LOOP_WORDS = {1: 0xFFFF, 2: 0xCCCC}
"""Band and polarisation code that a frame in a loop is written with, by array. What the
instrument writes is not known; any value that is no code of a fixed band will do."""

RECORD_BYTES = 12
GROUP_BYTES = 64
GROUP_DELAYS = slice(40, 56)
"""The delays of four inputs; before them are two words of each one, its
autocorrelations."""


@dataclass(frozen=True)
class FrameFormat:
    """The sizes of one array's frames.

    Attributes
    ----------
    size : int
        Bytes of a frame.
    inputs, antennas : int
        Inputs of the correlator, and those of them that carry antennas.
    payload : int
        Where the first block begins.
    block : int
        Bytes of a block.
    groups_at, groups : int
        Where the groups begin in a block, and how many there are.
    delay_blocks : tuple of int
        Blocks whose groups hold the delays.
    delay_fractions : int
        Parts of a nanosecond that delays are given in.
    largest_delay_ns : int
        Whole nanoseconds that there is room for.
    """

    size: int
    inputs: int
    antennas: int
    payload: int
    block: int
    groups_at: int
    groups: int
    delay_blocks: tuple[int, ...]
    delay_fractions: int
    largest_delay_ns: int


FORMATS = {
    1: FrameFormat(
        size=100_000,
        inputs=44,
        antennas=40,
        payload=2944,
        block=12128,
        groups_at=11392,
        groups=11,
        delay_blocks=(7,),
        delay_fractions=10_000,
        largest_delay_ns=(1 << 16) - 1,
    ),
    2: FrameFormat(
        size=204_800,
        inputs=64,
        antennas=60,
        payload=1888,
        block=12680,
        groups_at=12096,
        groups=8,
        delay_blocks=(14, 15),
        delay_fractions=100_000,
        largest_delay_ns=(1 << 15) - 1,
    ),
}
"""By array."""
