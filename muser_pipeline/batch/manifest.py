"""The manifest of a request: which files there are, and what they were made from.

It says nothing of how long it took, nor where or in how many pieces, so that the same
request of the same archive gives the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from muser_pipeline.archive import Archive
from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.batch.request import Request
from muser_pipeline.raw.neighbours import LOSS_NS

ROWS_TOLD = 1000
"""Gaps and skipped frames that are listed; all are counted."""
_SUMS = ("read", "flagged", "unknown", "repeated", "disputed")


@dataclass
class Manifest:
    """Takes in what pieces return, in any order.

    Attributes
    ----------
    request : Request
        Of the array that was found.
    archive : Archive
        Where the frames are.
    """

    request: Request
    archive: Archive
    _files: list[dict[str, Any]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))
    _spans: list[tuple[int, int]] = field(default_factory=list)
    _gaps: list[tuple[int, int, int]] = field(default_factory=list)
    _skipped: dict[str, Any] = field(default_factory=dict)
    _unreadable: dict[str, str] = field(default_factory=dict)
    _refused: set[tuple[int, int, str]] = field(default_factory=set)

    @property
    def read(self) -> int:
        """How many frames were decoded so far."""
        return self._counts["read"]

    def add(
        self, files: Iterable[Mapping[str, Any]], account: Mapping[str, Any]
    ) -> None:
        """Take in files and the account of the slice that they are from."""
        self._files += (dict(row) for row in files)
        for name in _SUMS:
            self._counts[name] += account[name]
        if account["span"]:
            first, last = account["span"]
            self._spans.append((first, last))
        self._gaps += (tuple(row) for row in account["gaps"])
        self._skipped |= account["skipped"]
        self._unreadable |= account["unreadable"]
        self._refused |= {tuple(row) for row in account["refused"]}

    def to_fields(self) -> dict[str, Any]:
        """Return what is written."""
        request = self.request
        gaps = sorted(self._gaps + self._gaps_between())
        skipped = [
            {"file": self._name(path), "number": n, "offset": offset, "reason": reason}
            for path, (_, rows) in sorted(self._skipped.items())
            for n, offset, reason in rows
        ]
        unreadable = {str(path): why for path, why in self.archive.unreadable}
        unreadable |= self._unreadable
        counts = self._counts | {
            "missing": sum(gap[2] for gap in gaps),
            "skipped": sum(count for count, _ in self._skipped.values()),
        }
        found: dict[str, Any] = {
            "array": load_array(request.array).name,
            "request": request.plain(),
            "frames": counts,
            "files": sorted(
                self._files, key=lambda row: (row["start_utc_ns"], row["name"])
            ),
            "gaps": [
                {"start_utc_ns": start, "end_utc_ns": end, "frames": frames}
                for start, end, frames in gaps[:ROWS_TOLD]
            ],
            "skipped": skipped[:ROWS_TOLD],
            "unreadable": [
                {"file": self._name(path), "reason": why.rpartition("/")[2]}
                for path, why in sorted(unreadable.items())
            ],
            "refused": [
                {"start_utc_ns": start, "end_utc_ns": end, "reason": reason}
                for start, end, reason in sorted(self._refused)
            ],
        }
        if not self._files:
            found["note"] = self._why_empty()
        return found

    def write(self) -> tuple[Path, dict[str, Any]]:
        """Write it beside its place and rename it; return the path and what it says."""
        found = self.to_fields()
        text = json.dumps(found, indent=1, sort_keys=True) + "\n"
        path = self.request.out / self.name
        replace_file(path, text)
        return path, found

    @property
    def name(self) -> str:
        """Such as ``MUSER-I_20151101T040000Z_10s_1f2e3d4c.manifest.json``."""
        request = self.request
        start = str(np.datetime64(request.start // 10**9, "s"))
        start = start.replace("-", "").replace(":", "")
        seconds = f"{(request.end - request.start) / 1e9:g}"
        array = load_array(request.array).name
        return f"{array}_{start}Z_{seconds}s_{request.digest}.manifest.json"

    def _gaps_between(self) -> list[tuple[int, int, int]]:
        """Return the gaps before, between and after the slices with frames.

        Together with those inside of slices they are the gaps of the whole range.
        """
        start, end = self.request.start, self.request.end
        spans = sorted(self._spans)
        if not spans:
            whole = (end - start) // FRAME_PERIOD_NS
            return [(start, end, whole)] if whole else []
        first, last = spans[0][0], spans[-1][1]
        found = [(start, first, (first - start) // FRAME_PERIOD_NS)]
        for (_, before), (after, _) in zip(spans, spans[1:], strict=False):
            if after - before > LOSS_NS:
                missing = round((after - before) / FRAME_PERIOD_NS) - 1
                found.append((before, after, max(missing, 1)))
        found.append((last, end, (end - last - 1) // FRAME_PERIOD_NS))
        return [gap for gap in found if gap[2]]

    def _why_empty(self) -> str:
        if self._counts["read"]:
            return "no data: of the frames that were read, none could be used"
        if self._spans:
            return "no data: frames of this time are of other bands or polarizations"
        if not self.archive.files:
            return "no data: there are no raw files of this array in the archive"
        return "no data: there are no frames of this time in the archive"

    def _name(self, path: str) -> str:
        root = self.request.archive
        return os.path.relpath(path, root if root.is_dir() else root.parent)


def replace_file(path: Path, text: str) -> None:
    """Write a file so that it is there as a whole, or as it was before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
