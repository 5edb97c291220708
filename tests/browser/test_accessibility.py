"""All pages can be read and used by everybody: axe looks at each, light and dark."""

from __future__ import annotations

from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from observatory import Observatory
from playwright.sync_api import Page, expect

SECTIONS = (
    *("/", "/computers", "/workers", "/services", "/factories", "/jobs/", "/tasks/"),
    *("/letters", "/events", "/logs", "/account", "/users", "/audit"),
)
DETAILS = ("/computers/", "/workers/", "/jobs/", "/letters/", "/services/")


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
        amiss += _violations(page, address)
    assert not amiss, "\n".join(amiss)
    assert not details & {"/computers/", "/workers/", "/jobs/"}


def _violations(page: Page, address: str) -> list[str]:
    """Return what is wrong with a page, light and dark."""
    found = []
    # only colours differ by it
    for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        page.emulate_media(
            color_scheme=scheme,  # type: ignore[arg-type]
            reduced_motion="reduce",
        )
        expect(page.locator(f"html[data-bs-theme={scheme}]")).to_have_count(1)
        found += [
            f"{address} ({scheme}): {violation['id']}: {node['html'][:160]}\n"
            f"    {node['failureSummary'][:300]}"
            for violation in Axe().run(page, options=options).response["violations"]
            for node in violation["nodes"][:3]
        ]
    return found
