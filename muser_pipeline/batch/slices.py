"""What becomes of one slice of an archive: visibilities, files, and an account of it.

Nothing here depends on where a slice begins or ends, as long as that is at a multiple
of `Request.unit_ns`: what belongs together is always read, corrected and flagged
together. So the same request gives the same bytes however it was cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.archive import Selection
from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.batch.request import BLOCK_NS, Request
from muser_pipeline.batch.shelf import Shelf
from muser_pipeline.calibration import (
    CalibrationTable,
    apply_calibration,
    correct_delays,
    dead_inputs,
    flag_inputs,
    flag_outliers,
    known_bad_inputs,
    read_calibration,
)
from muser_pipeline.errors import MuserError
from muser_pipeline.integration import Integrator, Visibilities, single_frames
from muser_pipeline.raw import UNKNOWN, Frames
from muser_pipeline.raw.meaning import HANDS

BLOCK_FRAMES = 64
"""Frames that are in memory at a time: 7 MB of MUSER-I, 17 MB of MUSER-II."""
SKIPPED_TOLD = 20
"""Skipped frames of a file that are told with their reasons; all are counted."""


@dataclass(frozen=True)
class Slice:
    """A part of an archive that one piece is about.

    Attributes
    ----------
    paths : sequence of Path
        Raw files that may have frames of it.
    start_ns, end_ns : int
        Its time, the end not included.
    bands : sequence of int
        Bands wanted.
    polarizations : sequence of str
        Hands wanted.
    is_told : bool
        Whether what is true of a time, whatever the band, is to be counted: of slices
        of the same time, one counts.
    """

    paths: Sequence[Path]
    start_ns: int
    end_ns: int
    bands: Sequence[int]
    polarizations: Sequence[str]
    is_told: bool = True


@dataclass
class Account:
    """What was found in a slice.

    Attributes
    ----------
    read, flagged, unknown : int
        Frames that were decoded; of which nothing is left; whose hand is not known.
    repeated, disputed : int
        Frames that were left out, see `Selection`.
    span : list of int
        Times of the first and the last frame; empty if there is none.
    gaps : list of [int, int, int]
        Times of the frames before and after gaps between these, and frames missing.
    skipped : dict
        For each file how many frames cannot be read, and of some number, offset and
        reason.
    unreadable : dict
        Files that cannot be read, and why.
    refused : list of [int, int, str]
        Times for which nothing could be made, and why.
    """

    read: int = 0
    flagged: int = 0
    unknown: int = 0
    repeated: int = 0
    disputed: int = 0
    span: list[int] = field(default_factory=list)
    gaps: list[list[int]] = field(default_factory=list)
    skipped: dict[str, list[Any]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    refused: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Made:
    """Visibilities, and how much of what they were made from was flagged.

    Attributes
    ----------
    visibilities : Visibilities
        Of one file, or of several averages.
    flagged : int
        Visibilities of frames that were flagged before they were averaged.
    is_fixed : bool
        Whether the frames are not of loops: then there are no other bands and hands.
    """

    visibilities: Visibilities
    flagged: int
    is_fixed: bool


class Converter:
    """Makes visibilities of slices; keeps what the slices of one request share."""

    def __init__(self) -> None:
        self._shelf = Shelf()
        self._tables: dict[tuple[Path, int, int, int, bool], CalibrationTable] = {}

    def convert(
        self, request: Request, piece: Slice, account: Account
    ) -> Iterator[Made]:
        """Yield visibilities of a slice, in order of time.

        Parameters
        ----------
        request : Request
            What is done to frames, with the array known.
        piece : Slice
            Which frames.
        account : Account
            Filled in.

        Yields
        ------
        Made
            One for each frame, or average.
        """
        exactly = (piece.start_ns, piece.end_ns)
        margins = _margins(request, piece)
        if piece.is_told:
            found, unreadable = self._shelf.select(piece.paths, request, *exactly)
            with found:
                _tell(account, found)
            account.unreadable = {str(p): why for p, why in unreadable.items()}
        selection, _ = self._shelf.select(piece.paths, request, *margins)
        with selection:
            for members in _units(request, piece, selection):
                try:
                    made = list(self._make(request, piece, selection, members, account))
                except MuserError as error:
                    times = selection.time_utc_ns[members]
                    row = [int(times[0]), int(times[-1]), _without_folder(error)]
                    account.refused.append(row)
                else:
                    yield from made

    def _make(
        self,
        request: Request,
        piece: Slice,
        selection: Selection,
        members: NDArray[np.int64],
        account: Account,
    ) -> Iterator[Made]:
        """Yield what is made of the frames of one unit."""
        if request.per == "frame":
            frames = self._prepared(request, selection.take(members), account)
            flagged = np.count_nonzero(frames.flags, axis=(1, 2))
            known = flagged[frames.polarization != UNKNOWN]
            for one, count in zip(single_frames(frames), known.tolist(), strict=True):
                yield Made(one, count, is_fixed=True)
            return
        bands, hands = list(piece.bands), tuple(piece.polarizations)
        is_fixed = not _has_loop(selection, members)
        if is_fixed:
            bands = np.unique(selection.band[members]).tolist()
            there = HANDS[selection.hand[members]]
            hands = tuple(hand for hand in hands if hand in there)
        integrator = Integrator(request.array, bands, hands, request.interval_ns)
        flagged_in_all = 0
        is_any = False
        for place in range(0, len(members), BLOCK_FRAMES):
            block = selection.take(members[place : place + BLOCK_FRAMES])
            frames = self._prepared(request, block, account)
            is_known = frames.polarization != UNKNOWN
            is_any = is_any or bool(is_known.any())
            flagged_in_all += int(np.count_nonzero(frames.flags[is_known]))
            integrator.add(frames)
        if is_any:
            yield Made(integrator.result(), flagged_in_all, is_fixed)

    def _prepared(self, request: Request, frames: Frames, account: Account) -> Frames:
        """Return frames corrected, calibrated and flagged."""
        static = request.static_delays_ns
        corrected = correct_delays(
            frames,
            static_ns=None if static is None else np.array(static),
            target=request.target,  # type: ignore[arg-type]
        )
        bad = set(request.flag_inputs)
        if request.flag_known:
            bad |= set(known_bad_inputs(request.array, int(frames.time_utc_ns[0])))
        if request.flag_dead:
            bad |= set(dead_inputs(frames))
        if bad:
            corrected = flag_inputs(corrected, sorted(bad))
        if request.calibration is not None:
            table = self._table(request)
            corrected = apply_calibration(corrected, table, amplitude=request.amplitude)
        if request.flag_outliers:
            corrected = flag_outliers(corrected)
        account.read += len(frames)
        account.flagged += int(np.count_nonzero(corrected.flags.all(axis=(1, 2))))
        account.unknown += int(np.count_nonzero(frames.polarization == UNKNOWN))
        return corrected

    def _table(self, request: Request) -> CalibrationTable:
        path = request.calibration
        assert path is not None
        status = path.stat()
        key = (
            *(path, status.st_size, status.st_mtime_ns),
            *(request.array, request.conjugate),
        )
        if key not in self._tables:
            self._tables.clear()
            self._tables[key] = table_of(request)
        return self._tables[key]


def table_of(request: Request) -> CalibrationTable:
    """Return the calibration table of a request that names one.

    Raises
    ------
    TableError, OSError
        When it cannot be read.
    """
    assert request.calibration is not None
    return read_calibration(
        request.calibration,
        request.array,
        band=request.bands[0] if len(request.bands) == 1 else None,
        is_conjugated=request.conjugate,
    )


def _margins(request: Request, piece: Slice) -> tuple[int, int]:
    """Return the time to look at: with loops, those that begin or end outside."""
    if request.interval_ns is not None or request.per == "frame":
        return piece.start_ns, piece.end_ns
    loop_ns = load_array(request.array).frames_per_loop * FRAME_PERIOD_NS
    return (
        max(request.start, piece.start_ns - loop_ns),
        min(request.end, piece.end_ns + loop_ns),
    )


def _units(
    request: Request, piece: Slice, selection: Selection
) -> list[NDArray[np.int64]]:
    """Return the frames that are read together, of those that are wanted."""
    times = selection.time_utc_ns
    hands = HANDS[selection.hand]
    # a frame whose hand is not known is counted, once
    polarizations = [*piece.polarizations]
    if request.polarizations[0] in polarizations:
        polarizations.append(UNKNOWN)
    wanted = np.isin(selection.band, piece.bands) & np.isin(hands, polarizations)
    if request.interval_ns is None and request.per != "frame":
        units = _starts_of_loops(selection)
        is_here = (units >= piece.start_ns) & (units < piece.end_ns)
        # a loop of which the beginning was not asked for begins where the range does
        if piece.start_ns == request.start:
            is_here |= units < piece.start_ns
        wanted &= is_here
    else:
        units = times // (request.interval_ns or BLOCK_NS)
    members = np.flatnonzero(wanted)
    if not members.size:
        return []
    cuts = np.flatnonzero(np.diff(units[members])) + 1
    return np.split(members, cuts)


def _has_loop(selection: Selection, members: NDArray[np.int64]) -> bool:
    """Tell whether some of the frames are of a loop over all bands."""
    places = zip(selection.file[members], selection.index[members], strict=True)
    return any(selection.files[f].contents.is_loop[n] for f, n in places)


def _starts_of_loops(selection: Selection) -> NDArray[np.int64]:
    """Return when the loop of each frame began; that of the one before if unknown."""
    loops = selection.loops().loop
    code = 2 * selection.band + np.minimum(selection.hand, 1)
    own: NDArray[np.int64] = selection.time_utc_ns - code * FRAME_PERIOD_NS
    tells = np.flatnonzero(loops >= 0)
    if not tells.size:
        return own
    _, first = np.unique(loops[tells], return_index=True)
    starts = own.copy()
    starts[tells] = own[tells][first][loops[tells]]
    before = np.maximum.accumulate(np.where(loops >= 0, np.arange(len(loops)), 0))
    return np.asarray(starts[before])


def _tell(account: Account, selection: Selection) -> None:
    """Fill in what is true of a time."""
    account.repeated, account.disputed = selection.repeated, selection.disputed
    if len(selection):
        first, last = (int(selection.time_utc_ns[place]) for place in (0, -1))
        account.span = [first, last]
        account.gaps = [
            [gap.start_utc_ns, gap.end_utc_ns, gap.frames]
            for gap in selection.gaps
            if gap.start_utc_ns >= first and gap.end_utc_ns <= last
        ]
    for file in selection.files:
        if file.skipped:
            told = [[s.number, s.offset, s.reason] for s in file.skipped[:SKIPPED_TOLD]]
            account.skipped[str(file.path)] = [len(file.skipped), told]


def _without_folder(error: MuserError) -> str:
    return str(error).rpartition("/")[2]
