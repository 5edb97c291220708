"""From the raw frames of an item to what images are made of, in two steps.

The manager reads the headers of an item and cuts it into slices: the frames of one
band, still coded, and the images that are to be made of them. A worker decodes the
frames of a slice, corrects, flags, calibrates and averages them, and adds where the
Sun stood and what the baselines looked like at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import radians
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.array.quiet_sun import RADII, profiles_k
from muser_pipeline.calibration import (
    CalibrationTable,
    apply_calibration,
    correct_delays,
    dead_inputs,
    flag_inputs,
    flag_outliers,
    known_bad_inputs,
    read_calibration,
    saturated_inputs,
)
from muser_pipeline.geometry import (
    Sun,
    Track,
    follow,
    heliographic,
    source_named,
    uvw_m,
)
from muser_pipeline.imaging.disk import RadialProfile
from muser_pipeline.imaging.options import PolarizationName, SunOptions
from muser_pipeline.imaging.visibilities import Snapshot
from muser_pipeline.integration import Integrator, Visibilities
from muser_pipeline.raw import Contents, Frames, RawFile, SkippedFrame, received_raw
from muser_pipeline.raw.format import FORMATS
from muser_pipeline.raw.meaning import HANDS
from muser_pipeline.raw.reader import RECEIVED
from muser_pipeline.realtime.index import ImageRecord
from muser_pipeline.realtime.options import ARCSEC_RAD, HANDS_OF, ImageRequest

BLOCK_FRAMES = 64
"""Frames that are decoded at a time: 7 MB of MUSER-I, 17 MB of MUSER-II."""
_KNOWN_HANDS = 2
"""Of the codes of hands, those below it."""
_ONE_AVERAGE_NS = 1 << 62


@dataclass(frozen=True, eq=False)
class Item:
    """The frames of an item, as their headers tell.

    Attributes
    ----------
    data : bytes
        The frames as they came.
    contents : Contents
        What their headers say.
    is_conjugated : bool
        Whether visibilities are to be conjugated.
    """

    data: bytes
    contents: Contents
    is_conjugated: bool

    @property
    def array(self) -> int:
        """1 or 2."""
        return self.contents.array

    @property
    def time_utc_ns(self) -> NDArray[np.int64]:
        """Times of the frames."""
        return self.contents.time_utc_ns

    @property
    def skipped(self) -> tuple[SkippedFrame, ...]:
        """Frames that cannot be read."""
        return self.contents.skipped


@dataclass(frozen=True, eq=False)
class Slice:
    """The frames of one band, still coded, and the images that are made of them.

    Attributes
    ----------
    array : int
        1 or 2.
    layout : str
        Of the frames, ``"old"`` or ``"new"``.
    is_conjugated : bool
        Whether visibilities are to be conjugated.
    band : int
        From 0.
    time_utc_ns : int
        Mean time of all frames of the band: that of its images.
    images : sequence of (str, int, int)
        Polarisation, first channel and number of channels of each image.
    note : str
        What is made otherwise than asked for, and why.
    frames : ndarray of uint8, shape (n * bytes of a frame,)
        Back to back.
    times, hands : ndarray of int64, shape (n,)
        Of the frames.
    header : mapping of str to ndarray, shape (n,)
        Words of their headers.
    """

    array: int
    layout: str
    is_conjugated: bool
    band: int
    time_utc_ns: int
    images: Sequence[tuple[PolarizationName, int, int]]
    note: str
    frames: NDArray[np.uint8]
    times: NDArray[np.int64]
    hands: NDArray[np.int64]
    header: Mapping[str, NDArray[Any]]

    def plain(self) -> dict[str, Any]:
        """Return the attributes by name, as a piece carries them."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def frequency_hz(self, first: int, channels: int) -> float:
        """Return the middle of some channels."""
        centres = load_array(self.array).channel_centres_hz(self.band)
        return float(centres[first : first + channels].mean())

    def raw(self) -> RawFile:
        """Return the frames, to be decoded."""
        n = len(self.times)
        places = np.arange(n, dtype=np.int64)
        contents = Contents(
            array=self.array,
            layout=self.layout,
            number=places,
            offset=places * FORMATS[self.array].size,
            time_utc_ns=self.times,
            band=np.full(n, self.band, dtype=np.int64),
            hand=self.hands,
            is_loop=np.zeros(n, dtype=np.bool_),
            header=self.header,
            skipped=(),
        )
        return RawFile(RECEIVED, self.frames.tobytes(), contents, self.is_conjugated)


def read_item(data: bytes, array: int, request: ImageRequest) -> Item:
    """Read the headers of an item.

    Parameters
    ----------
    data : bytes
        Frames back to back.
    array : int
        1 or 2.
    request : ImageRequest
        Which layout they have.

    Raises
    ------
    RawFormatError
        When no frame of that array can be read.
    """
    conjugate = request.conjugate
    with received_raw(data, request.layout, array=array, conjugate=conjugate) as raw:
        return Item(data, raw.contents, array == 2 and conjugate)


def cut(item: Item, request: ImageRequest, *, together: bool) -> Iterator[Slice]:
    """Yield the slices of an item.

    Parameters
    ----------
    item : Item
        The frames.
    request : ImageRequest
        Which images are wanted.
    together : bool
        Whether images that need the same frames are made together, so that these are
        decoded once; else there is a slice for each image.

    Yields
    ------
    Slice
        By band, polarisation and channel.
    """
    contents = item.contents
    known = contents.hand < _KNOWN_HANDS
    bands = np.unique(contents.band[known]).tolist()
    for band in bands:
        if request.bands and band not in request.bands:
            continue
        members = np.flatnonzero(known & (contents.band == band))
        times = contents.time_utc_ns[members]
        start = int(times[0])
        time_utc_ns = start + int((times - start).sum()) // len(times)
        there = {str(hand) for hand in HANDS[contents.hand[members]]}
        polarizations, note = _possible(request.polarizations, there)
        for images in _grouped(polarizations, request.groups, together):
            hands = {hand for image in images for hand in HANDS_OF[image[0]]}
            is_needed = np.isin(HANDS[contents.hand[members]], sorted(hands))
            yield _slice(item, band, time_utc_ns, images, note, members[is_needed])


def _possible(
    wanted: Sequence[PolarizationName], hands: set[str]
) -> tuple[list[PolarizationName], str]:
    """Return the polarisations that some hands make, or these hands themselves."""
    possible = [each for each in wanted if hands.issuperset(HANDS_OF[each])]
    if possible:
        return possible, ""
    alone: list[PolarizationName] = [hand for hand in ("RR", "LL") if hand in hands]
    return alone, f"{' and '.join(wanted)}: there are frames of {alone[0]} alone"


def _grouped(
    polarizations: Sequence[PolarizationName],
    groups: Sequence[tuple[int, int]],
    together: bool,
) -> Iterator[list[tuple[PolarizationName, int, int]]]:
    every = [(each, *group) for each in polarizations for group in groups]
    if not together:
        yield from ([image] for image in every)
        return
    for hands in dict.fromkeys(HANDS_OF[each] for each in polarizations):
        yield [image for image in every if HANDS_OF[image[0]] == hands]


def _slice(
    item: Item,
    band: int,
    time_utc_ns: int,
    images: Sequence[tuple[PolarizationName, int, int]],
    note: str,
    members: NDArray[np.int64],
) -> Slice:
    contents = item.contents
    size = FORMATS[item.array].size
    view = np.frombuffer(item.data, dtype=np.uint8)
    parts = [view[at : at + size] for at in contents.offset[members].tolist()]
    return Slice(
        array=item.array,
        layout=contents.layout,
        is_conjugated=item.is_conjugated,
        band=band,
        time_utc_ns=time_utc_ns,
        images=images,
        note=note,
        frames=np.concatenate(parts),
        times=contents.time_utc_ns[members],
        hands=contents.hand[members],
        header={name: words[members] for name, words in contents.header.items()},
    )


def refusal(piece: Slice, image: tuple[str, int, int], reason: str) -> ImageRecord:
    """Return the record of an image that cannot be made."""
    polarization, first, count = image
    return ImageRecord(
        array=piece.array,
        time_utc_ns=piece.time_utc_ns,
        band=piece.band,
        polarization=polarization,
        frequency_hz=piece.frequency_hz(first, count),
        first_channel=first,
        status="refused",
        reason=reason,
        published_at=time.time(),
    )


@dataclass(frozen=True, eq=False)
class Averaged:
    """The average of the frames of a slice.

    Attributes
    ----------
    visibilities : Visibilities
        One average of one band, with the hands that the images need.
    notes : tuple of str
        What was left out of it, and why.
    """

    visibilities: Visibilities
    notes: tuple[str, ...]


def average(piece: Slice, request: ImageRequest) -> Averaged:
    """Decode, correct, flag, calibrate and average the frames of a slice.

    Raises
    ------
    MuserError
        When they do not go together, or the calibration cannot be read.
    """
    hands = tuple(each for each in ("RR", "LL") if (HANDS[piece.hands] == each).any())
    integrator = Integrator(piece.array, [piece.band], hands, _ONE_AVERAGE_NS)
    notes: dict[str, None] = {}
    with piece.raw() as raw:
        for start in range(0, len(raw), BLOCK_FRAMES):
            frames = raw.read(start, start + BLOCK_FRAMES)
            prepared, said = _prepared(frames, request)
            integrator.add(prepared)
            notes |= dict.fromkeys(said)
    return Averaged(integrator.result(), tuple(notes))


def _prepared(frames: Frames, request: ImageRequest) -> tuple[Frames, list[str]]:
    """Return frames that can be averaged, and what was left out."""
    notes = []
    bad = set(request.flag_inputs)
    if request.flag_known:
        bad |= set(known_bad_inputs(frames.array, int(frames.time_utc_ns[0])))
    if request.flag_dead:
        dead = dead_inputs(frames)
        bad |= set(dead)
        notes += _told("without power", dead)
    if request.flag_saturated:
        saturated = saturated_inputs(frames)
        bad |= set(saturated)
        notes += _told("saturated", saturated)
    static = request.static_delays_ns
    corrected = correct_delays(
        frames, static_ns=None if static is None else np.array(static)
    )
    if bad:
        corrected = flag_inputs(corrected, sorted(bad))
    if request.calibration is not None:
        table = _table(request.calibration, frames.array, frames.is_conjugated)
        corrected = apply_calibration(corrected, table, amplitude=request.amplitude)
    if request.flag_outliers:
        corrected = flag_outliers(corrected)
    return corrected, notes


def _told(what: str, inputs: Sequence[int]) -> list[str]:
    return [f"inputs {what}: {', '.join(map(str, inputs))}"] if inputs else []


def _table(path: Path, array: int, is_conjugated: bool) -> CalibrationTable:
    status = path.stat()
    return _read_table(path, status.st_mtime_ns, status.st_size, array, is_conjugated)


@lru_cache(maxsize=4)
def _read_table(
    path: Path, changed_ns: int, size: int, array: int, is_conjugated: bool
) -> CalibrationTable:
    """Read a calibration once, as long as its file is the same."""
    return read_calibration(path, array, is_conjugated=is_conjugated)


@dataclass(frozen=True, eq=False)
class Scene:
    """Visibilities as imaging wants them, and the Sun if that is what was observed.

    Attributes
    ----------
    snapshot : Snapshot
        Of all channels and hands of a band.
    sun : SunOptions or None
        Its place is the phase centre.
    """

    snapshot: Snapshot
    sun: SunOptions | None

    def channels(self, first: int, count: int) -> Snapshot:
        """Return the snapshot of some channels."""
        some = slice(first, first + count)
        whole = self.snapshot
        return replace(
            whole,
            frequency_hz=whole.frequency_hz[some],
            data=whole.data[..., some],
            weights=whole.weights[..., some],
        )


def scene_of(
    visibilities: Visibilities, time_utc_ns: int, request: ImageRequest
) -> Scene:
    """Return what is imaged.

    Parameters
    ----------
    visibilities : Visibilities
        One average of one band.
    time_utc_ns : int
        The moment for which baselines and the place of the Sun are computed.
    request : ImageRequest
        What was observed, and what is known of the scale.
    """
    array = visibilities.describe()
    source = source_named(request.source)
    track = follow(source, np.array([time_utc_ns]), array.site)
    first, second = array.baseline_inputs()
    baselines = uvw_m(track, array.positions_geocentric_m(), first, second)[0]
    scale = np.float32(request.jansky_per_unit or 1.0)
    snapshot = Snapshot(
        uvw_m=baselines,
        frequency_hz=visibilities.frequency_hz[0],
        data=visibilities.data[0, 0] * scale,
        weights=visibilities.weights[0, 0],
        polarizations=visibilities.polarizations,
        antenna1=first,
        antenna2=second,
        time_utc_ns=np.full(len(first), time_utc_ns),
        ra_rad=radians(float(track.ra_deg[0])),
        dec_rad=radians(float(track.dec_deg[0])),
        unit="Jy" if request.jansky_per_unit else "arbitrary",
        telescope=array.name,
        target=source.name,
    )
    if not isinstance(source, Sun):
        return Scene(snapshot, None)
    frequency_hz = float(visibilities.frequency_hz[0].mean())
    sun = replace(
        sun_of(track, frequency_hz),
        disk=request.disk,
        fit_radius=request.fit_radius,
        register=request.register,
    )
    return Scene(snapshot, sun)


def sun_of(track: Track, frequency_hz: float) -> SunOptions:
    """Return where the Sun is, how it is turned, and what its quiet disk looks like.

    Parameters
    ----------
    track : Track
        Of the Sun; its first time counts.
    frequency_hz : float
        For the profile of the disk.
    """
    seen = heliographic(track)
    return SunOptions(
        radius_rad=float(seen.radius_arcsec[0]) * ARCSEC_RAD,
        p_rad=radians(float(seen.p_deg[0])),
        b0_rad=radians(float(seen.b0_deg[0])),
        l0_rad=radians(float(seen.l0_deg[0])),
        distance_m=float(track.distance_m[0]),
        profile=quiet_sun(frequency_hz),
    )


@lru_cache(maxsize=64)
def quiet_sun(frequency_hz: float) -> RadialProfile:
    """Return the profile of the quiet Sun at a frequency."""
    return RadialProfile(RADII, profiles_k(np.array([frequency_hz]))[0])
