"""The way to a Dask cluster."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from opencluster.config.loading import ENVIRONMENT
from opencluster.config.settings import Config, DaskSettings
from opencluster.errors import ConfigError, FactoryUnreachable

LOOK_S = 0.05
TRY_S = 2.0
"""How long it is tried whether a Dask worker can be reached from here."""


def scheduler_of(config: Config) -> DaskSettings:
    """Return the settings with one scheduler: a program's goes before a site's."""
    by_program = [
        config.origin("dask", key).startswith(ENVIRONMENT)
        for key in ("address", "scheduler_file")
    ]
    if by_program == [True, False]:
        return config.dask.changed(scheduler_file="")
    return config.dask


def open_client(settings: DaskSettings) -> tuple[Any, bool]:
    """Return a client of the Dask cluster of the settings, and whether it is ours.

    On a Dask worker it is the one that the worker has.

    Raises
    ------
    ConfigError
        When Dask is not installed, or nothing names a scheduler.
    FactoryUnreachable
        When no scheduler answers.
    """
    try:
        import dask
        import distributed
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the engine dask needs the package distributed ({error}): pip install "
            "'opencluster[dask]'"
        ) from None
    here = _here(distributed)
    if here is not None:
        return here, False
    address = settings.address or dask.config.get("scheduler-address", None)
    where = settings.scheduler_file or address
    if not where:
        raise ConfigError(
            "the engine dask is on a Dask cluster that is there already: name its "
            "scheduler with --dask-address tcp://HOST:8786, OPENCLUSTER_DASK_ADDRESS, "
            "[dask] address or [dask] scheduler_file"
        )
    if settings.scheduler_file:
        _await_file(Path(settings.scheduler_file), settings.connect_timeout_s)
    named = (
        {"scheduler_file": settings.scheduler_file}
        if settings.scheduler_file
        else {"address": address}
    )
    try:
        client = distributed.Client(
            **named,
            timeout=settings.connect_timeout_s,
            set_as_default=False,
            direct_to_workers=settings.direct == "yes",
        )
    except (OSError, ValueError, TimeoutError) as error:
        raise FactoryUnreachable(
            f"no Dask scheduler answers at {where}: {error}; see whether it runs, and "
            "whether this computer may reach it"
        ) from None
    if settings.direct == "auto":
        client.direct_to_workers = client.sync(_reaches_a_worker, client)
    return client, True


def _await_file(path: Path, limit_s: float) -> None:
    """Wait until a scheduler has written where it is, which Dask would do for ever."""
    deadline = time.monotonic() + limit_s
    while not path.exists():
        if time.monotonic() > deadline:
            raise FactoryUnreachable(
                f"no Dask scheduler wrote its address into {path}: correct [dask] "
                f"scheduler_file, or start one with `dask scheduler --scheduler-file "
                f"{path}`"
            )
        time.sleep(LOOK_S)


def _here(distributed: Any) -> Any:
    try:
        worker = distributed.get_worker()
    except ValueError:
        return None
    return worker._get_client()


async def _reaches_a_worker(client: Any) -> bool:
    """Return whether a Dask worker can be reached past the scheduler."""
    identity = await client.scheduler.identity()
    for address in list(identity["workers"])[:1]:
        try:
            async with asyncio.timeout(TRY_S):
                await client.rpc(address).identity()
        except Exception:
            return False
    return True
