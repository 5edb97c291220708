"""Decoded frames: what every later step of the pipeline works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import Array, load_array
from muser_pipeline.errors import FrameValueError
from muser_pipeline.raw.format import TARGETS

LEFT = "LL"
RIGHT = "RR"
UNKNOWN = "??"

_PER_FRAME = (
    *("time_utc_ns", "band", "polarization", "frequency_hz", "visibilities"),
    *("autocorrelations", "delay_ns", "flags", "number"),
)


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of one array, n of them, in the order in which they were read.

    Treat the arrays as read-only; a step that changes something returns new Frames,
    see `replace`.

    Attributes
    ----------
    array : int
        1 for MUSER-I, 2 for MUSER-II.
    layout : str
        ``"old"`` or ``"new"``.
    time_utc_ns : ndarray of int64, shape (n,)
        Nanoseconds since 1970-01-01 UTC. Whether the instrument stamps the start, the
        middle or the end of the 3.125 ms is not documented.
    band : ndarray of int64, shape (n,)
        From 0.
    polarization : ndarray of str, shape (n,)
        ``"LL"``, ``"RR"``, or ``"??"`` where the frame does not tell.
    frequency_hz : ndarray of float64, shape (n, 16)
        Centres of the channels, ascending.
    visibilities : ndarray of complex64, shape (n, baseline, 16)
        Correlations of the 780 or 1770 baselines between antennas, as `Array` orders
        them, in the correlator's units.
    autocorrelations : ndarray of uint32, shape (n, 16, input)
        Of all 44 or 64 inputs, channels ascending in frequency.
    delay_ns : ndarray of float64, shape (n, input)
        Delays that the system applied or would apply; NaN where the frame has an
        illegal value.
    flags : ndarray of bool, shape (n, baseline, 16)
        True where a visibility must not be used.
    header : mapping of str to ndarray of int, shape (n,)
        The words of the frame header as they are written, by name.
    number : ndarray of int64, shape (n,)
        Place of the frame in its file, from 0, skipped ones counted.
    is_conjugated : bool
        The visibilities are the conjugates of the recorded ones (MUSER-II, whose
        spectrum is inverted).
    """

    array: int
    layout: str
    time_utc_ns: NDArray[np.int64]
    band: NDArray[np.int64]
    polarization: NDArray[np.str_]
    frequency_hz: NDArray[np.float64]
    visibilities: NDArray[np.complex64]
    autocorrelations: NDArray[np.uint32]
    delay_ns: NDArray[np.float64]
    flags: NDArray[np.bool_]
    header: Mapping[str, NDArray[Any]]
    number: NDArray[np.int64]
    is_conjugated: bool

    def __post_init__(self) -> None:
        array = self.describe()
        n = len(self.time_utc_ns)
        shapes = {
            "frequency_hz": (n, 16),
            "visibilities": (n, array.baselines, 16),
            "autocorrelations": (n, 16, array.inputs),
            "delay_ns": (n, array.inputs),
            "flags": (n, array.baselines, 16),
        }
        for name in _PER_FRAME:
            expected = shapes.get(name, (n,))
            found = getattr(self, name).shape
            if found != expected:
                raise FrameValueError(
                    f"{name} of {n} frames of {array.name} has the shape {found}, "
                    f"but {expected} is expected"
                )

    def __len__(self) -> int:
        return len(self.time_utc_ns)

    def describe(self) -> Array:
        """Return the description of the array that observed the frames."""
        return load_array(self.array)

    @property
    def target(self) -> NDArray[np.str_]:
        """What was observed: ``"sun"``, ``"satellite"``, ``"swan"`` or ``"other"``.

        Frames of the old layout do not say; the Sun is meant.
        """
        words = self.header["target"]
        if self.layout == "old":
            return np.full(len(self), "sun")
        return np.array([TARGETS.get(int(word), "other") for word in words], dtype=str)

    def select(self, which: slice | NDArray[Any]) -> Frames:
        """Return some of the frames.

        Parameters
        ----------
        which : slice or ndarray of int or bool
            As numpy indexes the first axis.
        """
        chosen: dict[str, Any] = {
            name: getattr(self, name)[which] for name in _PER_FRAME
        }
        header = {name: words[which] for name, words in self.header.items()}
        return replace(self, header=header, **chosen)

    def replace(self, **changes: Any) -> Frames:
        """Return Frames in which the named attributes are others."""
        return replace(self, **changes)

    @classmethod
    def concatenate(cls, parts: list[Frames]) -> Frames:
        """Return the frames of several parts one after the other.

        Raises
        ------
        FrameValueError
            When there is no part, or when parts are of different arrays, layouts or
            conjugation.
        """
        if not parts:
            raise FrameValueError("there are no frames to concatenate")
        if len(parts) == 1:
            return parts[0]
        same = {f.name for f in fields(cls)} - {*_PER_FRAME, "header"}
        for name in sorted(same):
            values = {getattr(part, name) for part in parts}
            if len(values) > 1:
                raise FrameValueError(f"frames differ in {name}: {sorted(values)}")
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in _PER_FRAME
        }
        header = {
            name: np.concatenate([part.header[name] for part in parts])
            for name in parts[0].header
        }
        return replace(parts[0], header=header, **joined)
