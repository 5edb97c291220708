"""An image as a set of files that are there whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from muser_pipeline.imaging.image import Image


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
    record: dict[str, object]


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
        Of the files, without an ending.
    planes : bool, optional
        Whether the FITS file has the dirty image, the beam, the model and the residual
        too.

    Raises
    ------
    OSError
        When they cannot be written, such as for a full disk; then none of them is
        there, and older ones of this name are as they were.
    """
    raise NotImplementedError
