"""Where images are computed: a GPU where there is one, else this computer's CPUs."""

from __future__ import annotations

from muser_pipeline.imaging.backend import Device, cupy_or_none
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.pipeline import Progress, make_image
from muser_pipeline.imaging.shelf import Shelf
from muser_pipeline.imaging.visibilities import Snapshot


class Computer:
    """Makes images, and keeps transforms and beams for the next ones.

    Parameters
    ----------
    device : str
        ``"cpu"`` or ``"cuda"``.

    Attributes
    ----------
    device : str
        As given.
    shelf : Shelf
        What is kept.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.shelf = Shelf()

    def make(
        self, snapshot: Snapshot, options: ImageOptions, progress: Progress | None
    ) -> Image:
        """Make an image, see `make_image`.

        Raises
        ------
        MemoryError
            When the device has too little of it; CuPy's error is one.
        """
        return make_image(
            snapshot, options, device=self.device, shelf=self.shelf, progress=progress
        )

    def free(self) -> None:
        """Let go of all memory of the device that is only kept."""
        self.shelf.clear()
        if self.device == "cuda":
            cupy_or_none().get_default_memory_pool().free_all_blocks()

    def memory(self) -> dict[str, int]:
        """Return bytes of the device's memory that are used and that there are.

        Empty for a CPU, whose memory the workshop reports.
        """
        if self.device == "cpu":
            return {}
        free, total = cupy_or_none().cuda.runtime.memGetInfo()
        return {"gpu_memory_used": int(total - free), "gpu_memory_total": int(total)}
