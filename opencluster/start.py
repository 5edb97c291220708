"""The program of a worker or service process: load a class and call ``ready()``.

``python -m opencluster.start wordcount.py:WordCountWorker '{"type": ...}'`` is
what a workshop runs. It imports no more than a worker needs, so that idle workers
stay small.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

from opencluster.config import load
from opencluster.errors import OpenClusterError
from opencluster.targets import load_class


class LineFormatter(logging.Formatter):
    """Writes messages as `core.log_lines` reads them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a message, with its traceback if there is one."""
        # here, as most workers have nothing to say when they start
        from opencluster.core.log_lines import written

        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        moment = f"{seconds}.{int(record.msecs):03d}Z"
        message = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            message = f"{message}\n{record.exc_text}"
        piece = getattr(record, "piece", "")
        return written(moment, record.levelname, record.name, piece, message)


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
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler])


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
