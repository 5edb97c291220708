from __future__ import annotations

from uuid import uuid4

import pytest
from cli_tools import PROGRAMS, Cli

from opencluster.core.log_lines import head_of

pytestmark = pytest.mark.processes


@pytest.fixture
def type() -> str:
    """Return a type that no other test has, since logs outlive those who wrote them."""
    return f"D{uuid4().hex}"


def start(cli: Cli, type: str, name: str = "DoubleWorker") -> None:
    cli.ok_here("worker", f"{PROGRAMS}:{name}", "--type", type)


def work(cli: Cli, type: str, count: int) -> None:
    cli.ok("run", str(PROGRAMS), "double", type, str(count))


def test_logs_of_one_and_of_all(cli: Cli) -> None:
    cli.ok_here("start")
    start(cli, "Double")
    work(cli, "Double", 4)
    assert cli.ok("logs", "Double-1") == "got 0\ngot 1\ngot 2\ngot 3\n"
    assert cli.ok_here("logs", "Double-1", "--lines", "2") == "got 2\ngot 3\n"
    assert cli.ok_here("logs", "Double-1", "--lines", "0") == ""
    together = cli.ok_here("logs", "--lines", "1").splitlines()
    assert "Double-1 | got 3" in together
    assert [line.partition(" | ")[0] for line in together] == [
        "Double-1",
        "factory",
        "workshop",
    ]

    cli.ok_here("stop")
    assert cli.ok_here("logs", "Double-1").startswith("got 0\n")


def test_logs_of_somebody_unknown(running: Cli) -> None:
    for name in ("Double-9", "../c/logs/factory"):
        done = running.here("logs", name)
        assert done.returncode == 1
        assert repr(name) in done.stderr
        assert "factory, workshop" in done.stderr


def test_logs_of_somebody_who_has_said_nothing(running: Cli, type: str) -> None:
    start(running, type)
    assert running.ok_here("logs", f"{type}-1") == ""


def test_following_one_log(running: Cli, type: str) -> None:
    start(running, type)
    work(running, type, 2)
    following = running.background("logs", f"{type}-1", "--follow", "--lines", "1")
    assert following.line_with("") == "got 1\n"
    work(running, type, 1)
    assert following.line_with("") == "got 0\n"
    assert following.interrupt() == 0
    assert following.rest().strip() == ""


def test_following_all_logs_takes_in_new_ones(running: Cli, type: str) -> None:
    following = running.background("logs", "--follow")
    following.line_with("factory | ")
    start(running, type)
    work(running, type, 2)
    head = f"{type}-1 | "
    assert following.line_with(head) == f"{head}got 0\n"
    assert following.line_with(head) == f"{head}got 1\n"
    assert following.interrupt() == 0
    assert "Traceback" not in following.rest()


def test_messages_are_found_by_what_they_are(cli: Cli) -> None:
    cli.ok_here("start")
    start(cli, "Double")
    work(cli, "Double", 3)
    warned = cli.ok_here("logs", "--level", "WARNING")
    assert "got" not in warned
    assert cli.ok_here("logs", "--grep", "GOT 2") == "Double-1 | got 2\n"
    of_type = cli.ok_here("logs", "--type", "Double", "--lines", "1")
    assert of_type == "Double-1 | got 2\n"
    ready = cli.ok_here("logs", "factory", "--since", "1h", "--grep", "factory at")
    assert ready.count("INFO opencluster.factory factory at") == 1
    assert cli.ok_here("logs", "factory", "--since", "2999-01-01") == ""


def test_a_message_names_the_piece_that_was_at_work(running: Cli, type: str) -> None:
    start(running, type, "WarningWorker")
    work(running, type, 4)
    name = f"{type}-1"
    lines = running.ok_here("logs", name, "--level", "WARNING").splitlines()
    first, second = lines
    head = head_of(first)
    assert head is not None
    assert (head.level, head.name) == ("WARNING", "opencluster.worker")
    assert first.endswith(" two is odd")
    assert second == "    indeed"
    manager = head.piece.partition(":")[0]
    of_piece = running.ok_here("logs", name, "--piece", manager)
    assert of_piece == f"{first}\n{second}\n"
    assert running.ok_here("logs", name, "--piece", "ffffffff") == ""


def test_what_cannot_be_found_is_told(running: Cli) -> None:
    for option, value, why in (
        ("--type", "Nobody", "nobody of type 'Nobody'"),
        ("--host", "elsewhere", "no computer 'elsewhere' is in the cluster; there: "),
        ("--since", "soon", "'soon' is neither such as 10min"),
    ):
        done = running.here("logs", option, value)
        assert done.returncode in (1, 2)
        assert why in done.stderr
