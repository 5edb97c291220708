"""The worker: slices of an archive become UVFITS files, or parts of larger ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from muser_pipeline.batch.joining import join
from muser_pipeline.batch.request import Request
from muser_pipeline.batch.slices import Account, Converter, Made, Slice
from muser_pipeline.batch.warming import warm_up
from muser_pipeline.geometry import Track, follow, source_named
from muser_pipeline.integration import Visibilities
from muser_pipeline.uvfits import UvfitsWriter, name_of
from opencluster import Worker, WorkPiece


class UVFITSWorker(Worker):
    """Turns slices of an archive of raw frames into UVFITS files.

    A piece is one of these:

    ``WorkPiece(request=..., slice=...)``
        Frames become files. The result has ``files``, a row for each, and ``account``.
    the same with ``is_part=True``
        Frames become averages, which are returned as ``parts`` beside ``account``.
    ``WorkPiece(request=..., parts=[results of the latter])``
        Parts become one file; the result is as that of the first.

    Files are written beside their places and renamed, and depend on the request and
    the frames alone, so that a piece may run any number of times.
    """

    worker_type = "UVFITS"

    def startup(self) -> None:
        """Have everything at hand that pieces share."""
        self._converter = Converter()
        self._writers: dict[int, UvfitsWriter] = {}
        for array in (1, 2):
            warm_up(array)

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Do one piece."""
        began = time.monotonic()
        request = Request(**work["request"])
        if "parts" in work:
            result = self._join(request, work["parts"])
        elif work.get("is_part"):
            result = self._average(request, Slice(**work["slice"]))
        else:
            result = self._convert(request, Slice(**work["slice"]))
        result["elapsed_s"] = time.monotonic() - began
        return result

    def _convert(self, request: Request, piece: Slice) -> WorkPiece:
        account = Account()
        files = []
        span_ns = piece.end_ns - piece.start_ns
        for made in self._converter.convert(request, piece, account):
            files.append(self._write(request, made))
            done_ns = int(made.visibilities.end_utc_ns[-1]) - piece.start_ns
            self.progress(min(max(done_ns, 0), span_ns), span_ns)
        return WorkPiece(files=files, account=asdict(account))

    def _average(self, request: Request, piece: Slice) -> WorkPiece:
        account = Account()
        parts = [
            _to_fields(made)
            for made in self._converter.convert(request, piece, account)
        ]
        return WorkPiece(parts=parts, account=asdict(account))

    def _join(
        self, request: Request, results: Sequence[Mapping[str, Any]]
    ) -> WorkPiece:
        accounts = [dict(result["account"]) for result in results]
        parts = [_from_fields(part) for result in results for part in result["parts"]]
        files = []
        if parts:
            of_parts = [part.visibilities for part in parts]
            bands = np.unique(np.concatenate([each.bands for each in of_parts]))
            hands = {hand for each in of_parts for hand in each.polarizations}
            is_fixed = all(part.is_fixed for part in parts)
            whole = join(
                of_parts,
                request.interval_ns,
                bands if is_fixed or request.per == "band" else request.bands,
                [h for h in request.polarizations if h in hands or not is_fixed],
            )
            flagged = sum(part.flagged for part in parts)
            files.append(self._write(request, Made(whole, flagged, is_fixed)))
        return WorkPiece(files=files, accounts=accounts)

    def _write(self, request: Request, made: Made) -> dict[str, Any]:
        """Write a file, and return what the manifest says of it."""
        visibilities = made.visibilities
        if request.array not in self._writers:
            self._writers[request.array] = UvfitsWriter(request.array)
        # another computer may see the directory later than the manager
        request.out.mkdir(parents=True, exist_ok=True)
        path = request.out / name_of(visibilities)
        written = self._writers[request.array].write(
            path, visibilities, track_of(request, visibilities)
        )
        frames = int(visibilities.frames.sum())
        return {
            "name": path.name,
            "bytes": written.size_bytes,
            "sha256": written.sha256,
            "start_utc_ns": int(visibilities.start_utc_ns[0]),
            "end_utc_ns": int(visibilities.end_utc_ns[-1]),
            "bands": visibilities.bands.tolist(),
            "polarizations": list(visibilities.polarizations),
            "averages": len(visibilities),
            "frames": frames,
            "flagged_part": round(
                made.flagged / (frames * visibilities.data[0, 0, 0].size), 6
            ),
        }


def track_of(request: Request, visibilities: Visibilities) -> Track:
    """Return where the phase centre stands."""
    source = source_named(request.source)
    return follow(source, visibilities.time_utc_ns, visibilities.describe().site)


def _to_fields(made: Made) -> dict[str, Any]:
    """Return visibilities as a piece can carry them."""
    found = made.visibilities
    plain = {each.name: getattr(found, each.name) for each in fields(found)}
    return plain | {"flagged": made.flagged, "is_fixed": made.is_fixed}


def _from_fields(plain: Mapping[str, Any]) -> Made:
    values = dict(plain)
    flagged, is_fixed = values.pop("flagged"), values.pop("is_fixed")
    return Made(Visibilities(**values), flagged, is_fixed)


def slice_fields(piece: Slice) -> dict[str, Any]:
    """Return a slice as a piece carries it."""
    return asdict(piece) | {"paths": [Path(path) for path in piece.paths]}
