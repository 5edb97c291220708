"""A browser, and an observatory for the tests of a module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from observatory import (
    BROWSERS,
    TIMEOUT_MS,
    Observatory,
    become_administrator,
    browser,
    observatory,
)
from playwright.sync_api import Browser, Page


# not longer: event loop and settings would be in the way of other tests
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("needs Chromium: apt-get install chromium")
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def site(chromium: Browser) -> Iterator[Observatory]:
    with observatory() as opened:
        page = chromium.new_page()
        become_administrator(page, opened)
        page.context.storage_state(path=opened.cluster.place.path / "cookies.json")
        page.close()
        yield opened


@pytest.fixture
def page(chromium: Browser, site: Observatory) -> Iterator[Page]:
    """Yield a page of the administrator, on which no program failed."""
    cookies = site.cluster.place.path / "cookies.json"
    context = chromium.new_context(
        storage_state=cookies, viewport={"width": 1280, "height": 900}
    )
    context.set_default_timeout(TIMEOUT_MS)
    opened = context.new_page()
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on(
        "console",
        lambda message: (
            failures.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )
    yield opened
    context.close()
    assert failures == []
