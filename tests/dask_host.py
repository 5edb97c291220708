"""Dask workers in a process: ``python dask_host.py ADDRESS COUNT TYPE[=N]...``.

Each offers the resources that are named, one of each unless it is said how many, and
has as many threads as are needed for one of them. What stands behind a lone ``first``
is offered by the first of them alone. It ends when its standard input does, as it is
its parent's.
"""

from __future__ import annotations

import asyncio
import os
import sys

import dask
from dask_quiet import QUIET
from distributed import Worker


def resources(types: list[str], is_first: bool) -> dict[str, int]:
    """Return what a worker offers."""
    place = types.index("first") if "first" in types else len(types)
    meant = types[:place] + (types[place + 1 :] if is_first else [])
    pairs = (text.partition("=") for text in meant)
    return {name: int(number or 1) for name, _, number in pairs}


async def main(address: str, count: int, types: list[str]) -> None:
    """Run Dask workers until the parent closes its end of the pipe, or has gone."""
    offers = [resources(types, number == 0) for number in range(count)]
    workers = [
        Worker(
            address,
            nthreads=max(offers[number].values()),
            resources=offers[number],
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
