"""Ask a factory for the workers of a type, again and again, and tell how long it took.

``python -m bench.lookups SECONDS`` prints one line of JSON: milliseconds, one number
for each look-up.
"""

from __future__ import annotations

import json
import random
import sys
import time
from functools import partial

from bench.crowd import TYPES
from opencluster.config import load
from opencluster.net.control import Control
from opencluster.place import Place, factories

PAUSE_S = 0.02
"""Between two look-ups: what a program on a cluster does far less often."""


def ask(seconds: float) -> list[float]:
    """Return how long each look-up took, in milliseconds."""
    config = load()
    taken = []
    with Control(config, partial(factories, config, Place.find())) as control:
        control.factory("find", {"kind": "worker", "type": "Type0"})
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            type = f"Type{random.randrange(TYPES)}"
            started = time.perf_counter()
            found = control.factory("find", {"kind": "worker", "type": type})
            taken.append((time.perf_counter() - started) * 1000)
            if not found:
                raise RuntimeError(f"the factory knows no {type}")
            time.sleep(PAUSE_S)
    return taken


if __name__ == "__main__":
    json.dump(ask(float(sys.argv[1])), sys.stdout)
