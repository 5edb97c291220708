"""``opencluster run``: a manager script on an engine of choice."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import click

from opencluster.cli import INTERRUPTED
from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.engines.choice import ENGINE_VARIABLE, ENGINES, engine_at
from opencluster.errors import ConfigError
from opencluster.launchers.connection import why_unreachable
from opencluster.place import Place

ENGINE_OPTION = "--engine"
DASK_OPTION = "--dask-address"


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    ENGINE_OPTION,
    type=click.Choice(ENGINES),
    help="Where the pieces run: in this process, in processes of this computer, on the "
    f"cluster, or on a Dask cluster. By default what {ENGINE_VARIABLE} says, else the "
    "cluster.",
)
@click.option(
    DASK_OPTION,
    metavar="tcp://HOST:PORT",
    help="The scheduler of the Dask cluster; means --engine dask.",
)
@directory_option
@click.argument("script", type=click.Path(exists=True))
@click.argument("arguments", nargs=-1, metavar="[ARGS]...", type=click.UNPROCESSED)
def run_command(
    engine: str | None,
    dask_address: str | None,
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """Run a Python SCRIPT as `python SCRIPT ARGS` would, on an engine of choice.

    ARGS go to the script as they are, but for --engine and --dask-address, which may
    stand among them; behind a lone -- even those are the script's.

    \b
    Examples:
        opencluster run wordcount.py book.txt
        opencluster run --engine process wordcount.py book.txt
        opencluster run wordcount.py book.txt --engine local
        opencluster run wordcount.py book.txt --dask-address tcp://node1:8786
        opencluster run script.py -- --engine v8
    """
    chosen, own_arguments = split_engine(arguments)
    engine = chosen or _at(engine, dask_address)
    if engine is not None:
        os.environ[ENGINE_VARIABLE] = engine
    if os.environ.get(ENGINE_VARIABLE, "cluster") == "cluster":
        missing = why_unreachable(load(), Place.find())
        if missing:
            click.echo(f"opencluster: {missing}; --engine process needs none", err=True)
    sys.exit(run_script(script, own_arguments))


def split_engine(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take our own options out of the arguments of a script.

    Returns
    -------
    engine : str or None
        What the options say, the last one if it is repeated.
    arguments : list of str
        What is the script's. A ``--`` that comes first only ends our options, and is
        not passed on.

    Raises
    ------
    click.BadParameter
        When there is no such engine.
    """
    if arguments[:1] == ("--",):
        return None, list(arguments[1:])
    engine = address = None
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if argument == "--":
            return _at(engine, address), [*rest, argument, *left]
        if name == DASK_OPTION:
            address = value if equals else next(left, "")
            continue
        if name != ENGINE_OPTION:
            rest.append(argument)
            continue
        engine = value if equals else next(left, "")
        if engine not in ENGINES:
            raise click.BadParameter(
                f"{engine!r} is not one of {', '.join(ENGINES)}; write -- before the "
                "arguments if the option is the script's own",
                param_hint=ENGINE_OPTION,
            )
    return _at(engine, address), rest


def _at(engine: str | None, dask_address: str | None) -> str | None:
    try:
        return engine_at(engine, dask_address)
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint=DASK_OPTION) from None


def run_script(script: str, arguments: Sequence[str]) -> int:
    """Run a script as ``__main__``, and return the exit code that Python would.

    What the script raises is shown as Python shows it, without our own frames; an exit
    of the script is let through.
    """
    sys.argv = [script, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        traceback.print_exception(type(error), error, _below_runpy(error.__traceback__))
        return 1
    return 0


def _below_runpy(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that belongs to the script."""
    ours = (__file__, runpy.run_path.__code__.co_filename)
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    return trace
