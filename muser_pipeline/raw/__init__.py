"""Raw frames: reading, writing and finding them.

Nothing here knows what a frame is used for.
"""

from muser_pipeline.raw.frames import Frames

__all__ = ["Frames"]
