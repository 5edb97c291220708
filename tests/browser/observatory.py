"""A small observatory with its pages served, and a browser that looks at them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from opencluster.testing import LocalCluster

PROGRAM = Path(__file__).with_name("observing.py")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NAME, PASSWORD = "anna", "nine antennas"
SETTINGS = {
    "cluster.heartbeat_interval_s": 0.5,
    "workshop.restart_delay_s": 0.1,
    "manager.max_kills": 2,
}
TIMEOUT_MS = 30_000


@dataclass
class Observatory:
    """A cluster and its pages.

    Attributes
    ----------
    cluster : LocalCluster
        The cluster.
    url : str
        Where the pages are.
    link : str
        Makes the first administrator, once.
    """

    cluster: LocalCluster
    url: str
    link: str

    def work(self, frames: int, s: float, *more: str) -> subprocess.Popen[bytes]:
        """Begin a night's work in a script of its own."""
        argv = [sys.executable, str(PROGRAM), str(frames), str(s), *more]
        return subprocess.Popen(argv, stderr=subprocess.DEVNULL)

    def run(self, *arguments: str) -> str:
        """Run a command, and return what it prints."""
        argv = [sys.executable, "-m", "opencluster", *arguments]
        return subprocess.run(
            argv, capture_output=True, text=True, check=True
        ).stdout.strip()


@contextmanager
def observatory() -> Iterator[Observatory]:
    """Start a cluster of three calibrating and two gridding workers, and its pages."""
    workers = {f"{PROGRAM}:CalibrateWorker": 3, f"{PROGRAM}:GridWorker": 2}
    with LocalCluster(workers, SETTINGS) as cluster:
        argv = [sys.executable, "-m", "opencluster", "web", "--bind", "127.0.0.1:0"]
        server = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        with server:
            assert server.stderr is not None
            told = [server.stderr.readline() for _ in range(3)]
            url = re.search(r"http://127\.0\.0\.1:\d+/", told[0])
            assert url is not None, told
            try:
                yield Observatory(cluster, url[0], told[2].strip())
            finally:
                server.terminate()


@contextmanager
def browser() -> Iterator[Browser]:
    """Start the Chromium of this computer, without a window.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise FileNotFoundError(f"there is no browser here: install {BROWSERS[0]}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


def become_administrator(page: Page, site: Observatory) -> None:
    """Follow the first link, and choose a name and a password."""
    page.goto(site.link)
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("The same password again").fill(PASSWORD)
    page.get_by_role("button", name="Begin").click()
    page.wait_for_url(site.url)
