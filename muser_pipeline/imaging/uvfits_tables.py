"""The tables of a UVFITS file: times, frequencies, source.

Source: AIPS memo 117, Greisen 2012 (AIPS FITS file format).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Unreadable(Exception):
    """What is wrong with a file, without its name."""


class Tables:
    """What the tables behind the groups say.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        from astropy.io import fits

        self._antennas: dict[str, Any] = {}
        self._frequencies: Any = None
        self._sources: Any = None
        with fits.open(path, memmap=False) as units:
            for unit in units[1:]:
                if unit.name == "AIPS AN" and not self._antennas:
                    self._antennas = dict(unit.header)
                elif unit.name == "AIPS FQ":
                    self._frequencies = unit.data
                elif unit.name == "AIPS SU":
                    self._sources = unit.data

    def ahead_of_utc_s(self) -> float:
        """Return by how much the time of the file is ahead of UTC."""
        ahead = float(self._antennas.get("DATUTC", 0.0) or 0.0)
        system = str(self._antennas.get("TIMESYS", "UTC")).strip().upper()
        if not ahead and system in ("IAT", "TAI"):
            ahead = float(self._antennas.get("IATUTC", 0.0) or 0.0)
        return ahead

    def bands(
        self, count: int, setup: int, step: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the offset of each IF and the step of its channels, in Hz."""
        table = self._frequencies
        if table is None or not len(table):
            if count > 1:
                raise Unreadable(f"has {count} IFs but no table AIPS FQ")
            return np.zeros(1), np.full(1, step)
        chosen = np.flatnonzero(np.asarray(table["FRQSEL"]) == setup)
        row = table[int(chosen[0]) if len(chosen) else 0]
        offsets, widths = (
            np.atleast_1d(np.asarray(row[name], dtype=np.float64))
            for name in ("IF FREQ", "CH WIDTH")
        )
        if len(offsets) < count or len(widths) < count:
            raise Unreadable(f"has {count} IFs but {len(offsets)} in table AIPS FQ")
        offsets, widths = offsets[:count], widths[:count]
        if "SIDEBAND" in table.names:
            sideband = np.atleast_1d(np.asarray(row["SIDEBAND"]))[:count]
            # some writers count downwards in the width, some in the sideband, some both
            widths = np.where(sideband < 0, -np.abs(widths), widths)
        return offsets, np.where(widths == 0, step, widths)

    def centre(
        self, source: NDArray[np.float64] | None
    ) -> tuple[float, float, float] | None:
        """Return right ascension, declination (deg) and epoch, if a table has them."""
        table = self._sources
        if table is None or not len(table):
            return None
        row = table[0]
        if source is not None and len(table) > 1:
            numbers = np.asarray(table["ID. NO." if "ID. NO." in table.names else 0])
            chosen = np.flatnonzero(numbers == int(source[0]))
            if not len(chosen):
                raise Unreadable(f"its table AIPS SU lacks source {int(source[0])}")
            row = table[int(chosen[0])]
        return float(row["RAEPO"]), float(row["DECEPO"]), float(row["EPOCH"])
