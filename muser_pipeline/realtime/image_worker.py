"""The worker: slices of raw frames become images.

What computes is imported when a worker starts, so that whoever only wants to know of
the class, such as a workshop that is told to start it, need not wait for it.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from opencluster import Worker, WorkPiece

if TYPE_CHECKING:
    from muser_pipeline.realtime.making import ImageMaker

CPU_TYPE = "MUSERImage"
GPU_TYPE = "MUSERImageGPU"
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
Wanted = Literal["auto", "cpu", "cuda"]


class MUSERImageWorker(Worker):
    """Turns slices of raw frames into images.

    It registers as ``MUSERImageGPU`` where CuPy sees a GPU, else as ``MUSERImage``.

    A piece is ``WorkPiece(request=..., slice=...)``, with an `ImageRequest` and a
    `Slice` as mappings. The result has ``records``, an `ImageRecord` as a mapping for
    each image of the slice, the ``elapsed_s`` of the piece, the ``device``, and the
    memory of its GPU. The files of an image are written beside their places and
    renamed, and depend on the piece alone, so that it may run any number of times.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Where images are computed; CuPy is imported only if this may be a GPU.
    """

    worker_type = CPU_TYPE

    def __init__(self, device: Wanted = "auto") -> None:
        if device == "auto":
            device = "cuda" if sees_gpu() else "cpu"
        self.device: Literal["cpu", "cuda"] = device

    def ready(self, type: str = "", host: str = "*", port: int = 0) -> None:
        """Serve as `Worker.ready` does, as the type that goes with the device."""
        if type in ("", CPU_TYPE, GPU_TYPE):
            type = GPU_TYPE if self.device == "cuda" else CPU_TYPE
        super().ready(type, host, port)

    def startup(self) -> None:
        """Have everything at hand that the first piece needs."""
        self._maker = self.make_maker()
        self._maker.warm_up()

    def make_maker(self) -> ImageMaker:
        """Return what makes the images: on the device, and on a CPU if it must be."""
        from muser_pipeline.realtime.devices import Computer
        from muser_pipeline.realtime.making import ImageMaker

        gpus = [Computer("cuda")] if self.device == "cuda" else []
        return ImageMaker([*gpus, Computer("cpu")], self.show)

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Make the images of a slice."""
        began = time.monotonic()
        records = self._maker.records(work["request"], work["slice"])
        return WorkPiece(
            records=[asdict(record) for record in records],
            elapsed_s=time.monotonic() - began,
            device=self.device,
            **self._maker.memory(),
        )

    def show(self, step: str, done: int, total: int) -> None:
        """Say how far an image is; ends it here when the piece is interrupted."""
        self.progress(done, max(total, 1))


def sees_gpu(environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether CuPy sees a GPU.

    CuPy is not imported where it is not installed, nor where the environment hides all
    GPUs, as a workshop does from processes that leased none.
    """
    if environ.get(VISIBLE_DEVICES) == "" or importlib.util.find_spec("cupy") is None:
        return False
    from muser_pipeline.imaging.backend import cupy_or_none

    return cupy_or_none() is not None
