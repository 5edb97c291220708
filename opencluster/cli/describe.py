"""``python -m opencluster.cli.describe TARGET`` prints what a class registers."""

from __future__ import annotations

import sys

from opencluster.errors import OpenClusterError
from opencluster.manager import Manager
from opencluster.service import Service, name_of
from opencluster.targets import load_class
from opencluster.worker import Worker, type_of


def main(target: str) -> None:
    """Print ``worker TYPE``, ``service NAME`` or ``manager NAME``."""
    cls = load_class(target)
    if issubclass(cls, Worker):
        print("worker", type_of(cls))
    elif issubclass(cls, Service):
        print("service", name_of(cls))
    elif issubclass(cls, Manager):
        print("manager", cls.__name__)
    else:
        sys.exit(f"{target} is neither a Worker, nor a Service, nor a Manager")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except OpenClusterError as error:
        sys.exit(str(error))
