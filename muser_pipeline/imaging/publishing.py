"""An image as a set of files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.fitsfile import fits_bytes
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.picture import draw
from muser_pipeline.imaging.record import record_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,180}")


@dataclass(frozen=True)
class Published:
    """Where an image was put.

    Attributes
    ----------
    fits, png, thumbnail, json : Path
        Its files.
    record : dict
        What the JSON file says.
    """

    fits: Path
    png: Path
    thumbnail: Path
    json: Path
    record: dict[str, Any]


def publish(image: Image, folder: Path, name: str, *, planes: bool = True) -> Published:
    """Write all files of an image into a folder, which is made if there is none.

    Each is written beside and renamed. The JSON record comes last: where it is, the
    others are.

    Parameters
    ----------
    image : Image
        What is written.
    folder : Path
        Where to.
    name : str
        Of the files, without an ending: letters, digits, dots, dashes, plus signs.
    planes : bool, optional
        Whether the FITS file has the dirty image, the beam, the model and the residual
        too.

    Returns
    -------
    Published
        The files. In the record ``fits``, ``png``, ``thumbnail`` and ``json`` are
        their names, and ``timings`` has what ``fits`` and ``picture`` took.

    Raises
    ------
    OSError
        When they cannot be written, such as for a full disk. No file is left half
        written, and none of this image stays.
    ImagingError
        When the name is none for a file, with reason ``"options"``.
    """
    if not _NAME.fullmatch(name):
        raise ImagingError("options", f"{name!r} is no name for files")
    start = time.perf_counter()
    content = {".fits": fits_bytes(image, planes=planes)}
    middle = time.perf_counter()
    pictures = draw(image)
    content[".png"], content["_thumb.png"] = pictures.large, pictures.small
    record = record_of(image)
    record["timings"]["fits"] = middle - start
    record["timings"]["picture"] = time.perf_counter() - middle
    keys = {"fits": ".fits", "png": ".png", "thumbnail": "_thumb.png", "json": ".json"}
    record.update({key: name + ending for key, ending in keys.items()})
    content[".json"] = (json.dumps(record, allow_nan=False) + "\n").encode()
    paths = {key: folder / (name + ending) for key, ending in keys.items()}
    write_together({folder / (name + end): data for end, data in content.items()})
    return Published(**paths, record=record)


def write_together(files: dict[Path, bytes]) -> None:
    """Write files beside their places, and rename them in this order when all are.

    Parameters
    ----------
    files : dict of Path to bytes
        Their content. The last says that all are there, and is taken away first.

    Raises
    ------
    OSError
        When one cannot be written or renamed; none of them is then left.
    """
    beside = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in files}
    renamed: list[Path] = []
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            beside[path].write_bytes(content)
        list(files)[-1].unlink(missing_ok=True)
        for path in files:
            beside[path].replace(path)
            renamed.append(path)
    except BaseException:
        for path in [*beside.values(), *renamed]:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
