"""Every test that docs/guarantees.md names exists, and every promise names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = re.findall(r"^- (tests/\S+)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("named", sorted(set(NAMED)))
def test_a_test_that_is_named_exists(named: str) -> None:
    file, _, name = named.partition("::")
    # a machine of hypothesis becomes a test by an assignment
    wanted = rf"def {name}\(" if name else r"(def test_|Test\w+ = )"
    assert re.search(rf"^{wanted}", (ROOT / file).read_text(), re.MULTILINE)


def test_every_promise_names_a_test() -> None:
    promises = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
    assert len(promises) > 15
    for promise in promises:
        title, _, text = promise.partition("\n")
        assert "\n- tests/" in text, title
