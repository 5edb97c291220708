"""Every known race as a text that says what happens, and is compared with what does.

A scenario that changes on purpose is written anew by ``pytest tests/scenarios
--rewrite``; what changed is then to be read in the diff. The words that scenarios use
are explained in ``scenario_script.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario_script import run_scenario

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    expected = path.read_text()
    happened = run_scenario(expected, tmp_path)
    if request.config.getoption("--rewrite", False):
        path.write_text(happened)
        return
    assert happened == expected


def test_scenarios_are_found() -> None:
    assert FILES


def test_output_that_is_not_what_happens_is_found(tmp_path: Path) -> None:
    text = "> factories a\n> start a\n  0.00  a follows b, 1.b1\n"
    happened = run_scenario(text, tmp_path)
    assert happened == "> factories a\n> start a\n   0.00  a leads, 1.a1\n"
