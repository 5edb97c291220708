"""Raw frames made and written, bit for bit what the reader reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from muser_pipeline.array import CHANNELS, load_array
from muser_pipeline.errors import FrameValueError
from muser_pipeline.raw.clock import encode_time
from muser_pipeline.raw.format import (
    ARRAY_TAGS,
    BANDWIDTH_25_MHZ,
    FORMATS,
    FREQUENCY_SWITCHING_OFF,
    FREQUENCY_SWITCHING_ON,
    HEADER,
    HEADER_BYTES,
    LOOP_WORDS,
    OLD_LOOP_CODE,
    POLARIZATION_CODES,
    QUANTISATION_2_BIT,
    SWITCHED_OFF,
    SWITCHED_ON,
    SYNC,
    TARGETS,
    WORDS,
)
from muser_pipeline.raw.frames import LEFT, RIGHT, UNKNOWN, Frames
from muser_pipeline.raw.meaning import HANDS, read_codes
from muser_pipeline.raw.payload import Payload, encode_payload

Mode = Literal["loop", "fixed"]


def make_header(
    array: int,
    band: ArrayLike,
    polarization: ArrayLike,
    *,
    mode: Mode = "loop",
    layout: Literal["old", "new"] = "new",
    target: str = "sun",
    fringes_stopped: bool = True,
) -> dict[str, NDArray[Any]]:
    """Return the header words of frames, those of the time left at 0.

    Parameters
    ----------
    array : int
        1 or 2.
    band : array of int, shape (n,)
        Bands.
    polarization : array of str, shape (n,)
        ``"LL"`` or ``"RR"``; in an old loop, which does not tell, anything.
    mode : {"loop", "fixed"}, optional
        Whether the array goes through all bands.
    layout : {"old", "new"}, optional
        Where MUSER-I puts the code of a loop; the old one has no target and no tag.
    target : {"sun", "satellite", "swan"}, optional
        What is observed.
    fringes_stopped : bool, optional
        The hardware has compensated delays and fringes.

    Raises
    ------
    FrameValueError
        When a band, a polarisation or a target has no code.
    """
    description = load_array(array)
    bands = np.asarray(band, dtype=np.int64)
    n = len(bands)
    if np.any((bands < 0) | (bands >= len(description.bands))):
        raise FrameValueError(
            f"{description.name} has the bands 0 to {len(description.bands) - 1}"
        )
    is_old_loop = mode == "loop" and layout == "old" and array == 1
    hands = np.asarray(polarization)
    if not is_old_loop and not np.isin(hands, (LEFT, RIGHT)).all():
        raise FrameValueError(f"a frame is {LEFT} or {RIGHT}")
    hand = (hands == RIGHT).astype(np.int64)
    codes = {name: code for code, name in TARGETS.items()}
    if target not in codes:
        raise FrameValueError(f"target is one of {', '.join(codes)}, not {target!r}")
    switch = SWITCHED_ON if fringes_stopped else SWITCHED_OFF
    is_loop = mode == "loop"
    same = {
        "after_sync": 0,
        "time": 0,
        "frequency_switching": (
            FREQUENCY_SWITCHING_ON if is_loop else FREQUENCY_SWITCHING_OFF
        ),
        "bandwidth": BANDWIDTH_25_MHZ,
        "quantisation": QUANTISATION_2_BIT,
        "delay": switch,
        "fringe": switch,
        "polarization_code": LOOP_WORDS[array],
        "band_code": LOOP_WORDS[array],
        "target": 0 if layout == "old" else codes[target],
        "array_tag": 0 if layout == "old" else ARRAY_TAGS[array],
    }
    header: dict[str, NDArray[Any]] = {
        name: np.full(n, value, dtype=HEADER[name]) for name, value in same.items()
    }
    header["loop_code"] = np.zeros(n, dtype=np.uint16)
    if is_old_loop:
        old = [each.old_loop_code for each in description.bands]
        header["loop_code"] = np.array(old, dtype=np.uint16)[bands]
    elif is_loop:
        loop_codes = np.array([each.loop_codes for each in description.bands])
        header["loop_code"] = loop_codes[bands, hand].astype(np.uint16)
    else:
        fixed = [each.fixed_code for each in description.bands]
        header["band_code"] = np.array(fixed, dtype=np.uint16)[bands]
        header["polarization_code"] = np.array(POLARIZATION_CODES, np.uint16)[hand]
    return header


def make_frames(
    array: int,
    time_utc_ns: ArrayLike,
    band: ArrayLike,
    polarization: ArrayLike,
    visibilities: ArrayLike,
    *,
    autocorrelations: ArrayLike | None = None,
    delay_ns: ArrayLike | None = None,
    header: dict[str, NDArray[Any]] | None = None,
    layout: Literal["old", "new"] = "new",
    is_conjugated: bool | None = None,
) -> Frames:
    """Return frames from what they are to hold.

    Parameters
    ----------
    array : int
        1 or 2.
    time_utc_ns, band, polarization, visibilities
        As in `Frames`.
    autocorrelations, delay_ns : array, optional
        As in `Frames`; zeros by default.
    header : dict, optional
        As `make_header` makes it, which is called by default.
    layout : {"old", "new"}, optional
        Of the header.
    is_conjugated : bool, optional
        The visibilities are conjugates of what is recorded; by default for MUSER-II.
    """
    description = load_array(array)
    times = np.asarray(time_utc_ns, dtype=np.int64)
    n = len(times)
    bands = np.asarray(band, dtype=np.int64)
    if header is None:
        header = make_header(array, bands, polarization, layout=layout)
    shape = (n, CHANNELS, description.inputs)
    if autocorrelations is None:
        autocorrelations = np.zeros(shape, dtype=np.uint32)
    if delay_ns is None:
        delay_ns = np.zeros((n, description.inputs))
    visibilities = np.asarray(visibilities, dtype=np.complex64)
    return Frames(
        array=array,
        layout=layout,
        time_utc_ns=times,
        band=bands,
        polarization=np.asarray(polarization, dtype="U2"),
        frequency_hz=description.channel_centres_hz(bands),
        visibilities=visibilities,
        autocorrelations=np.asarray(autocorrelations, dtype=np.uint32),
        delay_ns=np.asarray(delay_ns, dtype=np.float64),
        flags=np.zeros(visibilities.shape, dtype=bool),
        header={**header, "time": encode_time(times)},
        number=np.arange(n, dtype=np.int64),
        is_conjugated=array == 2 if is_conjugated is None else is_conjugated,
    )


def encode_frames(
    frames: Frames, fill: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Return frames as bytes.

    Visibilities are rounded, and clipped to 24 bits. The header is written as it is in
    ``frames.header``, except for the time.

    Parameters
    ----------
    frames : Frames
        What to write.
    fill : ndarray of uint8, shape (n, size), optional
        What stands in the bytes without a meaning and in the correlations of idle
        inputs; zeros by default.

    Returns
    -------
    ndarray of uint8, shape (n, size)

    Raises
    ------
    FrameValueError
        When a value has no place in a frame, or when the header means another band or
        polarisation than the frames have.
    """
    form = FORMATS[frames.array]
    _check(frames)
    shape = (len(frames), form.size)
    coded = np.zeros(shape, dtype=np.uint8) if fill is None else fill.copy()
    encode_payload(
        Payload(frames.visibilities, frames.autocorrelations, frames.delay_ns),
        frames.array,
        frames.is_conjugated,
        coded,
    )
    heads = np.ascontiguousarray(coded[:, :HEADER_BYTES]).view(HEADER)[:, 0]
    heads["sync"] = SYNC
    for name in WORDS:
        heads[name] = frames.header[name]
    heads["time"] = encode_time(frames.time_utc_ns)
    code = frames.header["loop_code"]
    if frames.array == 2:
        heads["loop_code_2"] = code
    elif frames.layout == "new":
        heads["loop_code_1"] = code
    else:
        old = np.asarray(code, dtype="<u2")[:, np.newaxis]
        coded[:, OLD_LOOP_CODE : OLD_LOOP_CODE + 2] = old.view(np.uint8)
    coded[:, :HEADER_BYTES] = heads.view(np.uint8).reshape(len(frames), HEADER_BYTES)
    return coded


def write_raw(path: str | Path, frames: Frames) -> None:
    """Write a file of raw frames.

    Parameters
    ----------
    path : str or Path
        The file, which is replaced.
    frames : Frames
        What to write, see `encode_frames`.
    """
    Path(path).write_bytes(encode_frames(frames).tobytes())


def _check(frames: Frames) -> None:
    form = FORMATS[frames.array]
    if not np.isfinite(frames.visibilities).all():
        raise FrameValueError("a visibility is not finite")
    units = np.rint(frames.delay_ns * form.delay_fractions)
    limit = (form.largest_delay_ns + 1) * form.delay_fractions
    if not ((units >= 0) & (units < limit)).all():
        raise FrameValueError(
            f"a delay is not between 0 and {form.largest_delay_ns + 1} ns"
        )
    said = read_codes(frames.header, load_array(frames.array), frames.layout)
    hands = HANDS[said.hand]
    tells = hands != UNKNOWN
    if np.any(said.band != frames.band) or np.any(
        (hands != frames.polarization)[tells]
    ):
        raise FrameValueError("the header means another band or polarisation")
