"""What runs on a computer of a job ends with it, also when the job is killed.

PBS without control groups kills nothing but the sessions that it has made, and daemons
have their own. So a process beside them waits for the end of who started them: it runs
this module.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from opencluster.launchers import embedded, node
from opencluster.launchers.order import Order
from opencluster.place import Place


@contextmanager
def ended_anyway(order: Order) -> Iterator[None]:
    """Have all that an order starts killed when this process is.

    Parameters
    ----------
    order : Order
        What runs on this computer.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "opencluster.launchers.batch.ending"],
        stdin=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(replace(order, files={}, keys={}).to_json())
        process.stdin.flush()
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    """Read an order until its writer has ended, and kill what it has started."""
    order = Order.from_json(sys.stdin.read())
    # the time of the job is over; workers are killed with their workshop
    for daemon in embedded.strays(Place(Path(order.directory))):
        embedded.end(daemon, timeout_s=0.0)
    node.down(order)


if __name__ == "__main__":
    main()
