"""How numbers, times, lengths of time and commands are written."""

from __future__ import annotations

import pytest

from opencluster_web import words


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (1234.5, "1,234"),
        (12.345, "12.3"),
        (0.012345, "0.0123"),
        (-5.0, "-5.00"),
        (1e9, "1.00e+09"),
        (1e-9, "1.00e-09"),
        (float("nan"), "unknown"),
        (float("inf"), "unknown"),
    ],
)
def test_digits_that_mean_something(value: float, shown: str) -> None:
    assert words.significant(value) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (12_345.0, "Jy/beam", "12.3 kJy/beam"),
        (2.5e6, "K", "2.50 MK"),
        (0.002, "Jy", "2.00 mJy"),
        (1e-12, "Jy", "1.00e-12 Jy"),
        (-3e3, "Jy", "-3.00 kJy"),
        (12_345.0, "arbitrary", "12,345 arbitrary"),
        (0.0, "Jy", "0 Jy"),
        (1.0, "", "1.00"),
        (float("nan"), "Jy", "unknown Jy"),
    ],
)
def test_prefixes_of_units(value: float, unit: str, shown: str) -> None:
    assert words.quantity(value, unit) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0 s"), (99, "99 s"), (100, "2 min"), (7200, "2 h"), (4e5, "5 days")],
)
def test_lengths_of_time(seconds: float, shown: str) -> None:
    assert words.ago(seconds) == shown


def test_commands_are_set_as_code() -> None:
    told = "run `opencluster start`, then <b> or ` alone"
    shown = "run <code>opencluster start</code>, then &lt;b&gt; or ` alone"
    assert words.commands(told) == shown
    assert words.commands("`<i>`") == "<code>&lt;i&gt;</code>"


def test_times_have_the_digits_that_were_asked_for() -> None:
    time_ns = 1_446_350_400_003_125_000
    assert words.iso(time_ns) == "2015-11-01T04:00:00.003Z"
    assert words.clock(time_ns, 6) == "04:00:00.003125"
    assert words.clock(time_ns, 0) == "04:00:00"
    assert words.stamp(1_446_350_400.5) == "2015-11-01T04:00:00.500Z"
    assert words.frequency(1.4125e9) == "1.413 GHz"
