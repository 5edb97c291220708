"""What axe says of a page: whether everybody can read and use it."""

from __future__ import annotations

import json
from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

LOOKS: tuple[tuple[Literal["light", "dark"], dict[str, Any]], ...] = (
    ("light", {}),
    ("dark", {"runOnly": ["color-contrast"]}),
)
"""Colour schemes, and what is asked in each: only colours differ by it."""


def violations(page: Page) -> list[str]:
    """Return what is wrong with a page, light and dark."""
    found = []
    page.evaluate(AXE_SCRIPT)
    for scheme, rules in LOOKS:
        page.emulate_media(color_scheme=scheme)
        expect(page.locator(f"html[data-bs-theme={scheme}]")).to_have_count(1)
        # of what is as it should be, no list
        options = json.dumps({"resultTypes": ["violations"], **rules})
        answer = page.evaluate(f"axe.run({options})")
        found += [
            f"{page.url} ({scheme}): {violation['id']}: {node['html'][:160]}\n"
            f"    {node['failureSummary'][:300]}"
            for violation in answer["violations"]
            for node in violation["nodes"][:3]
        ]
    return found
