"""Raw frames: reading, writing and finding them.

Nothing here knows what a frame is used for.
"""

from muser_pipeline.raw.contents import Contents
from muser_pipeline.raw.format import SWITCHED_OFF, SWITCHED_ON
from muser_pipeline.raw.frames import LEFT, RIGHT, UNKNOWN, Frames
from muser_pipeline.raw.reader import RawFile, open_raw, received_raw
from muser_pipeline.raw.scan import SkippedFrame
from muser_pipeline.raw.writer import (
    encode_frames,
    make_frames,
    make_header,
    write_raw,
)

__all__ = [
    "LEFT",
    "RIGHT",
    "SWITCHED_OFF",
    "SWITCHED_ON",
    "UNKNOWN",
    "Contents",
    "Frames",
    "RawFile",
    "SkippedFrame",
    "encode_frames",
    "make_frames",
    "make_header",
    "open_raw",
    "received_raw",
    "write_raw",
]
