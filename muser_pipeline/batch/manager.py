"""The manager: cuts a request, hands out its pieces, and joins what they say."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from muser_pipeline.archive import Archive, index_archive
from muser_pipeline.archive.index import MARGIN_NS
from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.batch.manifest import Manifest, replace_file
from muser_pipeline.batch.plan import (
    GUESS_FPS,
    SHARES,
    Pace,
    check_size,
    is_in_parts,
    slices_of_files,
    whole_slices,
)
from muser_pipeline.batch.request import Request
from muser_pipeline.batch.slices import Slice, table_of
from muser_pipeline.batch.worker import UVFITSWorker, slice_fields
from muser_pipeline.errors import RequestError, TableError
from opencluster import Manager, WorkPiece

TYPE = UVFITSWorker.worker_type
RECIPE = "recipe.json"
STALE_S = 6 * 3600.0
"""Older files that were being written are of a worker that died."""


class UVFITSManager(Manager):
    """Makes UVFITS files of a time range, and a manifest that says what they are of.

    The task is a `Request` as a work piece. The result says where the ``manifest`` is,
    how many ``files`` and ``frames`` there are, how many are ``missing``, ``skipped``
    and ``flagged``, and ``elapsed_s`` and ``frames_per_s``.

    The files of a directory are all made in the same way: a request that would make
    others there is refused, so that requests that overlap share files and never spoil
    each other's.

    Raises
    ------
    RequestError
        When the request is wrong.
    """

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Do a request."""
        began = time.monotonic()
        asked = Request.read(task)
        archive = find_archive(asked)
        request = asked.of_array(archive.array)
        check_size(request)
        check_calibration(request)
        prepare_directory(request)
        manifest = Manifest(request, archive)
        if near(archive, request):
            self._carry_out(manifest)
        path, found = manifest.write()
        elapsed_s = time.monotonic() - began
        counts = found["frames"]
        return WorkPiece(
            manifest=str(path),
            array=found["array"],
            files=len(found["files"]),
            bytes=sum(row["bytes"] for row in found["files"]),
            frames=counts["read"],
            missing=counts["missing"],
            skipped=counts["skipped"],
            flagged=counts["flagged"],
            unreadable=len(found["unreadable"]),
            refused=len(found["refused"]),
            note=found.get("note", ""),
            elapsed_s=elapsed_s,
            frames_per_s=counts["read"] / elapsed_s,
        )

    def _carry_out(self, manifest: Manifest) -> None:
        """Have all pieces of a request performed."""
        request = manifest.request
        files = near(manifest.archive, request)
        first = max(request.start, min(file.first_utc_ns for file in files))
        last = min(request.end, max(file.last_utc_ns for file in files))
        total = max(1, (last - first) // FRAME_PERIOD_NS + 1)
        workers = len(self.get_available_workers(TYPE))
        pace = Pace(GUESS_FPS[request.array], max(1.0, total / (SHARES * workers)))
        share = len(request.bands) / len(load_array(request.array).bands)
        expected = max(1.0, total * share * len(request.polarizations) / 2)
        plain = asdict(request)
        if is_in_parts(request):
            results = self._in_parts(request, manifest.archive, pace, plain)
        else:
            pieces = (
                WorkPiece(request=plain, slice=slice_fields(piece))
                for piece in whole_slices(request, files, pace)
            )
            results = self.map(TYPE, pieces, ordered=False)
        for result in results:
            accounts = result.get("accounts") or [result["account"]]
            for number, account in enumerate(accounts):
                manifest.add(result["files"] if number == 0 else (), account)
            if "account" in result:
                pace.learn(result["account"]["read"], result["elapsed_s"])
            self.progress(min(manifest.read, expected), expected)

    def _in_parts(
        self, request: Request, archive: Archive, pace: Pace, plain: dict[str, Any]
    ) -> Iterator[WorkPiece]:
        """Yield what came of each file; its parts stay with the workers until then."""
        sizes: deque[int] = deque()

        def parts() -> Iterator[WorkPiece]:
            for slices in slices_of_files(request, near(archive, request), pace):
                count = 0
                held: Slice | None = None
                for piece in slices:
                    if held is not None:
                        yield self._part(plain, held)
                    held, count = piece, count + 1
                sizes.append(count)
                if held is not None:
                    yield self._part(plain, held)

        def joins() -> Iterator[WorkPiece]:
            refs = []
            made = self.map(TYPE, parts(), keep=True, recompute=True)
            for ref in made:
                refs.append(ref)
                while sizes and sizes[0] == 0:
                    sizes.popleft()
                if sizes and len(refs) == sizes[0]:
                    sizes.popleft()
                    yield WorkPiece(request=plain, parts=refs)
                    refs = []

        yield from self.map(TYPE, joins(), ordered=False)

    @staticmethod
    def _part(plain: dict[str, Any], piece: Slice) -> WorkPiece:
        return WorkPiece(request=plain, slice=slice_fields(piece), is_part=True)


def find_archive(request: Request) -> Archive:
    """Return the files of the array that is asked for, or of the one that is there.

    Raises
    ------
    RequestError
        When there is no such directory, or when it has files of both arrays.
    """
    try:
        if request.array:
            return index_archive(request.archive, request.array)
        found = [index_archive(request.archive, array) for array in (1, 2)]
    except OSError as error:
        raise RequestError(f"archive: {error}") from None
    if all(each.files for each in found):
        raise RequestError(
            f"array: {request.archive} has files of both arrays; say which, 1 or 2"
        )
    return found[1] if found[1].files else found[0]


def near(archive: Archive, request: Request) -> list[Any]:
    """Return the files that may have frames of the range."""
    return [
        file
        for file in archive.files
        if file.first_utc_ns - MARGIN_NS < request.end
        and file.last_utc_ns + MARGIN_NS >= request.start
    ]


def check_calibration(request: Request) -> None:
    """Refuse a calibration table that cannot be read.

    Raises
    ------
    RequestError
        With the reason.
    """
    if request.calibration is None:
        return
    try:
        table_of(request)
    except (OSError, TableError) as error:
        raise RequestError(f"calibration: {error}") from None


def prepare_directory(request: Request) -> None:
    """Make the directory of the files, and see that its files are made in our way.

    Raises
    ------
    RequestError
        When they are not, or when nothing can be written there.
    """
    recipe = json.dumps(request.recipe(), indent=1, sort_keys=True) + "\n"
    path = request.out / RECIPE
    try:
        request.out.mkdir(parents=True, exist_ok=True)
        _remove_stale(request.out)
        there = _put_first(path, recipe)
    except OSError as error:
        raise RequestError(f"out: nothing can be written there: {error}") from None
    if there != recipe:
        raise RequestError(
            f"out: {request.out} has files that were made in another way "
            f"({_differences(there, request)}): choose another directory"
        )


def _put_first(path: Path, text: str) -> str:
    """Write a file unless another has done so, and return what is in it."""
    if not path.exists():
        beside = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        replace_file(beside, text)
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return path.read_text()


def _differences(there: str, request: Request) -> str:
    try:
        theirs, ours = json.loads(there), json.loads(json.dumps(request.recipe()))
        names = sorted(n for n in {*theirs, *ours} if theirs.get(n) != ours.get(n))
        return "; ".join(f"{n}: {theirs.get(n)}, not {ours.get(n)}" for n in names)
    except (ValueError, AttributeError):
        return f"{RECIPE} cannot be read"


def _remove_stale(folder: Path) -> None:
    """Remove what workers left half-written when they died."""
    before = time.time() - STALE_S
    for path in folder.glob(".*.part"):
        try:
            if path.stat().st_mtime < before:
                path.unlink()
        except FileNotFoundError:
            continue
