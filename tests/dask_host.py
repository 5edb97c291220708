"""Dask workers in a process: ``python dask_host.py ADDRESS COUNT TYPE...``.

Each has one thread and one of each resource that is named. It ends when its standard
input does, as it is its parent's.
"""

from __future__ import annotations

import asyncio
import os
import sys

import dask
from distributed import Worker

QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.event-loop-monitor-interval": "1h",
    "distributed.logging.distributed": "critical",
}


async def main(address: str, count: int, types: list[str]) -> None:
    """Run Dask workers until the parent closes its end of the pipe, or has gone."""
    workers = [
        Worker(
            address,
            nthreads=1,
            resources=dict.fromkeys(types, 1),
            host="127.0.0.1",
            name=f"{os.getpid()}-{number}",
            dashboard=False,
            memory_limit=0,
            heartbeat_interval="2s",
        )
        for number in range(count)
    ]
    await asyncio.gather(*workers)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    # asked for one after the other, they would wait for each other's data
    await asyncio.wait_for(asyncio.gather(*(w.close(timeout=2) for w in workers)), 10)


if __name__ == "__main__":
    with dask.config.set(QUIET):
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
