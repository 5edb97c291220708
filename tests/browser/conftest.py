"""A browser, and an observatory for the tests of a module."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from observatory import (
    BROWSERS,
    TIMEOUT_MS,
    Observatory,
    become_administrator,
    browser,
    observatory,
)
from playwright.sync_api import Browser, BrowserContext, Page

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with these tests.

    What comes first is never handed on from one parallel run to another, which would
    start a browser and an observatory once more.
    """
    items.sort(key=lambda item: item.path.parent != HERE)


# not longer: event loop and settings would be in the way of other tests
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if not any(map(shutil.which, BROWSERS)):
        pytest.skip("needs Chromium: apt-get install chromium")
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def site() -> Iterator[Observatory]:
    with observatory() as opened:
        yield opened


@pytest.fixture(scope="module")
def administrator(chromium: Browser, site: Observatory) -> Iterator[BrowserContext]:
    """Yield what the pages of an administrator share: their log-in and their cache."""
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, reduced_motion="reduce"
    )
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    become_administrator(page, site)
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(administrator: BrowserContext) -> Iterator[Page]:
    """Yield a page of the administrator, on which no program failed."""
    opened = administrator.new_page()
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
    opened.close()
    assert failures == []
