"""``opencluster config``: the settings in force, and what is wrong with them."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import click

from opencluster.cli.options import directory_option
from opencluster.config import load


@click.group("config")
def config_command() -> None:
    """Show the configuration, or check it.

    \b
    Examples:
        opencluster config show --origins
        opencluster config check observatory.ini
    """


@config_command.command("show")
@click.argument("section", default="")
@click.option("--origins", is_flag=True, help="Say where each value comes from.")
@directory_option
def show_command(section: str, origins: bool) -> None:
    """Print the settings in force, in the form of a configuration file.

    With SECTION only that one, such as `network` or `worker:WordCount`.

    \b
    Examples:
        opencluster config show
        opencluster config show --origins network
        opencluster config show > config.ini
    """
    sections = {
        name: list(rows) for name, rows in groupby(load().rows(), lambda r: r.section)
    }
    if section and section not in sections:
        known = ", ".join(sections)
        raise click.BadParameter(f"there is no section {section!r}; there are: {known}")
    shown = [section] if section else sections
    parts = []
    for name in shown:
        lines = [f"[{name}]"]
        for row in sections[name]:
            line = f"{row.key} = {row.text}".rstrip()
            lines.append(f"{line}  # {row.origin}" if origins else line)
        parts.append("\n".join(lines))
    click.echo("\n\n".join(parts))


@config_command.command("check")
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@directory_option
def check_command(files: tuple[Path, ...]) -> None:
    """Check the configuration, with FILEs on top of what this computer has.

    Every mistake is named with its file, section and key, and the exit code is 1.

    \b
    Example:
        opencluster config check observatory.ini && opencluster start
    """
    load(files)
    click.echo("the configuration is in order", err=True)
