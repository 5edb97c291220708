"""How `opencluster elastic run` comes to run: settings, means, and its process."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

from opencluster.config import Config, load
from opencluster.config.elastic import ElasticType
from opencluster.core.roles import WORKER
from opencluster.elastic.daemon import Elastic
from opencluster.elastic.keeper import Keeper
from opencluster.elastic.means import QUEUE_LOOK_S, Jobs, Means, Workshops
from opencluster.elastic.memory import Memory
from opencluster.launchers import embedded
from opencluster.launchers.base import launcher_of
from opencluster.launchers.connection import connect
from opencluster.launchers.description import BATCH_LAUNCHERS, ClusterFile, is_elastic
from opencluster.launchers.record import recorded
from opencluster.net.control import Control
from opencluster.place import Place

THREADS = 64
"""Orders that are carried out at a time, and a question to a batch system.

Each job that is given back takes one until it has ended, which can be long.
"""
LOG = "elastic"
"""Name of the log of one that runs in the background."""
LOCK = "elastic.lock"
COMMANDS = (["elastic", "run"],)
"""By which it is known: a note of it would be missing when its author was killed."""


def settings_for(place: Place) -> Config:
    """Return the settings of this process, with what the cluster file says.

    That is the file that the cluster of this place was launched by, if it was.
    """
    file = recorded(place)
    return load(overrides={} if file is None else _overrides(file))


def elastic_in(file: ClusterFile) -> tuple[ElasticType, ...]:
    """Return the types that are elastic in a cluster file, and in our settings."""
    return load(overrides=_overrides(file)).elastic_types


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
    # a job that is drained ends when it is empty
    ending_s = max(config.elastic.ending_s, file.batch.drain_before_s + QUEUE_LOOK_S)
    config = replace(config, elastic=config.elastic.changed(ending_s=ending_s))
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
    if not settings_for(place).elastic_types:
        return False
    with embedded.alone(place, LOCK):
        if embedded.strays(place, COMMANDS):
            return False
        # whoever starts it wants what was stopped, too
        Memory(place).forgive()
        arguments = ["run", "--dir", str(place.path)]
        embedded.spawn(place, LOG, "elastic", arguments, None)
    return True


def stop_beside(place: Place) -> bool:
    """End those in the background; ``False`` if there was none."""
    running = embedded.strays(place, COMMANDS)
    for row in running:
        embedded.end(row)
    embedded.reap()
    return bool(running)


def _overrides(file: ClusterFile) -> dict[tuple[str, str], str]:
    return {
        (section, key): text
        for section, values in file.sections.items()
        if is_elastic(section)
        for key, text in values.items()
    }
