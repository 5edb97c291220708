"""Dispatchers of the tests: in a thread of the test, or as processes of their own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
from queue_tools import DEADLINE_S, wait_until
from sqlalchemy import make_url

from opencluster import TaskDispatcher
from opencluster.config import Config
from opencluster.config.settings import TaskQueueSettings
from opencluster.place import Place
from opencluster.taskqueue import TaskQueue

ROOT = Path(__file__).parent.parent.parent
QUICK = {"poll_interval_s": 0.05, "retry_delay_s": 0.0, "stop_grace_s": 10.0}
"""So that tests do not wait; leases are long, as computers of tests are busy."""


class Scene:
    """A queue, its dispatchers, and files through which tasks are held back."""

    def __init__(self, url: str, directory: Path, stack: ExitStack) -> None:
        self.url = url
        self.directory = directory
        self.place = Place(directory / "c")
        self.queue = stack.enter_context(TaskQueue(url, config=Config()))
        self.log = directory / "log"
        self.gate = directory / "gate"
        self._stack = stack

    def dispatcher(self, **settings: Any) -> InThread:
        """Start a dispatcher in a thread; it is stopped at the end."""
        options = {n: settings.pop(n) for n in OPTIONS if n in settings}
        raises = settings.pop("raises", ())
        chosen = TaskQueueSettings(url=self.url, **(QUICK | settings))
        config = Config(taskqueue=chosen)
        return self._stack.enter_context(
            InThread(TaskDispatcher(config, self.place, **options), raises)
        )

    def process(self, *arguments: str, **settings: Any) -> Process:
        """Start a dispatcher as users do; it is killed at the end."""
        chosen = QUICK | {"url": self.url} | settings
        named = {
            f"OPENCLUSTER_TASKQUEUE_{n.upper()}": str(v) for n, v in chosen.items()
        }
        return self._stack.enter_context(Process(self, arguments, named))

    def await_begin(self, number: int, attempt: int = 1) -> int:
        """Wait until the manager of a task has said something; return its process."""
        wait_until(
            lambda: (
                self.queue.show(number).attempt >= attempt
                and self.queue.show(number).progress is not None
            ),
            f"task {number} was not begun",
        )
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [int(pid) for what, _, pid, _ in lines if what == "begun"][-1]

    def suspend(self, process: Process) -> None:
        """Have a dispatcher stand still, and not while nobody else may write for it."""
        process.send(signal.SIGSTOP)
        while self._is_locked():
            process.send(signal.SIGCONT)
            wait_until(lambda: not self._is_locked())
            process.send(signal.SIGSTOP)

    def _is_locked(self) -> bool:
        url = make_url(self.url)
        if url.get_backend_name() != "sqlite":
            return False
        with closing(sqlite3.connect(str(url.database), timeout=0.2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False


OPTIONS = ("managers", "only", "until_empty")


class InThread:
    """A dispatcher that runs beside the test.

    Attributes
    ----------
    error : Exception or None
        What it raised, of what it may raise.
    """

    def __init__(
        self, dispatcher: TaskDispatcher, raises: type | tuple[type, ...] = ()
    ) -> None:
        self.dispatcher = dispatcher
        self.error: BaseException | None = None
        self._raises = raises
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.dispatcher.run()
        except self._raises as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the dispatcher did not end"

    def stop(self) -> None:
        self.dispatcher.stop()
        self.join()

    def __enter__(self) -> InThread:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread.is_alive():
            self.dispatcher.stop()
            self.stop()


class Process:
    """A dispatcher that is a process."""

    def __init__(
        self, scene: Scene, arguments: tuple[str, ...], settings: dict[str, str]
    ) -> None:
        self._output = (scene.directory / f"output-{len(settings)}").open("w+")
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "opencluster", "dispatcher", *arguments],
            env=os.environ | settings | {"OPENCLUSTER_DIR": str(scene.place.path)},
            cwd=ROOT,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def send(self, number: int) -> None:
        self.popen.send_signal(number)

    def wait(self) -> int:
        return self.popen.wait(DEADLINE_S)

    def said(self) -> str:
        return Path(self._output.name).read_text()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self.popen.send_signal(signal.SIGCONT)
        self.popen.kill()
        self.popen.wait()
        self._output.close()


def await_end_of(pid: int) -> None:
    """Wait until a process is gone."""
    wait_until(lambda: has_ended(pid), f"process {pid} did not end")


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, be it that nobody has reaped it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
