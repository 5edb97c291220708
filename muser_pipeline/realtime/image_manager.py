"""The manager: an item of raw frames becomes images, and records of them."""

from __future__ import annotations

import builtins
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from queue import SimpleQueue
from typing import Any, ClassVar

from muser_pipeline.errors import RawFormatError, RequestError
from muser_pipeline.realtime.cutting import Item, Slice, cut, read_item, refusal
from muser_pipeline.realtime.image_worker import CPU_TYPE, GPU_TYPE
from muser_pipeline.realtime.index import ImageIndex, ImageRecord
from muser_pipeline.realtime.options import ImageRequest
from muser_pipeline.realtime.routing import Queues
from opencluster import Manager, WorkPiece
from opencluster.errors import (
    NoSuitableWorker,
    PieceFailed,
    PieceTimeout,
    WorkerDied,
)

TYPES = (GPU_TYPE, CPU_TYPE)
NO_BAND = -1
"""The band of the record of an item that has no frame at all."""
_KEYS = ("item", "frames", "array", "options", "time_utc_ns")

Key = tuple[int, int, int, str]
"""Time, band, first channel and polarisation of an image."""


class MUSERImageManager(Manager):
    """Makes the images of an item, and puts them into the index.

    The task is ``WorkPiece(frames=..., array=1, options={...})`` with the raw frames
    of a short time as bytes, and an `ImageRequest` as a mapping. It may have ``item``,
    a name that comes back, and ``time_utc_ns``, when the item came or was taken, which
    stands for the time of an item without a single frame that can be read.

    The result has ``records``, the `ImageRecord` of each image as a mapping, those of
    images that were refused included; the numbers of ``images``, ``refused`` and
    ``skipped`` (frames that cannot be read), and ``elapsed_s``.

    An item is cut into slices by band, polarisation and channels. They go to workers
    of type ``MUSERImageGPU``, or to ``MUSERImage`` if there are none or if these would
    be done first. Images that are in the index are not made again, so that the same
    item may be done any number of times; of one that was broken off, what is missing
    is made.

    Raises
    ------
    RequestError
        When the task is wrong.
    ImageIndexError
        When the index cannot be used.
    NoSuitableWorker
        When there are no workers at all.
    PieceFailed
        When files cannot be written; what has failed otherwise is a record with the
        status ``"refused"``.
    """

    priority = "realtime"
    queues: ClassVar[Queues] = Queues(TYPES)
    """Of all managers of this process, as their slices wait in the same queues."""

    def __init__(self, engine: str = "") -> None:
        super().__init__(engine)
        self._indexes: dict[tuple[str, str], ImageIndex] = {}

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Do an item."""
        began = time.monotonic()
        if unknown := sorted(set(task) - set(_KEYS)):
            raise RequestError(
                f"an item has no {', '.join(unknown)}: it has {', '.join(_KEYS)}"
            )
        array = task.get("array", 1)
        if array not in (1, 2):
            raise RequestError(f"array: {array!r} is not one of 1, 2")
        request = ImageRequest.read(task.get("options", {}))
        request.check_array(array)
        data = task.get("frames", b"")
        data = data if isinstance(data, bytes) else memoryview(data).tobytes()
        index = self._index(request)
        try:
            item = read_item(data, array, request)
        except RawFormatError as error:
            records = [_unreadable(array, task, str(error))]
            self._add(index, records)
            skipped = 0
        else:
            records = self._images(item, request, index)
            skipped = len(item.skipped)
        refused = sum(record.status == "refused" for record in records)
        return WorkPiece(
            item=task.get("item", ""),
            records=[asdict(record) for record in records],
            images=len(records) - refused,
            refused=refused,
            skipped=skipped,
            elapsed_s=time.monotonic() - began,
        )

    def _images(
        self, item: Item, request: ImageRequest, index: ImageIndex
    ) -> list[ImageRecord]:
        """Return the records of all images of an item, by band and polarisation."""
        records = {
            _key(record): record
            for record in index.between(
                int(item.time_utc_ns.min()),
                int(item.time_utc_ns.max()) + 1,
                array=item.array,
            )
        }
        wanted: list[Key] = []
        pending = _Pending()
        try:
            for piece in self._slices(item, request):
                keys = [_key_of(piece, image) for image in piece.images]
                wanted += keys
                images = [
                    image
                    for key, image in zip(keys, piece.images, strict=True)
                    if key not in records
                ]
                if images:
                    self._send(replace(piece, images=images), request, pending)
            total = len(wanted)
            while pending.sent:
                for record in self._back(pending, request):
                    (records[_key(record)],) = self._add(index, [record])
                self.progress(total - pending.images, total)
        finally:
            for future in list(pending.sent):
                future.cancel()
        return [records[key] for key in dict.fromkeys(wanted)]

    def _slices(self, item: Item, request: ImageRequest) -> Iterator[Slice]:
        """Yield slices of one image each, if there are workers for all of them."""
        workers = self._workers_here()
        images = len(set(item.contents.band.tolist())) * len(request.polarizations)
        together = images * len(request.groups) > sum(workers.values())
        return cut(item, request, together=together)

    def _workers_here(self) -> Mapping[str, int]:
        """Return how many workers there are, after waiting for a first one."""
        here = self._counts()
        if not here:
            try:
                self.get_available_workers(CPU_TYPE)
            except NoSuitableWorker:
                if not (here := self._counts()):
                    raise
            here = here or self._counts()
        return here

    def _counts(self) -> dict[str, int]:
        counts = self.worker_types()
        return {type: counts[type] for type in TYPES if counts.get(type)}

    def _send(
        self, piece: Slice, request: ImageRequest, pending: _Pending, type: str = ""
    ) -> None:
        images = len(piece.images)
        type = self.queues.send(self._counts() if not type else {type: 1}, images)
        work = WorkPiece(request=request.plain(), slice=piece.plain())
        future = self.submit(type, work)
        pending.sent[future] = piece, type
        future.add_done_callback(pending.answers.put)

    def _back(self, pending: _Pending, request: ImageRequest) -> list[ImageRecord]:
        """Wait for a slice, and return the records of its images."""
        future = pending.answers.get()
        piece, type = pending.sent.pop(future)
        elapsed_s = None
        try:
            result = future.result()
            elapsed_s = result["elapsed_s"]
        except NoSuitableWorker:
            if type == CPU_TYPE or CPU_TYPE not in self._counts():
                raise
            self._send(piece, request, pending, CPU_TYPE)
            return []
        except (PieceFailed, PieceTimeout, WorkerDied) as error:
            if isinstance(error, PieceFailed) and _is_of_disks(error):
                # no fault of the frames: the item can be done again
                raise
            self.log.error("no images of band %d: %s", piece.band, error)
            reason = str(error).splitlines()[0]
            return [refusal(piece, image, reason) for image in piece.images]
        finally:
            self.queues.back(type, len(piece.images), elapsed_s)
        return [ImageRecord(**record) for record in result["records"]]

    def _add(self, index: ImageIndex, records: list[ImageRecord]) -> list[ImageRecord]:
        numbers = index.add_all(records)
        return [
            replace(record, id=number)
            for record, number in zip(records, numbers, strict=True)
        ]

    def _index(self, request: ImageRequest) -> ImageIndex:
        key = request.index_url, str(request.out)
        if key not in self._indexes:
            request.out.mkdir(parents=True, exist_ok=True)
            self._indexes[key] = ImageIndex(*key)
        return self._indexes[key]


@dataclass(eq=False)
class _Pending:
    """Slices that are under way."""

    sent: dict[Future[Any], tuple[Slice, str]] = field(default_factory=dict)
    answers: SimpleQueue[Future[Any]] = field(default_factory=SimpleQueue)

    @property
    def images(self) -> int:
        """How many images they are."""
        return sum(len(piece.images) for piece, _ in self.sent.values())


def _is_of_disks(error: PieceFailed) -> bool:
    """Tell whether a piece failed for want of a disk, a folder or a right."""
    kind = getattr(builtins, error.exception_type, None)
    return isinstance(kind, type) and issubclass(kind, OSError)


def _key(record: ImageRecord) -> Key:
    return (
        record.time_utc_ns,
        record.band,
        record.first_channel,
        record.polarization,
    )


def _key_of(piece: Slice, image: tuple[str, int, int]) -> Key:
    polarization, first, _ = image
    return piece.time_utc_ns, piece.band, first, polarization


def _unreadable(array: int, task: Mapping[str, Any], reason: str) -> ImageRecord:
    """Return the record of an item without a frame that can be read."""
    return ImageRecord(
        array=array,
        time_utc_ns=int(task.get("time_utc_ns", 0)) or time.time_ns(),
        band=NO_BAND,
        polarization="",
        frequency_hz=0.0,
        status="refused",
        reason=f"frames: {reason}",
        published_at=time.time(),
    )
