"""How `opencluster elastic run` comes to run: settings, means, and its process."""

from __future__ import annotations

import json
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from opencluster.config import Config, load
from opencluster.config.elastic import is_elastic_section
from opencluster.core.roles import WORKER
from opencluster.elastic.daemon import Elastic
from opencluster.elastic.keeper import Keeper
from opencluster.elastic.means import Jobs, Means, Workshops
from opencluster.launchers import local
from opencluster.launchers.base import launcher_of
from opencluster.launchers.connection import connect
from opencluster.launchers.description import ClusterFile
from opencluster.launchers.record import recorded
from opencluster.net.control import Control
from opencluster.place import Place

BATCH_LAUNCHERS = ("slurm", "pbs")
THREADS = 8
"""Orders that are carried out at a time, and a question to a batch system."""
LOG = "elastic"
"""Name of the log of one that runs in the background."""


def settings_for(place: Place) -> Config:
    """Return the settings of this process, with what the cluster file says.

    That is the file that the cluster of this place was launched by, if it was.
    """
    file = recorded(place)
    return load(overrides={} if file is None else _overrides(file))


def elastic_of(config: Config, place: Place) -> Elastic:
    """Return what looks after the elastic types of a cluster.

    Raises
    ------
    OpenClusterError
        When no type is elastic, or there is no cluster.
    """
    control = connect(config, place)
    executor = ThreadPoolExecutor(THREADS, "opencluster-elastic")

    def close() -> None:
        executor.shutdown(wait=False, cancel_futures=True)
        control.close()

    try:
        means = _means(config, place, control, executor)
        keeper = Keeper(config, place, control, means)
    except BaseException:
        close()
        raise
    return Elastic(config, keeper, close)


def _means(config: Config, place: Place, control: Control, executor: Executor) -> Means:
    file = recorded(place)
    if file is None or file.launcher not in BATCH_LAUNCHERS:
        return Workshops(control, config, executor)
    return Jobs(launcher_of(file, place), each_of(file), config, executor)


def each_of(file: ClusterFile) -> dict[str, int]:
    """Return how many workers of each type a computer brings, by a cluster file."""
    each: dict[str, int] = {}
    for section, values in file.sections.items():
        kind, _, name = section.partition(":")
        if kind == WORKER and name:
            type = values.get("type") or name
            each[type] = each.get(type, 0) + int(values.get("count", "0"))
    return each


# --- in the background ------------------------------------------------------


def start_beside(place: Place) -> bool:
    """Start it in the background, unless it runs or nothing is elastic.

    Returns
    -------
    bool
        Whether it was started.
    """
    if not settings_for(place).elastic_types or local.is_alive(_noted(place)):
        return False
    arguments = ["run", "--dir", str(place.path)]
    row = local.spawn(place, LOG, "elastic", arguments, None)
    path = _note(place)
    path.touch(mode=0o600)
    path.write_text(json.dumps(row))
    return True


def stop_beside(place: Place) -> bool:
    """End the one in the background; ``False`` if there was none."""
    row = _noted(place)
    was_alive = local.is_alive(row)
    # one that has ended by itself is reaped as well
    local.end(row)
    _note(place).unlink(missing_ok=True)
    return was_alive


def _note(place: Place) -> Path:
    return place.path / "elastic-process.json"


def _noted(place: Place) -> dict[str, Any]:
    nobody = {"pid": 0, "start_time": 0.0}
    try:
        row = json.loads(_note(place).read_text())
    except (OSError, ValueError):
        return nobody
    is_row = isinstance(row, dict) and isinstance(row.get("pid"), int)
    return nobody | row if is_row else nobody


def _overrides(file: ClusterFile) -> dict[tuple[str, str], str]:
    return {
        (section, key): text
        for section, values in file.sections.items()
        if section == "elastic" or is_elastic_section(section)
        for key, text in values.items()
    }
