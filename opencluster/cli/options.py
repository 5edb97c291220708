"""Options that several commands share."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from opencluster.place import DIRECTORY_VARIABLE, Place

Command = TypeVar("Command", bound=Callable[..., Any])


def _set_directory(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> None:
    if value is not None:
        os.environ[DIRECTORY_VARIABLE] = str(Place.find(value).path)


def directory_option(command: Command) -> Command:
    """Let ``--dir`` stand behind the command as well as before it."""
    return click.option(
        "--dir",
        metavar="DIR",
        expose_value=False,
        callback=_set_directory,
        is_eager=True,
        help="The cluster's directory.",
    )(command)


def parse_arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return constructor arguments from ``NAME=VALUE`` texts.

    A value that reads as a Python literal is one; anything else is a text.
    """
    arguments = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{pair!r}: write NAME=VALUE")
        try:
            arguments[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            arguments[name] = text
    return arguments


def parse_workers(texts: tuple[str, ...]) -> dict[str, int]:
    """Return how many of each, from ``TYPE=N`` or ``MODULE:CLASS=N`` texts."""
    wanted: dict[str, int] = {}
    for text in texts:
        name, equals, count = text.rpartition("=")
        if not equals or not name or not count.isdigit():
            raise click.BadParameter(f"{text!r}: write TYPE=N or MODULE:CLASS=N")
        wanted[name] = int(count)
    return wanted
