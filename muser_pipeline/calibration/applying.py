"""Calibration tables made from frames, and frames corrected by tables."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from muser_pipeline.array import BEIJING_OFFSET_NS
from muser_pipeline.calibration.tables import HANDS, CalibrationTable, table_shape
from muser_pipeline.errors import FrameValueError
from muser_pipeline.integration_kernels import add_frames
from muser_pipeline.raw import Frames
from muser_pipeline.raw.kernels import compiled


def apply_calibration(
    frames: Frames, table: CalibrationTable, *, amplitude: bool = False
) -> Frames:
    """Return frames with the phases of a calibrator taken away.

    With C the table's value of band, hand, baseline and channel::

        V' = V conj(C) / |C|        phases alone, as the observatory does
        V' = V / C                  with amplitudes, in units of the calibrator's flux

    Source: the observatory's pipeline (museros, 2017) for the first.

    Parameters
    ----------
    frames : Frames
        With delays corrected if the table's were.
    table : CalibrationTable
        Of the same array.
    amplitude : bool, optional
        Whether amplitudes are corrected too.

    Returns
    -------
    Frames
        What the table does not know, and frames of unknown hand, is flagged.

    Raises
    ------
    FrameValueError
        When the table is of the other array.
    """
    if frames.array != table.array:
        raise FrameValueError(
            f"a table of array {table.array} for frames of array {frames.array}"
        )
    known = table.is_known
    safe = np.where(known, table.values, 1)
    factors = 1 / safe if amplitude else safe.conj() / np.abs(safe)
    factors = np.where(known, factors, 0).astype(np.complex64)
    visibilities = np.empty_like(frames.visibilities)
    flags = frames.flags.copy()
    is_unknown = ~np.isin(frames.polarization, HANDS)
    visibilities[is_unknown] = frames.visibilities[is_unknown]
    flags[is_unknown] = True
    for band, hand, members in slots_of(frames):
        for n in members:
            np.multiply(
                frames.visibilities[n], factors[band, hand], out=visibilities[n]
            )
        if not known[band, hand].all():
            flags[members] |= ~known[band, hand]
    return frames.replace(visibilities=visibilities, flags=flags)


def make_calibration(
    frames: Frames,
    *,
    source: str = "",
    model: ArrayLike = 1.0,
    is_delay_corrected: bool = True,
) -> CalibrationTable:
    """Return the table that frames of a calibrator give.

    Each value is the mean of what is not flagged in the frames of its band and hand,
    divided by the model.

    Parameters
    ----------
    frames : Frames
        Of a calibrator in the phase centre, delays corrected.
    source : str, optional
        Its name.
    model : array_like, optional
        Visibilities of the calibrator without the instrument, of a shape that goes
        with (band, 2, baseline, 16); the flux, of a point source.
    is_delay_corrected : bool, optional
        Whether delays were corrected in software or hardware.

    Raises
    ------
    FrameValueError
        When there is no frame.
    """
    if not len(frames):
        raise FrameValueError("a table cannot be made without frames")
    shape = table_shape(frames.array)
    sums = np.zeros((shape[0] * 2, *shape[2:]), dtype=np.complex64)
    counts = np.zeros(sums.shape, dtype=np.float32)
    add = compiled(add_frames)
    for band, hand, members in slots_of(frames):
        to = np.full(len(members), 2 * band + hand)
        add(frames.visibilities, frames.flags, members, to, sums, counts)
    values = np.full(shape, np.nan, dtype=np.complex128)
    np.divide(
        sums.reshape(shape),
        counts.reshape(shape) * np.asarray(model),
        out=values,
        where=counts.reshape(shape) > 0,
    )
    return CalibrationTable(
        frames.array,
        values,
        source=source,
        time_utc_ns=int(frames.time_utc_ns[0]),
        is_delay_corrected=is_delay_corrected,
    )


def table_name(table: CalibrationTable, number: int = 0) -> str:
    """Return the name of a file, ``20151101-0.cal``: Beijing date and number."""
    time = np.datetime64(table.time_utc_ns + BEIJING_OFFSET_NS, "ns")
    return f"{str(time.astype('M8[D]')).replace('-', '')}-{number}.cal"


def slots_of(frames: Frames) -> list[tuple[int, int, NDArray[Any]]]:
    """Return band, number of the hand and frames, of each band and hand there is."""
    found = []
    for band in np.unique(frames.band).tolist():
        for number, hand in enumerate(HANDS):
            is_here = (frames.band == band) & (frames.polarization == hand)
            if is_here.any():
                found.append((band, number, np.flatnonzero(is_here)))
    return found
