"""Delays of the cables, by date."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import BEIJING_OFFSET_NS, load_array, read_table
from muser_pipeline.errors import TableError

_VALID_FROM = {
    1: {
        "2014-01-20": "c_code_2014_ns",
        "2014-10-15": "observers_201412_ns",
        "2015-10-23": "database_20151023_ns",
    },
    2: {
        "2014-09-16": "base_20140916_ns",
        "2015-10-23": "database_20151023_ns",
    },
}
"""Columns of the tables of each array, by the Beijing date from which they are valid.
The dates are those that the observers print; the first sums hold before them too."""


def static_delays_ns(array: int, time_utc_ns: int) -> NDArray[np.float64]:
    """Return the static delays that are valid at a time.

    Of MUSER-I they are subtracted from the delays of frames. The observatory's
    software has a table of MUSER-II too, and does not use it.

    Parameters
    ----------
    array : int
        1 or 2.
    time_utc_ns : int
        UTC since 1970; the latest entry not after it counts.

    Returns
    -------
    ndarray of float64, shape (input,)
        Nanoseconds; 0 for inputs that the table does not name.
    """
    if array not in _VALID_FROM:
        raise TableError(f"there is no array {array!r}: 1 is MUSER-I, 2 is MUSER-II")
    date = (np.datetime64(int(time_utc_ns) + BEIJING_OFFSET_NS, "ns")).astype("M8[D]")
    columns = list(_VALID_FROM[array].items())
    chosen = columns[0][1]
    for valid_from, column in columns:
        if np.datetime64(valid_from) <= date:
            chosen = column
    delays = np.zeros(load_array(array).inputs)
    for row in read_table(f"static_delay_{array}"):
        delays[int(row["input"])] = float(row[chosen] or 0)
    return delays
