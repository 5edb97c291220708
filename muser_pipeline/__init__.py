"""The data processing of MUSER, the solar radio heliograph, on OpenCluster.

From raw frames to images as managers and workers; it imports only the public names of
`opencluster`, and its subpackage ``imaging`` will know neither MUSER nor OpenCluster.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muser_pipeline.calibration import apply_calibration, correct_delays
    from muser_pipeline.raw import Frames, RawFile, open_raw

__all__ = ["Frames", "RawFile", "apply_calibration", "correct_delays", "open_raw"]

_HOMES = {
    "Frames": "raw",
    "RawFile": "raw",
    "apply_calibration": "calibration",
    "correct_delays": "calibration",
    "open_raw": "raw",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that a worker loads no more."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
