"""What a calibrator looked like, by band, hand, baseline and channel."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import CHANNELS, load_array, read_table
from muser_pipeline.errors import TableError
from muser_pipeline.raw import LEFT, RIGHT

HANDS = (LEFT, RIGHT)
"""Polarisations in the order of tables."""


@dataclass(frozen=True, eq=False)
class CalibrationTable:
    """Visibilities that a point source of flux 1 at the phase centre would have.

    Attributes
    ----------
    array : int
        1 or 2.
    values : ndarray of complex128, shape (band, 2, baseline, 16)
        Left hand, then right; channels ascending in frequency, conjugated as frames
        in memory are. 0 and NaN are missing.
    source : str
        The calibrator.
    time_utc_ns : int
        When it was observed; 0 if that is not known.
    is_delay_corrected : bool
        Whether delays were corrected in software before. Files of the observatory do
        not say; a table serves frames that were treated alike.
    """

    array: int
    values: NDArray[np.complex128]
    source: str = ""
    time_utc_ns: int = 0
    is_delay_corrected: bool = False

    def __post_init__(self) -> None:
        expected = table_shape(self.array)
        if self.values.shape != expected:
            raise TableError(
                f"a table of array {self.array} has the shape {expected}, "
                f"not {self.values.shape}"
            )

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Where there is a value: finite and not 0."""
        known: NDArray[np.bool_] = np.isfinite(self.values) & (self.values != 0)
        return known


def table_shape(array: int) -> tuple[int, int, int, int]:
    """Return the shape of the tables of an array: (band, 2, baseline, 16)."""
    described = load_array(array)
    return len(described.bands), len(HANDS), described.baselines, CHANNELS


def read_calibration(
    path: Path,
    array: int,
    *,
    band: int | None = None,
    is_conjugated: bool = True,
) -> CalibrationTable:
    """Read a ``.cal`` file of the observatory, or of `write_calibration`.

    A file has no header: complex128, little-endian, of all bands and hands (4 or 33,
    2, baselines, 16), or of one fixed band (baselines, 16), which then serves both
    hands. Channels of MUSER-II are in the file as they are recorded, descending. What
    else is known stands in a file beside it, if there is one: the same name and
    ``.json``.

    Parameters
    ----------
    path : Path
        The file.
    array : int
        1 or 2.
    band : int, optional
        The band of a file of one fixed band.
    is_conjugated : bool, optional
        Whether values of MUSER-II are the conjugates of what was recorded, as in
        files that were corrected for delays.

    Raises
    ------
    TableError
        When the size of the file is neither, or the band of a fixed one is missing.
    """
    shape = table_shape(array)
    content = np.fromfile(path, dtype="<c16")
    if path.stat().st_size == 16 * int(np.prod(shape)):
        values = content.reshape(shape)
    elif path.stat().st_size == 16 * int(np.prod(shape[2:])):
        if band is None or not 0 <= band < shape[0]:
            raise TableError(f"{path} is of one band: say which, 0 to {shape[0] - 1}")
        values = np.full(shape, np.nan, dtype=np.complex128)
        values[band] = content.reshape(shape[2:])
    else:
        raise TableError(
            f"{path} has {path.stat().st_size} bytes; a table of array {array} has "
            f"{16 * int(np.prod(shape))}, one of a fixed band "
            f"{16 * int(np.prod(shape[2:]))}"
        )
    if array == 2:
        values = values[..., ::-1]
        if not is_conjugated:
            values = values.conj()
    return CalibrationTable(
        array, np.array(values, dtype=np.complex128), **_read_beside(path)
    )


def write_calibration(path: Path, table: CalibrationTable) -> None:
    """Write a table as the observatory does, and beside it what else is known of it.

    Both files are written beside their places and renamed. Missing values become NaN.
    """
    values = np.where(table.is_known, table.values, np.nan)
    if table.array == 2:
        values = values[..., ::-1]
    beside = {
        "source": table.source,
        "time_utc_ns": table.time_utc_ns,
        "is_delay_corrected": table.is_delay_corrected,
    }
    text = json.dumps(beside, indent=1, sort_keys=True) + "\n"
    _replace(_beside(path), text.encode())
    _replace(path, np.ascontiguousarray(values, dtype="<c16").tobytes())


def phases_of_20151101() -> CalibrationTable:
    """Return the phases of MUSER-I that the observatory uses for 2015-11-01 (UTC).

    One phase for each baseline, the same for all channels, bands and hands.
    """
    phases = np.array([float(r["phase_rad"]) for r in read_table("phase_20151101")])
    values = np.broadcast_to(np.exp(1j * phases)[:, np.newaxis], table_shape(1)).astype(
        np.complex128
    )
    time = np.datetime64("2015-11-01", "ns").astype(np.int64)
    return CalibrationTable(1, values, time_utc_ns=int(time))


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_beside(path: Path) -> dict[str, Any]:
    beside = _beside(path)
    if not beside.exists():
        return {}
    try:
        found = json.loads(beside.read_text())
        return {
            "source": str(found["source"]),
            "time_utc_ns": int(found["time_utc_ns"]),
            "is_delay_corrected": bool(found["is_delay_corrected"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise TableError(f"{beside} does not describe a table: {error!r}") from None


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
