"""The command ``opencluster``: one file for each group of commands.

Messages go to standard error and data to standard out. Exit codes: 0 for success,
1 when something failed, 2 for a wrong command line, 3 when no cluster is there, 130
after Ctrl-C.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import click

from opencluster import __version__
from opencluster.errors import FactoryUnreachable, OpenClusterError, indent
from opencluster.place import DIRECTORY_VARIABLE

NO_CLUSTER = 3
"""Exit code when no cluster could be found or reached."""
INTERRUPTED = 128 + 2
"""Exit code of a program that Ctrl-C ended."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Failures of files that whoever gives the command can mend."""

_COMMANDS = {
    "config": "configuration",
    "demo": "demo",
    "dispatcher": "dispatcher",
    "down": "up",
    "drain": "operate",
    "elastic": "elastic",
    "factory": "daemons",
    "interrupt": "operate",
    "job": "job",
    "keys": "keys",
    "kill": "operate",
    "launch": "launch",
    "letters": "letters",
    "logs": "logs",
    "restart": "operate",
    "run": "run",
    "scale": "operate",
    "service": "workers",
    "start": "cluster",
    "status": "status",
    "stop": "cluster",
    "submit": "submit",
    "tasks": "tasks",
    "undrain": "operate",
    "up": "up",
    "worker": "workers",
    "workshop": "daemons",
}
_APPLICATIONS = {
    "deploy": "opencluster_deploy.command",
    "muser": "muser_pipeline.cli",
    "web": "opencluster_web.command",
}
"""Commands of packages that are installed beside this one, and where they are."""


def _is_installed(name: str) -> bool:
    package = _APPLICATIONS.get(name, "").partition(".")[0]
    return package != "" and importlib.util.find_spec(package) is not None


class _Commands(click.Group):
    """Loads the file of a command when the command is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted([*_COMMANDS, *filter(_is_installed, _APPLICATIONS)])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in _COMMANDS:
            module = importlib.import_module(f"opencluster.cli.{_COMMANDS[name]}")
        elif _is_installed(name):
            module = importlib.import_module(_APPLICATIONS[name])
        else:
            return None
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def invoke(self, context: click.Context) -> Any:
        """Run the command; what a user can mend is shown without a traceback."""
        try:
            return super().invoke(context)
        except OpenClusterError as error:
            click.echo(f"opencluster: {error}", err=True)
            output = getattr(error, "output", "")
            if output and output not in str(error):
                click.echo(indent(output), err=True)
            sys.exit(NO_CLUSTER if isinstance(error, FactoryUnreachable) else 1)
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            where = f"{error.filename}: " if error.filename else ""
            click.echo(
                f"opencluster: {where}{error.strerror}; mend that, and give the "
                "command again",
                err=True,
            )
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    help=f"The cluster's directory (else {DIRECTORY_VARIABLE}, else the XDG one).",
)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A configuration file; see `opencluster config show`.",
)
@click.version_option(__version__, prog_name="opencluster")
def main(directory: str | None, config_file: Path | None) -> None:
    """Turn a script into a fault-tolerant cluster application.

    \b
    A cluster on this computer, from nothing:
        opencluster start --workers wordcount.py:WordCountWorker=4
        opencluster run wordcount.py book.txt
        opencluster status
        opencluster stop
    """
    # through the environment, so that every process started from here agrees
    if directory is not None:
        os.environ[DIRECTORY_VARIABLE] = str(Path(directory).expanduser().absolute())
    if config_file is not None:
        os.environ["OPENCLUSTER_CONFIG"] = str(config_file.absolute())
