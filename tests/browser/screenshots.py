"""Pictures of all pages in light, dark and on a phone: ``make screenshots``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from observatory import Observatory, become_administrator, browser, observatory
from playwright.sync_api import Browser, Page

LOOKS = {
    "light": (1280, 900, "light"),
    "dark": (1280, 900, "dark"),
    "phone": (390, 844, "light"),
}
DETAILS = ("/computers/", "/workers/", "/jobs/", "/letters/", "/tasks/", "/services/")
SETTLE_S = 1.5


def main(folder: Path) -> None:
    """Have an observatory work for a moment, and take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as started, observatory() as site:
        print("an observatory works for half a minute", file=sys.stderr)
        site.work(60, 0.05, "die").wait()
        task = [f"{Path(__file__).with_name('observing.py')}:NightManager"]
        for s in ("0.2", "0.4"):
            site.run("submit", *task, "frames=40", f"s={s}", "is_deadly=False")
        working = site.work(4000, 0.1)
        time.sleep(8)
        page = started.new_page()
        become_administrator(page, site)
        state = page.context.storage_state()
        addresses = pages_of(page, site)
        for name, (width, height, scheme) in LOOKS.items():
            context = started.new_context(
                storage_state=state,
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            for address in addresses:
                take(context.new_page(), site, address, folder, name)
            context.close()
        working.terminate()
        working.wait()
        door(started, site, folder)


def pages_of(page: Page, site: Observatory) -> list[str]:
    """Return the addresses of all sections, and of one detail of each kind."""
    found: list[str] = []
    waiting = ["/"]
    seen_details: set[str] = set()
    while waiting:
        address = waiting.pop(0)
        found.append(address)
        page.goto(site.url.rstrip("/") + address)
        links = page.eval_on_selector_all(
            "nav a[href], main a[href]", "links => links.map(link => link.href)"
        )
        for link in links:
            parts = urlsplit(link)
            path = parts.path
            if not link.startswith(site.url) or path in (*found, *waiting):
                continue
            kind = next((d for d in DETAILS if path.startswith(d)), None)
            is_section = path.count("/") == 1 and "." not in path
            if is_section:
                waiting.append(path)
            elif kind and kind not in seen_details and path.count("/") == 2:
                seen_details.add(kind)
                waiting.append(path)
    return found


def take(page: Page, site: Observatory, address: str, folder: Path, look: str) -> None:
    """Take a picture of a page when its plots are drawn."""
    page.goto(site.url.rstrip("/") + address)
    page.wait_for_timeout(1000 * SETTLE_S)
    name = address.strip("/").replace("/", "-") or "overview"
    path = folder / f"{name[:40]}-{look}.png"
    page.screenshot(path=path, full_page=True)
    page.close()
    print(path)


def door(started: Browser, site: Observatory, folder: Path) -> None:
    """Take a picture of what somebody sees who is not known."""
    page = started.new_page()
    page.goto(site.url)
    page.screenshot(path=folder / "login-light.png")
    page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots"))
