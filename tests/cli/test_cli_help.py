from __future__ import annotations

import pytest
from cli_tools import Cli

import opencluster

COMMANDS = [
    "config check",
    "config show",
    "demo",
    "dispatcher",
    "down",
    "factory",
    "keys add",
    "keys new",
    "keys revoke",
    "keys show",
    "logs",
    "run",
    "service",
    "start",
    "status",
    "stop",
    "submit",
    "tasks",
    "tasks cancel",
    "tasks retry",
    "tasks show",
    "up",
    "worker",
    "workshop",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_an_example(cli: Cli, command: str) -> None:
    done = cli.here(*command.split(), "--help")
    assert done.returncode == 0
    explanation, _, options = done.stdout.partition("Options:")
    assert "Example" in explanation
    assert f"  opencluster {command}" in explanation
    assert "--dir DIR" in options


def test_help_lists_every_command(cli: Cli) -> None:
    text = cli.ok("--help")
    for command in COMMANDS:
        assert f"\n  {command.split()[0]} " in text
    assert "opencluster start" in text


def test_version(cli: Cli) -> None:
    assert cli.ok("--version").split() == [
        "opencluster,", "version", opencluster.__version__
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["start", "--workers", "WordCount"],
        ["worker"],
        ["worker", "a.py:A", "--count", "0"],
        ["worker", "a.py:A", "--arg", "pixels"],
        ["worker", "a.py:A", "--port", "9000"],
        ["worker", "a.py:A", "--foreground", "--count", "2"],
        ["run"],
        ["run", "missing.py"],
        ["run", "--engine", "steam", __file__],
        ["run", __file__, "--engine", "steam"],
        ["run", __file__, "--engine"],
        ["keys", "add", "alice"],
        ["keys", "add", "alice", "--role", "factory"],
        ["keys", "revoke"],
        ["logs", "--lines", "many"],
        ["config", "show", "nonsense"],
        ["demo", "--path", "missing"],
        ["demo", "--path", "."],
        ["demo", "--workers", "0"],
        ["dispatcher", "--managers", "0"],
        ["submit"],
        ["submit", "a.py:A", "pixels"],
        ["submit", "a.py:A", "--deadline", "tomorrow"],
        ["tasks", "--state", "nonsense"],
        ["tasks", "nonsense"],
        ["tasks", "show"],
        ["tasks", "retry", "x"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(cli: Cli, arguments: list[str]) -> None:
    done = cli.here(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage:" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--json"],
        ["logs"],
        ["worker", "a.py:A"],
        ["service", "a.py:A"],
        ["stop", "WordCount-1"],
    ],
    ids=" ".join,
)
def test_without_a_cluster_commands_exit_with_3(cli: Cli, arguments: list[str]) -> None:
    done = cli.here(*arguments)
    assert done.returncode == 3
    assert done.stdout == ""
    assert str(cli.place.path) in done.stderr
    assert "Traceback" not in done.stderr
