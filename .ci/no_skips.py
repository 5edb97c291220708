"""Fail when a test was skipped although the machine could have run it.

Reads the JUnit file of a pytest run. A skip whose reason holds ``hardware:`` is
accepted, since no package can be installed for a missing GPU.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

ACCEPTED = "hardware:"


def skips(path: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the reason of each test that should not have been skipped."""
    for case in ElementTree.parse(path).iter("testcase"):
        skip = case.find("skipped")
        if skip is None or skip.get("type") == "pytest.xfail":
            continue
        reason = skip.get("message", "")
        if reason == "collection skipped":  # a whole module; the reason is inside
            reason = (skip.text or "").strip()
        if ACCEPTED not in reason:
            yield f"{case.get('classname')}::{case.get('name')}", reason


def main() -> int:
    """Print the skips of the file that the first argument names; 1 if there are any."""
    found = list(skips(sys.argv[1]))
    for name, reason in found:
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    if found:
        print(f"{len(found)} tests were skipped that CI has to run", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
