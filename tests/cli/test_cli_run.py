from __future__ import annotations

from pathlib import Path

import click
import pytest
from cli_tools import PROGRAMS, Cli

from opencluster.cli.run import split_engine
from opencluster.engines.choice import ENGINES

SCRIPT = str(PROGRAMS)


@pytest.mark.processes
def test_every_engine_gives_the_same(cli: Cli, dask_address: str) -> None:
    cli.ok_here("start")
    cli.ok_here("worker", f"{SCRIPT}:DoubleWorker")
    cli.ok_here("service", f"{SCRIPT}:GreetingService")
    for engine in ENGINES:
        run = ["run", "--engine", engine]
        if engine == "dask":
            run += ["--dask-address", dask_address]
        numbers = cli.ok(*run, SCRIPT, "double", "Double", "100")
        # what workers in the script's own process print stands before
        assert numbers.splitlines()[-1] == "9900"
        text = cli.ok(*run, SCRIPT, "greet", "greeting")
        assert text == "hello sun\n"
    [job] = [job for job in cli.status()["jobs"] if job["name"] == "DoubleManager"]
    assert job["pieces_done"] == 100


@pytest.mark.parametrize(
    ("arguments", "engine", "rest"),
    [
        ((), None, []),
        (
            ("a", "--help", "-x", "--dir", "d"),
            None,
            ["a", "--help", "-x", "--dir", "d"],
        ),
        (("a", "--engine", "local", "b"), "local", ["a", "b"]),
        (("a", "--engine=process"), "process", ["a"]),
        (("--engine", "local", "--engine", "cluster"), "cluster", []),
        (("a", "--dask-address", "tcp://n:1", "b"), "dask@tcp://n:1", ["a", "b"]),
        (("--dask-address=n:1", "--engine", "dask"), "dask@n:1", []),
        (("--", "--engine", "v8"), None, ["--engine", "v8"]),
        (("a", "--", "--engine", "v8"), None, ["a", "--", "--engine", "v8"]),
        (
            ("--engine", "local", "--", "--engine", "v8"),
            "local",
            ["--", "--engine", "v8"],
        ),
    ],
)
def test_split_engine(
    arguments: tuple[str, ...], engine: str | None, rest: list[str]
) -> None:
    assert split_engine(arguments) == (engine, rest)


def test_an_address_of_dask_is_for_no_other_engine() -> None:
    with pytest.raises(click.BadParameter, match="not for the engine local"):
        split_engine(["--engine", "local", "--dask-address", "tcp://n:1"])


def test_a_script_sees_what_python_shows_it(cli: Cli) -> None:
    Path(cli.directory, "scripts").mkdir()
    Path(cli.directory, "scripts", "mine.py").write_text(PROGRAMS.read_text())
    arguments = ["show", "--help", "-n", "--dir", "x", "a b"]
    printed = cli.ok("run", "scripts/mine.py", *arguments, "--engine", "local")
    folder = Path(cli.directory, "scripts").resolve()
    expected = ["scripts/mine.py", str(arguments[1:]), str(folder), "__main__"]
    assert printed.strip().split("|") == expected


def test_a_script_imports_its_neighbours(cli: Cli) -> None:
    Path(cli.directory, "s").mkdir()
    Path(cli.directory, "s", "neighbour.py").write_text("word = 'found'")
    Path(cli.directory, "s", "mine.py").write_text("from neighbour import word as w\n"
                                                   "print(w)")  # fmt: skip
    assert cli.ok("run", "s/mine.py", "--engine", "local") == "found\n"


def test_what_a_script_raises_is_shown_without_our_frames(cli: Cli) -> None:
    done = cli("run", SCRIPT, "fail", "--engine", "local")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("ValueError: a mistake of the script\n")
    assert "runpy" not in done.stderr
    assert "opencluster/cli" not in done.stderr.replace(SCRIPT, "")


def test_a_script_with_a_syntax_error(cli: Cli) -> None:
    Path(cli.directory, "bad.py").write_text("def f(:\n")
    done = cli("run", "bad.py", "--engine", "local")
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr
    assert "runpy" not in done.stderr


@pytest.mark.parametrize("code", [0, 5])
def test_the_exit_code_of_a_script_is_passed_on(cli: Cli, code: int) -> None:
    done = cli("run", SCRIPT, "exit", str(code), "--engine", "local")
    assert done.returncode == code
    assert done.stderr == ""


def test_without_a_cluster_there_is_a_hint(cli: Cli) -> None:
    done = cli("run", SCRIPT, "show")
    assert done.returncode == 0
    assert "no cluster is running" in done.stderr
    assert "--engine process" in done.stderr
    done = cli("run", SCRIPT, "show", environment={"OPENCLUSTER_ENGINE": "local"})
    assert done.stderr == ""


def test_interrupting_a_script(cli: Cli) -> None:
    running = cli.background("run", "--engine", "local", SCRIPT, "sleep")
    running.line_with("asleep")
    assert running.interrupt() == 130
    assert "Traceback" not in running.rest()


@pytest.mark.processes
def test_interrupting_a_script_frees_its_workers(cli: Cli) -> None:
    cli.ok_here("start")
    cli.ok_here("worker", f"{SCRIPT}:SlowWorker", "--count", "2")
    running = cli.background("run", SCRIPT, "double", "Slow", "50")

    def states(status: dict[str, list[dict[str, object]]]) -> set[object]:
        return {worker["state"] for worker in status["workers"]}

    status = cli.status_when(lambda status: states(status) == {"busy"})
    assert {worker["progress"] for worker in status["workers"]} == {0.25}
    assert running.interrupt() == 130
    assert "Traceback" not in running.rest()
    cli.status_when(lambda status: states(status) == {"idle"})
    assert cli.status()["deaths"] == []
