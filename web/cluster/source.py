"""Where pages find the cluster: how it is, from a factory, and how it was.

While the application is served, a `Watcher` looks each second for everybody and keeps
what it sees; of several servers of one cluster's directory, one keeps. Without a server
a look is made when somebody asks. What was kept is shown in either case.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, TextIO

from flask import current_app

from opencluster.config import Config
from opencluster.core.journal import Event
from opencluster.core.sampling import Sample
from opencluster.errors import HistoryError, OpenClusterError
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.observe.status import Row, status_of
from opencluster.observe.watcher import Watcher
from opencluster.place import Place
from opencluster.store.history import History

if TYPE_CHECKING:
    from opencluster.taskqueue import TaskQueue

log = logging.getLogger(__name__)

FRESH_S = 1.0
"""For which an answer is good for everybody; figures change with every heartbeat."""
PATIENCE_S = 3.0
"""A page does not wait longer for a factory."""
HISTORY = "history.db"
"""What was, in the cluster's directory."""
Status = Mapping[str, list[Row]]

NOTHING: Status = {
    name: []
    for name in (
        *("factories", "workshops", "workers", "services"),
        *("jobs", "elastic", "failures", "deaths"),
    )
}


@dataclass(frozen=True)
class Look:
    """What was seen of the cluster.

    Attributes
    ----------
    status : mapping
        The last status that came; see docs/status.md.
    trouble : str
        Why there is no newer one, or empty.
    at : float
        When that status was seen, seconds since 1970; 0 for never.
    """

    status: Status = field(default_factory=lambda: NOTHING)
    trouble: str = ""
    at: float = 0.0


class ClusterSource:
    """The status of a cluster and its history; may be asked from several threads.

    Parameters
    ----------
    config : Config
        The settings, which may name the factories.
    place : Place
        The cluster's directory, when they do not.

    Attributes
    ----------
    looks, failed_looks : int
        How often the factories were asked, and how often none answered.
    """

    def __init__(self, config: Config, place: Place) -> None:
        self._config = config
        self._place = place
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._control: Control | None = None
        self._queue: TaskQueue | None = None
        self._history: History | None = None
        self._claim: TextIO | None = None
        self._watcher: Watcher | None = None
        self._loading: threading.Thread | None = None
        self._look = Look()
        self._looked = -FRESH_S
        self.looks = self.failed_looks = 0

    def start(self) -> None:
        """Begin to watch the cluster, and to keep what is seen."""
        self._watcher = Watcher(self._status, self._kept(), FRESH_S, self._queued)
        self._watcher.start()
        # loading Bokeh takes a second, which nobody should wait for
        self._loading = threading.Thread(
            target=import_module, args=("opencluster_web.cluster.plots",), daemon=True
        )
        self._loading.start()

    def look(self) -> Look:
        """Return how the cluster is, or was when it was last heard of."""
        if self._watcher is not None:
            view = self._watcher.view
            if not view.number:
                view = self._watcher.wait(0, 2 * PATIENCE_S)
            return Look(view.status or NOTHING, view.error, view.at)
        with self._lock:
            if time.monotonic() - self._looked >= FRESH_S:
                self._look = self._asked()
                self._looked = time.monotonic()
            return self._look

    @property
    def history(self) -> History | None:
        """What was kept; ``None`` when nothing was, or it cannot be read."""
        with self._opening:
            path = self._place.path / HISTORY
            if self._history is None and path.exists():
                try:
                    self._history = History(path)
                except HistoryError as error:
                    log.warning("%s", error)
            return self._history

    def tell(self, happened: Event) -> None:
        """Keep something that was done here, beside what happens in the cluster."""
        history = self.history
        if history is None:
            return
        try:
            history.record(time.time(), [happened])
        except HistoryError as error:
            log.warning("%s", error)

    @property
    def samples(self) -> Mapping[str, Sample]:
        """The newest samples, by the name of the computer; empty if nobody watches."""
        return self._watcher.samples if self._watcher else {}

    @property
    def is_keeping(self) -> bool:
        """Whether what is seen is kept by this process."""
        return self._watcher is not None and self._watcher.history is not None

    @property
    def silence_s(self) -> float | None:
        """Seconds since the last look ended; ``None`` if nobody watches."""
        if self._watcher is None:
            return None
        return time.monotonic() - self._watcher.looked_at

    @property
    def history_bytes(self) -> int:
        """Size of what was kept, 0 for nothing."""
        path = self._place.path / HISTORY
        try:
            return path.stat().st_size
        except OSError:
            return 0

    def trail(self, identity: str) -> Mapping[str, list[float]]:
        """Return what a process used in the last hour; see `Trails.of`."""
        if self._watcher is None:
            return {"at": [], "rss_bytes": [], "cpu_percent": []}
        return self._watcher.trails.of(identity)

    def close(self) -> None:
        """Look no more, and close everything."""
        if self._watcher is not None:
            self._watcher.close()
        if self._loading is not None:
            self._loading.join()
        with self._lock, self._opening:
            self._disconnect()
            if self._queue is not None:
                self._queue.close()
            if self._history is not None:
                self._history.close()
            if self._claim is not None:
                self._claim.close()

    # --- looking -------------------------------------------------------------

    def _asked(self) -> Look:
        try:
            return Look(self._status(), "", time.time())
        except OpenClusterError as error:
            return Look(self._look.status, str(error), self._look.at)

    def _status(self) -> dict[str, list[Row]]:
        self.looks += 1
        try:
            if self._control is None:
                self._control = connect(self._config, self._place)
            answer = self._control.factory("status", None, PATIENCE_S, may_be_old=True)
        except OpenClusterError as error:
            log.info("%s", error)
            self.failed_looks += 1
            # another cluster may be there the next time
            self._disconnect()
            raise
        return status_of(answer)

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None

    def _queued(self) -> int:
        """Return how many tasks wait in the queue, if there is one."""
        from opencluster.taskqueue import TaskQueue
        from opencluster.taskqueue.queue import FILE_NAME

        path = self._place.path / FILE_NAME
        if not self._config.taskqueue.url and not path.exists():
            return 0
        try:
            if self._queue is None:
                self._queue = TaskQueue(
                    config=self._config, place=self._place, patience_s=0.0
                )
            return self._queue.counts()["queued"]
        except OpenClusterError as error:
            log.info("%s", error)
            return 0

    # --- keeping -------------------------------------------------------------

    def _kept(self) -> History | None:
        """Return where to keep what is seen, unless another server does so."""
        if not self._config.web.history:
            return None
        path = self._place.path / HISTORY
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            claim = path.with_suffix(".lock").open("w")
        except OSError as error:
            log.warning("no history in %s: %s", path, error.strerror)
            return None
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another server keeps the history in %s", path)
            claim.close()
            return None
        self._claim = claim
        try:
            with self._opening:
                self._history = History(path)
        except HistoryError as error:
            log.warning("%s", error)
        return self._history


def cluster_source() -> ClusterSource:
    """Return the cluster of the application that answers."""
    source: ClusterSource = current_app.extensions["opencluster_cluster"]
    return source
