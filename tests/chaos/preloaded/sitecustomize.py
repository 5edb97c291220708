"""Let Python sleep by other means where libfaketime lies about the time of day alone.

Version 0.9.10 of it takes the clock that never jumps for the time of day when a process
sleeps until a moment of that clock, as Python does since version 3.11.
"""

import select
import time


def sleep(seconds: float) -> None:
    """Wait for so long."""
    select.select([], [], [], seconds)


time.sleep = sleep
