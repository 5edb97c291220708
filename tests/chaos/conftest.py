"""Every outcome is told to whoever runs these tests, as a table at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from chaos_report import Outcome, Tell, table

PROPERTY = "outcome"


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Tell:
    """Return what prints an outcome, and adds it to the table."""

    def tell(outcome: Outcome) -> None:
        print(f"\n{outcome}")
        record_property(PROPERTY, outcome.to_row())

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
    ]
    rows = [
        str(value)
        for report in sorted(reports, key=lambda report: report.location[:2])
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if rows:
        terminalreporter.section("work under faults")
        terminalreporter.write_line(table(rows))
