"""MUSER as it happens: frames come in over the network, and images go out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muser_pipeline.realtime.image_manager import MUSERImageManager
    from muser_pipeline.realtime.image_worker import MUSERImageWorker
    from muser_pipeline.realtime.index import ImageIndex, ImageRecord
    from muser_pipeline.realtime.options import ImageRequest

__all__ = [
    "ImageIndex",
    "ImageRecord",
    "ImageRequest",
    "MUSERImageManager",
    "MUSERImageWorker",
]

_HOMES = {
    "ImageIndex": "index",
    "ImageRecord": "index",
    "ImageRequest": "options",
    "MUSERImageManager": "image_manager",
    "MUSERImageWorker": "image_worker",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first used: a page of images needs no imaging."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
