from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cli_tools import Cli

from opencluster.config import Config, load

CATALOGUE = """
[cluster]
lease_s = 20

[worker:Word]
target = words.py:WordWorker
env.THREADS = 4
arg.pixels = 1024
"""


@pytest.fixture
def user_file(cli: Cli) -> Path:
    path = cli.directory / "config" / "opencluster" / "config.ini"
    path.parent.mkdir(parents=True)
    path.write_text(CATALOGUE)
    return path


def test_show_prints_a_file_that_says_the_same(cli: Cli, user_file: Path) -> None:
    shown = cli.directory / "shown.ini"
    for options in ([], ["--origins"]):
        shown.write_text(cli.ok("config", "show", *options))
        config = load([shown], environ={})
        assert config == load([user_file], environ={})
        assert replace(config, catalogue=()) != Config()


def test_show_tells_where_values_come_from(cli: Cli, user_file: Path) -> None:
    environment = {"OPENCLUSTER_CLUSTER_INSECURE": "true"}
    shown = cli.ok("config", "show", "--origins", "cluster", environment=environment)
    lines = shown.splitlines()
    assert lines[0] == "[cluster]"
    assert f"lease_s = 20.0  # {user_file}:3" in lines
    assert "heartbeat_interval_s = 1.0  # default" in lines
    variable = "environment variable OPENCLUSTER_CLUSTER_INSECURE"
    assert f"insecure = true  # {variable}" in lines
    assert not any(line.startswith("[network]") for line in lines)


def test_show_one_section(cli: Cli, user_file: Path) -> None:
    assert cli.ok("config", "show", "worker:Word").splitlines() == [
        "[worker:Word]",
        f"target = {user_file.parent}/words.py:WordWorker",
        "type = Word",
        "env.THREADS = 4",
        "arg.pixels = 1024",
    ]


def test_show_without_files_is_all_defaults(cli: Cli) -> None:
    shown = cli.directory / "shown.ini"
    shown.write_text(cli.ok("config", "show"))
    assert load([shown], environ={}) == Config()


def test_check_of_what_is_in_order(cli: Cli, user_file: Path) -> None:
    done = cli("config", "check", str(user_file))
    assert done.returncode == 0
    assert done.stdout == ""
    assert "in order" in done.stderr


def test_check_names_every_problem(cli: Cli, user_file: Path) -> None:
    bad = cli.directory / "bad.ini"
    bad.write_text("[cluster]\nlease = 3\n[network]\nzmtp_timeout_s = soon\n")
    done = cli("config", "check", str(bad), "missing.ini")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"{bad}:2: [cluster] lease: unknown key" in done.stderr
    assert f"{bad}:4: [network] zmtp_timeout_s: got 'soon'" in done.stderr
    assert "missing.ini: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_refuses_a_wrong_configuration(cli: Cli, user_file: Path) -> None:
    user_file.write_text("[cluster]\nlease = 3\n")
    for command in (["config", "check"], ["status"], ["config", "show"]):
        done = cli(*command)
        assert done.returncode == 1
        assert f"{user_file}:2" in done.stderr


def test_a_file_named_on_the_command_line(cli: Cli) -> None:
    (cli.directory / "mine.ini").write_text("[cluster]\nlease_s = 33\n")
    shown = cli.ok("--config", "mine.ini", "config", "show", "cluster")
    assert "lease_s = 33.0" in shown
