"""``opencluster muser``, run in this process and once as a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from muser_pipeline.cli import (
    muser_command,
    parse_duration,
    parse_inputs,
    parse_time,
)
from muser_pipeline.raw import open_raw
from opencluster import cli

SUN = "[[source]]\nx_arcsec = 0\ny_arcsec = 0\nflux_sfu = 10\n"


@pytest.fixture
def sky(tmp_path: Path) -> Path:
    path = tmp_path / "sky.toml"
    path.write_text(SUN)
    return path


def simulate(sky: Path, *more: str) -> Result:
    arguments = [
        *("simulate", "--sky", str(sky), "--out", str(sky.with_name("out"))),
        *("--start", "2015-11-01T04:00:00", "--duration", "25ms", "--array", "I"),
    ]
    return CliRunner().invoke(muser_command, [*arguments, *more])


def test_the_command_is_found_by_opencluster(sky: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "opencluster", "muser", "simulate", "--json"),
            *("--array", "II", "--start", "2015-11-01T12:00:00+08:00", "--sky", sky),
            *("--duration", "0.0125", "--out", sky.with_name("out")),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    summary = json.loads(done.stdout)
    assert (summary["frames"], summary["lost_utc_ns"], summary["bit_errors"]) == (
        *(4, [], 0),
    )
    with open_raw(summary["files"][0]) as raw:
        assert (raw.array, len(raw)) == (2, 4)
        assert raw.time_utc_ns[0] == 1446350400 * 10**9


def test_opencluster_lists_it_only_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = click.Context(cli.main)
    assert "muser" in cli.main.list_commands(context)
    assert cli.main.get_command(context, "muser") is muser_command
    monkeypatch.setitem(cli._APPLICATIONS, "muser", "a_package_that_is_not_there.cli")
    assert "muser" not in cli.main.list_commands(context)
    assert cli.main.get_command(context, "muser") is None


def test_options_reach_the_frames(sky: Path) -> None:
    done = simulate(
        sky,
        *("--mode", "fixed", "--band", "3", "--polarization", "RR"),
        *("--fringes", "running", "--dead", "4,7", "--system-temperature", "100"),
        *("--gain-scatter", "0.1", "--phase-scatter", "20", "--delay-scatter", "1"),
        *("--seed", "7", "--layout", "old", "--update", "10ms"),
    )
    assert done.exit_code == 0, done.output
    path = Path(done.stdout.strip())
    assert done.stderr == "8 frames written, 0 lost, 0 bits turned\n"
    with open_raw(path, layout="old") as raw:
        found = raw.read()
    assert set(found.band) == {3}
    assert set(found.polarization) == {"RR"}
    assert not found.autocorrelations[:, :, [4, 7]].any()
    assert set(found.header["fringe"]) == {0xCCCCCCCC}
    power = found.autocorrelations[:, :, :4].mean(axis=(0, 1))
    assert np.ptp(power) > 0.01 * power.mean()


def test_damage_is_counted(sky: Path) -> None:
    done = simulate(
        sky, "--lost-frames", "0.5", "--bit-errors", "1e-5", "--duration", "0.1s"
    )
    assert done.exit_code == 0, done.output
    written, lost, turned = (int(part.split()[0]) for part in done.stderr.split(","))
    assert written + lost == 32
    assert lost > 3
    assert turned > 10


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--band", "4"], "MUSER-I has the bands 0 to 3"),
        (["--array", "III"], "is not one of"),
        (["--start", "noon"], "'noon' is no time"),
        (["--start", "2015-13-01T00:00:00"], "is no time"),
        (["--duration", "3 weeks"], "is no duration"),
        (["--duration", "-3s"], "is no duration"),
        (["--dead", "all"], "is no list of inputs"),
        (["--lost-frames", "2"], "not in the range"),
        (["--sky", "nowhere.toml"], "does not exist"),
    ],
)
def test_wrong_usage_is_explained(sky: Path, more: list[str], expected: str) -> None:
    done = simulate(sky, *more)
    assert done.exit_code == 2
    assert expected in done.stderr
    assert not sky.with_name("out").exists()


def test_a_wrong_sky_is_shown_without_a_traceback(sky: Path) -> None:
    sky.write_text("[moon]")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "opencluster", "muser", "simulate"),
            *("--array", "I", "--start", "2015-11-01T04:00:00", "--sky", sky),
            *("--duration", "1s", "--out", sky.with_name("out")),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("opencluster: ")
    assert "the file has 'moon'" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-11-01T04:08:49.354161240", 1446350929354161240),
        ("2015-11-01T12:08:49.354161240+08:00", 1446350929354161240),
        ("2015-11-01T04:08:49Z", 1446350929 * 10**9),
        ("2015-11-01 04:08:49.5", 1446350929 * 10**9 + 500_000_000),
        ("2015-11-01", 1446336000 * 10**9),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25ms", 25_000_000),
        ("10s", 10**10),
        ("1.5", 1_500_000_000),
        ("2min", 120 * 10**9),
        ("2 m", 120 * 10**9),
        (".5h", 1800 * 10**9),
    ],
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


def test_lists_of_inputs() -> None:
    assert parse_inputs("4,7, 11") == (4, 7, 11)
    assert parse_inputs("") == ()
