"""From decoded frames to visibilities that can be imaged.

Every step takes `Frames` and returns new ones; nothing is looked up that the caller
did not name, but for the packaged tables of the array.
"""

from muser_pipeline.calibration.delays import correct_delays
from muser_pipeline.calibration.static import static_delays_ns

__all__ = ["correct_delays", "static_delays_ns"]
