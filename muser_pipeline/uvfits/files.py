"""Which files are made of visibilities, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from muser_pipeline.errors import FrameValueError
from muser_pipeline.geometry import EarthOrientation, Source, follow
from muser_pipeline.integration import Visibilities, integrate, single_frames
from muser_pipeline.raw import Frames
from muser_pipeline.uvfits.writer import UvfitsWriter, WrittenFile

Split = Literal["frame", "integration", "band", "range"]


def split(
    frames: Frames, by: Split, interval_ns: int | None = None
) -> Iterator[Visibilities]:
    """Yield what goes into each file.

    Parameters
    ----------
    frames : Frames
        Corrected and calibrated, in order of time.
    by : {"frame", "integration", "band", "range"}
        One file for each frame; for each average, with all bands and hands; for each
        band, with all averages; or one for everything.
    interval_ns : int, optional
        Length of an average; by default each loop is one. Single frames have none.
    """
    if by == "frame":
        if interval_ns is not None:
            raise FrameValueError("files of single frames have no integration")
        yield from single_frames(frames)
        return
    averages = integrate(frames, interval_ns)
    if by == "integration":
        for n in range(len(averages)):
            yield averages.at_times(slice(n, n + 1))
    elif by == "band":
        for band in averages.bands.tolist():
            yield averages.in_band(band)
    else:
        yield averages


def name_of(visibilities: Visibilities) -> str:
    """Return the name of a file, which is its own for every content.

    Such as ``MUSER-I_20151101T040849.354161240Z_b0-3_RR-LL_n40.uvfits``: array, UTC of
    the first frame, bands, polarisations and, of averages, how many frames there are.
    """
    array = visibilities.describe().name
    time = str(np.datetime64(int(visibilities.start_utc_ns[0]), "ns"))
    time = time.replace("-", "").replace(":", "")
    bands = visibilities.bands.tolist()
    among = f"b{bands[0]}" if len(bands) == 1 else f"b{bands[0]}-{bands[-1]}"
    if bands != list(range(bands[0], bands[-1] + 1)):
        among = "b" + "+".join(map(str, bands))
    hands = "-".join(visibilities.polarizations)
    frames = int(visibilities.frames.sum())
    of = f"_n{frames}" if frames > 1 else ""
    return f"{array}_{time}Z_{among}_{hands}{of}.uvfits"


def write_files(
    frames: Frames,
    folder: Path,
    source: Source,
    by: Split,
    interval_ns: int | None = None,
    orientation: EarthOrientation | None = None,
) -> list[WrittenFile]:
    """Write the files of frames.

    Parameters
    ----------
    frames : Frames
        Corrected and calibrated, in order of time.
    folder : Path
        Where the files go; it is there.
    source : Source
        The phase centre.
    by, interval_ns
        See `split`.
    orientation : EarthOrientation, optional
        UT1 and polar motion; the packaged table by default.

    Returns
    -------
    list of WrittenFile
        In order of time and band.
    """
    if not len(frames):
        return []
    writer = UvfitsWriter(frames.array, orientation)
    site = frames.describe().site
    contents = list(split(frames, by, interval_ns))
    times = np.concatenate([content.time_utc_ns for content in contents])
    track = follow(source, times, site, orientation)
    written = []
    start = 0
    for content in contents:
        part = track.select(slice(start, start + len(content)))
        start += len(content)
        written.append(writer.write(folder / name_of(content), content, part))
    return written
