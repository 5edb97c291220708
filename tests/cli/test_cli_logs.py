from __future__ import annotations

import pytest
from cli_tools import PROGRAMS, Cli

from opencluster.core.log_lines import head_of

pytestmark = pytest.mark.processes


def start(cli: Cli) -> None:
    cli.ok("start")
    cli.ok("worker", f"{PROGRAMS}:DoubleWorker")


def work(cli: Cli, count: int) -> None:
    cli.ok("run", str(PROGRAMS), "double", "Double", str(count))


def test_logs_of_one_and_of_all(cli: Cli) -> None:
    start(cli)
    work(cli, 4)
    assert cli.ok("logs", "Double-1") == "got 0\ngot 1\ngot 2\ngot 3\n"
    assert cli.ok("logs", "Double-1", "--lines", "2") == "got 2\ngot 3\n"
    assert cli.ok("logs", "Double-1", "--lines", "0") == ""
    together = cli.ok("logs", "--lines", "1").splitlines()
    assert "Double-1 | got 3" in together
    assert [line.partition(" | ")[0] for line in together] == [
        "Double-1",
        "factory",
        "workshop",
    ]

    cli.ok("stop")
    assert cli.ok("logs", "Double-1").startswith("got 0\n")


def test_logs_of_somebody_unknown(cli: Cli) -> None:
    start(cli)
    for name in ("Double-9", "../c/logs/factory"):
        done = cli("logs", name)
        assert done.returncode == 1
        assert repr(name) in done.stderr
        assert "factory, workshop" in done.stderr


def test_logs_of_somebody_who_has_said_nothing(cli: Cli) -> None:
    start(cli)
    assert cli.ok("logs", "Double-1") == ""


def test_following_one_log(cli: Cli) -> None:
    start(cli)
    work(cli, 2)
    following = cli.background("logs", "Double-1", "--follow", "--lines", "1")
    assert following.line_with("") == "got 1\n"
    work(cli, 1)
    assert following.line_with("") == "got 0\n"
    assert following.interrupt() == 0
    assert following.rest().strip() == ""


def test_following_all_logs_takes_in_new_ones(cli: Cli) -> None:
    cli.ok("start")
    following = cli.background("logs", "--follow")
    following.line_with("factory | ")
    cli.ok("worker", f"{PROGRAMS}:DoubleWorker")
    work(cli, 2)
    assert following.line_with("Double-1 | ") == "Double-1 | got 0\n"
    assert following.line_with("Double-1 | ") == "Double-1 | got 1\n"
    assert following.interrupt() == 0
    assert "Traceback" not in following.rest()


def test_messages_are_found_by_what_they_are(cli: Cli) -> None:
    start(cli)
    work(cli, 3)
    warned = cli.ok("logs", "--level", "WARNING")
    assert "got" not in warned
    assert cli.ok("logs", "--grep", "GOT 2") == "Double-1 | got 2\n"
    assert cli.ok("logs", "--type", "Double", "--lines", "1") == "Double-1 | got 2\n"
    ready = cli.ok("logs", "factory", "--since", "1h", "--grep", "factory at")
    assert ready.count("INFO opencluster.factory factory at") == 1
    assert cli.ok("logs", "factory", "--since", "2999-01-01") == ""


def test_a_message_names_the_piece_that_was_at_work(cli: Cli) -> None:
    cli.ok("start", "--workers", f"{PROGRAMS}:WarningWorker=1")
    cli.ok("run", str(PROGRAMS), "double", "Warning", "4")
    first, second = cli.ok("logs", "Warning-1", "--level", "WARNING").splitlines()
    head = head_of(first)
    assert head is not None
    assert (head.level, head.name) == ("WARNING", "opencluster.worker")
    assert first.endswith(" two is odd")
    assert second == "    indeed"
    manager = head.piece.partition(":")[0]
    assert cli.ok("logs", "Warning-1", "--piece", manager) == f"{first}\n{second}\n"
    assert cli.ok("logs", "Warning-1", "--piece", "ffffffff") == ""


def test_what_cannot_be_found_is_told(cli: Cli) -> None:
    start(cli)
    for option, value, why in (
        ("--type", "Nobody", "nobody of type 'Nobody'"),
        ("--host", "elsewhere", "no computer 'elsewhere' is in the cluster; there: "),
        ("--since", "soon", "'soon' is neither such as 10min"),
    ):
        done = cli("logs", option, value)
        assert done.returncode in (1, 2)
        assert why in done.stderr
