"""The tables of the array: CSV files with their units and source at the head."""

from __future__ import annotations

import csv
import importlib.resources

from muser_pipeline.errors import TableError

COMMENT = "#"


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of a packaged table, by the names of its columns.

    Parameters
    ----------
    name : str
        Such as ``"antennas_1"``; the file's name without its ending.

    Returns
    -------
    list of dict
        The cells as they are written; units are in the names of the columns.

    Raises
    ------
    TableError
        When there is no such table.
    """
    folder = importlib.resources.files(__name__)
    path = folder / f"{name}.csv"
    if not path.is_file():
        known = sorted(
            item.name.removesuffix(".csv")
            for item in folder.iterdir()
            if item.name.endswith(".csv")
        )
        raise TableError(f"there is no table {name!r}, but {', '.join(known)}")
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if line[:1] != COMMENT))
