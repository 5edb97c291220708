"""Runs ``opencluster`` in processes of its own, as users do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from unittest.mock import patch

from opencluster.cli import main
from opencluster.cli.status import ask
from opencluster.config import load
from opencluster.launchers import embedded
from opencluster.launchers.connection import connect
from opencluster.place import Place

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = Path(__file__).with_name("cli_programs.py")
TIMEOUT_S = 60.0


class Cli:
    """The command line, in a cluster directory of its own.

    Parameters
    ----------
    directory : Path
        Holds the cluster, and the user's configuration and state.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.place = Place(directory / "c")
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OPENCLUSTER_")
        } | {
            "OPENCLUSTER_DIR": str(self.place.path),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "XDG_STATE_HOME": str(directory / "state"),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }
        self._background: list[Background] = []

    def __call__(
        self, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "opencluster", *arguments],
            env=self.environment | (environment or {}),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def here(
        self, *arguments: str, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command without a process of its own, which takes a tenth of the time.

        For one that answers, or has the cluster do something, and then ends.
        """
        out, errors = StringIO(), StringIO()
        code = 0
        with (
            patch.dict(os.environ, self.environment | (environment or {}), clear=True),
            chdir(self.directory),
            redirect_stdout(out),
            redirect_stderr(errors),
        ):
            try:
                main.main(list(arguments), prog_name="opencluster")
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(
            arguments, code, out.getvalue(), errors.getvalue()
        )

    def ok_here(self, *arguments: str) -> str:
        """Return what a command prints that must succeed, without a process for it."""
        done = self.here(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run a command that must succeed, and return what it printed."""
        done = self(*arguments, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def background(self, *arguments: str) -> Background:
        """Start a command; it is killed at the end of the test."""
        argv = [sys.executable, "-m", "opencluster", *arguments]
        started = Background(argv, self.environment, self.directory)
        self._background.append(started)
        return started

    def status(self) -> dict[str, Any]:
        """Return what ``status --json`` says."""
        status: dict[str, Any] = json.loads(self.ok_here("status", "--json"))
        return status

    def status_when(self, is_met: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the first status that meets a condition.

        As ``status --json`` says it, but without a process for each look.
        """
        seen: list[dict[str, Any]] = []

        def has_come() -> bool:
            seen[:] = [json.loads(json.dumps(ask(control)))]
            return bool(is_met(seen[0]))

        with connect(load(environ=self.environment), self.place) as control:
            self.wait_until(has_come)
        return seen[0]

    def wait_until(self, has_come: Callable[[], object]) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + TIMEOUT_S
        while not has_come():
            assert time.monotonic() < deadline, "it did not come"
            time.sleep(0.02)

    def end_work(self) -> None:
        """End what the commands started in the cluster, which itself goes on."""
        self._end_background()
        status = self.status()
        ids = [row["id"] for kind in ("workers", "services") for row in status[kind]]
        if ids:
            self.ok_here("stop", *ids)

    def close(self) -> None:
        """End everything that the commands started."""
        self._end_background()
        embedded.stop(self.place)

    def _end_background(self) -> None:
        while self._background:
            self._background.pop().close()


class Background:
    """A command that runs beside the test."""

    def __init__(
        self, argv: list[str], environment: dict[str, str], directory: Path
    ) -> None:
        self.process = subprocess.Popen(
            argv,
            env=environment,
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # as from a terminal, although the tests may run where it is ignored
            preexec_fn=_heed_interrupts,
        )
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def line_with(self, text: str) -> str:
        """Return the next line that holds a text."""
        deadline = time.monotonic() + TIMEOUT_S
        seen = []
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"{text!r} did not come; seen: {seen}") from None
            seen.append(line)
            if text in line:
                return line

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(TIMEOUT_S)

    def rest(self) -> str:
        """Return the output that nobody asked for, once the process has ended."""
        self._reader.join(TIMEOUT_S)
        return "".join(
            iter(lambda: "" if self._lines.empty() else self._lines.get(), "")
        )

    def close(self) -> None:
        """Kill it if it still runs."""
        self.process.kill()
        self.process.wait()
        self._reader.join(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
