"""A PostgreSQL of the tests' own, as Debian packages it."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

START_TIMEOUT_S = 60.0
OPTIONS = {
    # reached by a socket alone
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",
    # what was committed outlives its processes, if not the computer
    "fsync": "off",
}


def programs() -> Path:
    """Return the folder of the newest PostgreSQL that is installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name)
    )
    assert found, "install the Debian package postgresql, as .ci/run does"
    return found[-1]


class PostgresServer:
    """A server in a temporary directory; it is made by `start`."""

    def __init__(self) -> None:
        # it refuses to run as root, and the tests' own directory is closed to others
        self._user = "postgres" if os.geteuid() == 0 else None
        self.directory = Path(tempfile.mkdtemp(prefix="oc-pg-", dir="/tmp"))
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        self._data = self.directory / "data"
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        made = subprocess.run(
            [
                *(programs() / "initdb", "-D", self._data, "-U", "postgres"),
                *("-A", "trust", "-N", "-E", "UTF8", "--locale=C"),
            ],
            user=self._user,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert made.returncode == 0, made.stdout

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.directory}"

    def start(self) -> None:
        """Start it, and wait until it serves."""
        options = [f"--{name}={value}" for name, value in OPTIONS.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # ends with the test, however that ends
                [
                    *("setpriv", "--pdeathsig", "QUIT", programs() / "postgres"),
                    *("-D", self._data, "-k", self.directory, *options),
                ],
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._serves():
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """Stop it at once, as after a crash."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def pause(self) -> None:
        """Have it hear nobody, although connections stay."""
        for pid in self._family():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._family():
            os.kill(pid, signal.SIGCONT)

    def fresh_url(self) -> str:
        """Return the URL of an empty set of tables."""
        name = f"queue_{next(self._numbers)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}&options=-csearch_path%3D{name}"

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _serves(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _family(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [pid, *map(int, children.split())]
