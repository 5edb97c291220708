"""The payload of frames: correlations, autocorrelations and delays."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import CHANNELS
from muser_pipeline.raw import kernels
from muser_pipeline.raw.format import (
    FORMATS,
    GROUP_BYTES,
    GROUP_DELAYS,
    RECORD_BYTES,
)
from muser_pipeline.raw.header import gather


@dataclass(frozen=True, eq=False)
class Payload:
    """What frames hold besides their headers; see `Frames` for shapes and units."""

    visibilities: NDArray[np.complex64]
    autocorrelations: NDArray[np.uint32]
    delay_ns: NDArray[np.float64]


def decode_payload(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], array: int, conjugate: bool
) -> Payload:
    """Decode the payload of frames.

    Parameters
    ----------
    data : ndarray of uint8, shape (bytes,)
        The file.
    offsets : ndarray of int64, shape (n,)
        Where frames begin.
    array : int
        1 or 2.
    conjugate : bool
        Conjugate the correlations.
    """
    form = FORMATS[array]
    n = len(offsets)
    places = _places(array)
    parts = np.empty((n, 2 * places.size), dtype=np.float32)
    sign = np.float32(-1 if conjugate else 1)
    kernels.compiled(kernels.unpack)(data, offsets, places.ravel(), sign, parts)
    autos = np.empty((n, CHANNELS, form.inputs), dtype=np.uint32)
    words = _places_of_autos(array)
    unpack_words = kernels.compiled(kernels.unpack_words)
    unpack_words(data, offsets, words.ravel(), autos.reshape(n, words.size))
    delays = []
    for block in form.delay_blocks:
        start = form.payload + block * form.block + form.groups_at
        found = gather(data, offsets + start, form.groups * GROUP_BYTES)
        groups = found.reshape(n, form.groups, GROUP_BYTES)
        delays.append(np.ascontiguousarray(groups[..., GROUP_DELAYS]))
    units = _decode_delays_1(*delays) if array == 1 else _decode_delays_2(*delays)
    visibilities = parts.view(np.complex64).reshape(n, *places.shape)
    return Payload(visibilities, autos, units / form.delay_fractions)


def encode_payload(
    payload: Payload, array: int, conjugate: bool, frames: NDArray[np.uint8]
) -> None:
    """Write the payload of frames, the inverse of `decode_payload`.

    Parameters
    ----------
    payload : Payload
        Correlations are rounded and clipped to 24 bits; all values are finite.
    array : int
        1 or 2.
    conjugate : bool
        The correlations are conjugates of what is to be written.
    frames : ndarray of uint8, shape (n, size)
        Written to; bytes without a meaning stay.
    """
    form = FORMATS[array]
    n = len(frames)
    places = _places(array)
    parts = np.ascontiguousarray(payload.visibilities).reshape(n, places.size)
    sign = np.float32(-1 if conjugate else 1)
    pack = kernels.compiled(kernels.pack)
    pack(parts.view(np.float32), places.ravel(), sign, frames)
    words = _places_of_autos(array).ravel()
    autos = np.ascontiguousarray(payload.autocorrelations, dtype="<u4")
    of_words = words[:, np.newaxis] + np.arange(4)
    frames[:, of_words.ravel()] = autos.reshape(n, words.size).view(np.uint8)
    units = np.rint(payload.delay_ns * form.delay_fractions).astype(np.int64)
    encode = _encode_delays_1 if array == 1 else _encode_delays_2
    of_inputs = units.reshape(n, form.groups, len(form.delay_blocks), 4)
    for number, block in enumerate(form.delay_blocks):
        coded = encode(of_inputs[:, :, number])
        start = form.payload + block * form.block + form.groups_at + GROUP_DELAYS.start
        for group in range(form.groups):
            at = start + group * GROUP_BYTES
            frames[:, at : at + coded.shape[-1]] = coded[:, group]


@functools.cache
def _places(array: int) -> NDArray[np.int64]:
    """Return where correlations begin in a frame, shape (baseline, channel).

    In MUSER-I a record has the channels 2p + 1 and 2p of a baseline; in MUSER-II it has
    two consecutive baselines, and the channels run backwards.
    """
    form = FORMATS[array]
    first, second = np.triu_indices(form.inputs, k=1)
    is_useful = (first < form.antennas) & (second < form.antennas)
    baseline = np.flatnonzero(is_useful)[:, np.newaxis]
    channel = np.arange(CHANNELS)
    if array == 1:
        block, record, half = channel // 2, baseline, 1 - channel % 2
    else:
        block, record, half = CHANNELS - 1 - channel, baseline // 2, baseline % 2
    return form.payload + form.block * block + RECORD_BYTES * record + 2 * half


@functools.cache
def _places_of_autos(array: int) -> NDArray[np.int64]:
    """Return where autocorrelations begin in a frame, shape (channel, input).

    A group holds two channels of four inputs. In MUSER-I a block has all inputs; in
    MUSER-II every other four of them, and the next block has the rest.
    """
    form = FORMATS[array]
    channel = np.arange(CHANNELS)[:, np.newaxis]
    source = np.arange(form.inputs)
    if array == 1:
        block, group = channel // 2, source // 4
    else:
        channel = CHANNELS - 1 - channel
        block, group = channel - channel % 2 + source // 4 % 2, source // 8
    of_block = form.payload + form.block * block + form.groups_at
    within = GROUP_BYTES * group + 8 * (source % 4) + 4 * (channel % 2)
    places: NDArray[np.int64] = of_block + within
    return places


def _decode_delays_1(groups: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return delays of MUSER-I in units of 0.0001 ns, NaN where they are illegal."""
    numbers = groups.view("<u2").astype(np.int64)
    return _units(numbers[..., 4:], numbers[..., :4], 1).reshape(
        len(groups), FORMATS[1].inputs
    )


def _encode_delays_1(units: NDArray[np.int64]) -> NDArray[np.uint8]:
    whole, fraction = np.divmod(units, FORMATS[1].delay_fractions)
    numbers = np.concatenate([fraction, whole], axis=-1)
    return np.ascontiguousarray(numbers.astype("<u2")).view("u1")


def _decode_delays_2(
    even: NDArray[np.uint8], odd: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Return delays of MUSER-II in units of 0.00001 ns, NaN where they are illegal.

    A group has one number of 128 bits: four fractions of 17 bits from the lowest, those
    of the last input first, and four whole parts of 15 bits likewise from bit 68.
    """
    words = np.stack([even.view("<u8"), odd.view("<u8")], axis=2)
    low, high = words[..., 0], words[..., 1]
    fraction = np.stack(
        [
            (low >> np.uint64(51)) | (high << np.uint64(13)),
            *(low >> np.uint64(shift) for shift in (34, 17, 0)),
        ],
        axis=-1,
    )
    whole = np.stack([high >> np.uint64(shift) for shift in (49, 34, 19, 4)], axis=-1)
    units = _units(
        (whole & np.uint64(0x7FFF)).astype(np.int64),
        (fraction & np.uint64(0x1FFFF)).astype(np.int64),
        2,
    )
    return units.reshape(len(even), FORMATS[2].inputs)


def _encode_delays_2(units: NDArray[np.int64]) -> NDArray[np.uint8]:
    parts = np.divmod(units, FORMATS[2].delay_fractions)
    whole, fraction = (np.moveaxis(part.astype(np.uint64), -1, 0) for part in parts)
    low = fraction[0] << np.uint64(51)
    high = fraction[0] >> np.uint64(13)
    for place, shift in enumerate((34, 17, 0), start=1):
        low |= fraction[place] << np.uint64(shift)
    for place, shift in enumerate((49, 34, 19, 4)):
        high |= whole[place] << np.uint64(shift)
    return np.stack([low, high], axis=-1).astype("<u8").view("u1")


def _units(
    whole: NDArray[np.int64], fraction: NDArray[np.int64], array: int
) -> NDArray[np.float64]:
    fractions = FORMATS[array].delay_fractions
    units = (whole * fractions + fraction).astype(np.float64)
    units[fraction >= fractions] = np.nan
    return units
