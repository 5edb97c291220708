"""A slow decoder of raw frames, written from the notes on the format alone.

It works byte by byte in plain Python and shares nothing with the reader, which it
checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

BEIJING = timezone(timedelta(hours=8))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Scalar:
    """One frame. Visibilities by (i, j, channel), channels in order of frequency."""

    time_utc_ns: int
    visibilities: dict[tuple[int, int, int], tuple[int, int]]
    autos: dict[tuple[int, int], int]
    delays: dict[int, tuple[int, int]]


def decode(frame: bytes, array: int) -> Scalar:
    """Decode a frame; MUSER-II is not conjugated."""
    assert frame[:28] == b"\x55" * 28
    read = _payload_1 if array == 1 else _payload_2
    return Scalar(_time(frame[32:40]), *read(frame))


def _time(word: bytes) -> int:
    bits = "".join(f"{byte:08b}" for byte in reversed(word))
    widths = [12, 4, 5, 5, 6, 6, 10, 10, 6]
    parts, at = [], 0
    for width in widths:
        parts.append(int(bits[at : at + width], 2))
        at += width
    year, month, day, hour, minute, second, ms, us, tick = parts
    local = datetime(2000 + year, month, day, hour, minute, second, tzinfo=BEIJING)
    seconds = (local - EPOCH) // timedelta(seconds=1)
    return ((seconds * 1000 + ms) * 1000 + us) * 1000 + (tick if tick < 50 else 0) * 20


def _signed(low: int, middle: int, high: int) -> int:
    return int.from_bytes(bytes([low, middle, high]), "little", signed=True)


def _numbers(record: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return A and B as (real, imaginary)."""
    number = [_signed(record[m], record[4 + m], record[8 + m]) for m in range(4)]
    return (number[1], number[0]), (number[3], number[2])


def _payload_1(frame: bytes) -> tuple[dict, dict, dict]:  # type: ignore[type-arg]
    visibilities, autos, delays = {}, {}, {}
    for p in range(8):
        block = frame[2944 + 12128 * p : 2944 + 12128 * (p + 1)]
        at = 0
        for i in range(44):
            for j in range(i + 1, 44):
                a, b = _numbers(block[at : at + 12])
                at += 12
                if j < 40:
                    visibilities[i, j, 2 * p + 1] = a
                    visibilities[i, j, 2 * p] = b
        assert at == 11352
        for k in range(44):
            group = block[11392 + 64 * (k // 4) : 11392 + 64 * (k // 4) + 64]
            of_input = group[8 * (k % 4) : 8 * (k % 4) + 8]
            autos[2 * p, k] = int.from_bytes(of_input[:4], "little")
            autos[2 * p + 1, k] = int.from_bytes(of_input[4:], "little")
            if p == 7:
                place = 40 + 2 * (k % 4)
                fraction = int.from_bytes(group[place : place + 2], "little")
                whole = int.from_bytes(group[place + 8 : place + 10], "little")
                delays[k] = (whole, fraction)
    return visibilities, autos, delays


def _payload_2(frame: bytes) -> tuple[dict, dict, dict]:  # type: ignore[type-arg]
    pairs = [(i, j) for i in range(64) for j in range(i + 1, 64)]
    visibilities, autos, delays = {}, {}, {}
    for c in range(16):
        block = frame[1888 + 12680 * c : 1888 + 12680 * (c + 1)]
        for m in range(1008):
            both = _numbers(block[12 * m : 12 * m + 12])
            for (i, j), number in zip(pairs[2 * m : 2 * m + 2], both, strict=True):
                if j < 60:
                    visibilities[i, j, 15 - c] = number
        for g in range(8):
            group = block[12096 + 64 * g : 12096 + 64 * g + 64]
            for j in range(4):
                k = 8 * g + 4 * (c % 2) + j
                word = group[8 * j : 8 * j + 8]
                autos[15 - (c - c % 2), k] = int.from_bytes(word[:4], "little")
                autos[15 - (c - c % 2 + 1), k] = int.from_bytes(word[4:], "little")
            if c >= 14:
                bits = int.from_bytes(group[40:56], "little")
                for j in range(4):
                    whole = bits >> (113 - 15 * j) & 0x7FFF
                    fraction = bits >> (51 - 17 * j) & 0x1FFFF
                    delays[8 * g + 4 * (c % 2) + j] = (whole, fraction)
    return visibilities, autos, delays
