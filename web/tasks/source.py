"""Where pages find the task queue; it is opened when somebody asks."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flask import current_app

from opencluster.config import Config
from opencluster.place import Place

if TYPE_CHECKING:
    from opencluster.taskqueue import TaskQueue

PATIENCE_S = 2.0
"""A page does not wait longer for a database that is lost."""


class TaskSource:
    """The queue of a cluster; may be asked from several threads.

    Parameters
    ----------
    config : Config
        The settings, of which ``[taskqueue] url`` names the database.
    place : Place
        The cluster's directory, where it is by default.
    """

    def __init__(self, config: Config, place: Place) -> None:
        self._config = config
        self._place = place
        self._lock = threading.Lock()
        self._queue: TaskQueue | None = None

    def queue(self) -> TaskQueue | None:
        """Return the queue, or ``None`` as long as nobody has used one.

        Raises
        ------
        OpenClusterError
            When its database cannot be reached.
        """
        # what needs SQLAlchemy is not needed by pages that show no tasks
        from opencluster.taskqueue import TaskQueue
        from opencluster.taskqueue.queue import FILE_NAME

        with self._lock:
            path = self._place.path / FILE_NAME
            url = self._config.taskqueue.url
            if self._queue is None and (url or path.exists()):
                # named, as looking makes no directories
                self._queue = TaskQueue(
                    url or f"sqlite:///{path}",
                    config=self._config,
                    patience_s=PATIENCE_S,
                )
            return self._queue

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            if self._queue is not None:
                self._queue.close()
            self._queue = None


def task_source() -> TaskSource:
    """Return the queue of the application that answers."""
    source: TaskSource = current_app.extensions["opencluster_tasks"]
    return source
