"""The program of a worker or service process: load a class and call ``ready()``.

``python -m opencluster.start wordcount.py:WordCountWorker '{"type": ...}'`` is
what a workshop runs. It imports no more than a worker needs, so that idle workers
stay small.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from opencluster.config import load
from opencluster.errors import OpenClusterError
from opencluster.targets import load_class

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def serve(target: str, options: Mapping[str, Any]) -> None:
    """Make an instance of a Worker or Service class and serve until stopped.

    Parameters
    ----------
    target : str
        ``module:Class`` or ``path.py:Class``.
    options : mapping
        ``type`` (worker type or service name), ``host``, ``port``, and ``arguments``
        for the constructor; each may be left out.
    """
    cls = load_class(target)
    instance = cls(**options.get("arguments", {}))
    ready = getattr(instance, "ready", None)
    if ready is None:
        raise OpenClusterError(f"{target} is neither a Worker nor a Service")
    ready(options.get("type", ""), options.get("host", "*"), options.get("port", 0))


def set_up_logging(level: str) -> None:
    """Log to standard error."""
    logging.basicConfig(level=level, format=LOG_FORMAT, stream=sys.stderr)


def main(arguments: list[str]) -> int:
    """Serve the class that the command line names."""
    target, options = arguments
    try:
        set_up_logging(load().log.level)
        serve(target, json.loads(options))
    except OpenClusterError as error:
        print(f"opencluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
