"""The pages as people use them, in a real browser on a real cluster."""

from __future__ import annotations

import os
import re
import signal
from urllib.parse import urlsplit

import pytest
from accessibility import violations
from observatory import NAME, PASSWORD, PROGRAM, Observatory
from playwright.sync_api import Browser, Page, expect

from opencluster.observe.status import status_of

SECTIONS = (
    *("/", "/computers", "/workers", "/services", "/factories", "/jobs/", "/tasks/"),
    *("/letters", "/events", "/logs", "/account", "/users", "/audit"),
)
DETAILS = ("/computers/", "/workers/", "/jobs/", "/letters/", "/services/")


def workers_of(site: Observatory, type: str) -> list[dict[str, object]]:
    rows = status_of(site.cluster.ask_factory("status"))["workers"]
    return [row for row in rows if row["type"] == type and row["state"] != "lost"]


@pytest.mark.usefixtures("administrator")
def test_who_is_not_known_is_asked_and_led_back(
    chromium: Browser, site: Observatory
) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(site.url + "workers?type=Grid")
    assert "/login?next=" in page.url
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill("wrong password")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("do not belong together")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/workers?type=Grid")
    expect(page.locator("tr[data-key]")).to_have_count(2)
    expect(page.get_by_role("link", name=NAME)).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("status")).to_contain_text("logged out")
    page.goto(site.url)
    assert "/login" in page.url
    context.close()


def test_a_job_is_watched_as_it_runs(page: Page, site: Observatory) -> None:
    page.goto(site.url + "jobs")
    script = site.work(40, 0.1)
    try:
        # without a reload: the page hears of it
        row = page.get_by_role("row").filter(has_text="NightManager").first
        expect(row).to_contain_text("running")
        expect(row).to_contain_text("done", timeout=60_000)
    finally:
        assert script.wait(60) == 0
    row.get_by_role("link").first.click()
    expect(page.locator(".bk-Figure, .bk-GridPlot").first).to_be_visible()
    expect(page.get_by_text("no antennas in this frame").first).to_be_visible()


def test_a_worker_is_stopped_and_another_started(page: Page, site: Observatory) -> None:
    page.goto(site.url + "workers?type=Grid")
    # the other tests have killed some
    expect(page.locator("tr[data-key]")).to_have_count(2)
    (before, other) = sorted(str(row["name"]) for row in workers_of(site, "Grid"))
    row = page.locator("tr[data-key]").filter(has_text=before)
    row.get_by_role("link", name=re.compile("Stop")).click()
    page.get_by_role("button", name=re.compile("Stop")).click()
    page.goto(site.url + "workers?type=Grid")
    expect(page.locator("tr[data-key]")).to_have_count(1)
    expect(page.locator("tr[data-key]")).to_contain_text(other)
    site.run("scale", "Grid=2")
    expect(page.locator("tr[data-key]")).to_have_count(2)


def test_a_worker_that_is_killed_is_told(page: Page, site: Observatory) -> None:
    (victim, *_) = workers_of(site, "Calibrate")
    page.goto(site.url + "events")
    os.kill(int(str(victim["pid"])), signal.SIGKILL)
    expect(page.get_by_text(str(victim["name"])).first).to_be_visible()
    page.goto(site.url)
    expect(page.get_by_text("SIGKILL").first).to_be_visible()


def test_a_task_is_cancelled(page: Page, site: Observatory) -> None:
    site.run("submit", f"{PROGRAM}:NightManager", "frames=1")
    page.goto(site.url + "tasks")
    row = page.get_by_role("row").filter(has_text="NightManager").first
    row.get_by_role("link").first.click()
    page.locator("summary", has_text="Cancel").click()
    page.get_by_role("button", name="Cancel this task").click()
    page.goto(site.url + "tasks")
    row = page.get_by_role("row").filter(has_text="NightManager").first
    expect(row).to_contain_text("cancelled")


def test_a_log_is_read_and_searched(page: Page, site: Observatory) -> None:
    script = site.work(6, 0.01)
    assert script.wait(60) == 0
    page.goto(site.url + "logs")
    expect(page.get_by_text("is calibrated").first).to_be_visible()


def test_an_observer_looks_and_does_nothing(
    page: Page, chromium: Browser, site: Observatory
) -> None:
    link = site.run("web", "adduser", "carl", "--role", "observer", "--link")
    path = re.search(r"/welcome/\S+", link)
    assert path is not None
    context = chromium.new_context()
    carl = context.new_page()
    carl.goto(site.url.rstrip("/") + path[0])
    carl.get_by_label("Password", exact=True).fill("twelve telescopes")
    carl.get_by_label("The same password again").fill("twelve telescopes")
    carl.get_by_role("button", name="Begin").click()
    carl.goto(site.url + "workers")
    expect(carl.locator("tr[data-key]").first).to_be_visible()
    expect(carl.get_by_role("link", name=re.compile("Stop"))).to_have_count(0)
    expect(carl.get_by_role("link", name="Audit")).to_have_count(0)
    carl.goto(site.url + "users")
    expect(carl.get_by_role("heading", level=1)).to_contain_text("Forbidden")
    context.close()
    page.goto(site.url + "audit")
    written = page.get_by_text("choose a password by a one-time link")
    expect(written.first).to_be_visible()


def test_pages_fit_a_phone(page: Page, site: Observatory) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for address in ("", "computers", "workers", "events", "audit", "account"):
        page.goto(site.url + address)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, address


def test_axe_finds_nothing_amiss(page: Page, site: Observatory) -> None:
    # so that there are errors, deaths and dead letters to look at
    site.work(20, 0.01, "die").wait(60)
    amiss: list[str] = []
    waiting, details = list(SECTIONS), set(DETAILS)
    while waiting:
        address = waiting.pop(0)
        answer = page.goto(site.url.rstrip("/") + address)
        assert answer is not None and answer.ok, address
        links = page.eval_on_selector_all(
            "main a[href]", "links => links.map(link => link.href)"
        )
        for path in (urlsplit(link).path for link in links):
            kind = next((each for each in details if path.startswith(each)), "")
            # one of each kind
            if kind and path.count("/") == 2 and path != kind:
                details.remove(kind)
                waiting.append(path)
        amiss += violations(page)
    assert not amiss, "\n".join(amiss)
    assert not details & {"/computers/", "/workers/", "/jobs/"}
