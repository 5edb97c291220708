"""Checks command lines without running them: commands, options, files and names."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pages import ROOT

from bench.__main__ import main as bench
from opencluster.cli import main as opencluster

GROUPS = {"opencluster": opencluster, "bench": bench}
NOT_OURS = re.compile(
    "cat|cd|cp|curl|dask|done|echo|export|for|git|journalctl|jq|kill|mkdir|rm|scp|sleep"
    "|ssh|systemctl|wait"
)
"""Commands of the shell and the system, which are not checked."""
ABSENT = re.compile(r"does not exist|is not readable|not found")


def check(script: str, is_whole: bool = True) -> None:
    """Fail when a command line of a script is none.

    Arguments may be missing if it is not whole, as where a text names a command.

    The syntax is checked by bash; commands of OpenCluster and of its benches by the
    parsers that they have; goals of make, extras of pip, scripts and units of systemd
    by whether they are there.
    """
    done = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for words in command_lines(script):
        _check(words, is_whole)


def command_lines(script: str) -> Iterator[list[str]]:
    """Yield the words of each simple command."""
    script = re.sub(r"<<-?'?(\w+)'?(.*)\n(?:.*\n)*?\1\n", r"\2\n", script)
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";|&"):
                words = _without_redirections(words)
                while words and (words[0] in {"sudo", "do"} or "=" in words[0]):
                    del words[0]
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def _without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        if kept and set(kept[-1]) <= set("<>"):
            kept.pop()
            if kept and kept[-1] in {"1", "2"}:
                kept.pop()
        else:
            kept.append(word)
    return kept


def _check(words: list[str], is_whole: bool) -> None:
    program, *arguments = [Path(words[0]).name, *words[1:]]
    if program in {"python", "python3"}:
        if arguments[:2] == ["-m", "bench"]:
            _parse("bench", arguments[2:], is_whole)
        elif arguments[:2] not in (["-m", "venv"], ["-m", "pip"]):
            assert (ROOT / arguments[0]).is_file(), words
    elif program == "opencluster":
        _parse(program, arguments, is_whole)
    elif program == "make":
        goals = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in arguments if "=" not in word} <= set(goals), words
    elif program == "pip":
        known = configparser.ConfigParser()
        known.read(ROOT / "setup.cfg")
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= set(known["options.extras_require"]), words
    else:
        assert NOT_OURS.fullmatch(program), f"nobody checks {words}"
        for unit in re.findall(r"\bopencluster-(\w+)(?:\.service)?\b", " ".join(words)):
            assert (ROOT / f"deploy/systemd/opencluster-{unit}.service").is_file(), unit


def _parse(program: str, arguments: list[str], is_whole: bool) -> None:
    command: click.Command = GROUPS[program]
    context, name = None, program
    try:
        while True:
            context = command.make_context(name, list(arguments), parent=context)
            if not isinstance(command, click.Group):
                return
            rest = [*context._protected_args, *context.args]
            if not rest:
                return
            _, found, arguments = command.resolve_command(context, rest)
            assert found is not None
            name, command = str(found.name), found
    except click.exceptions.Exit:
        return  # --help
    except click.UsageError as error:
        incomplete = click.MissingParameter, click.exceptions.NoArgsIsHelpError
        is_missing = isinstance(error, incomplete) and not is_whole
        # files of the reader, which are not here
        if not is_missing and not ABSENT.search(error.message):
            pytest.fail(f"{program} {shlex.join(arguments)}: {error.message}")
