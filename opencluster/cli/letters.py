"""``opencluster letters``: pieces that ended every worker that took them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import click

from opencluster.cli.options import directory_option
from opencluster.config import load
from opencluster.errors import LetterError
from opencluster.launchers.connection import connect, why_unreachable
from opencluster.observe.dead_letters import Letters
from opencluster.place import Place

json_option = click.option(
    "--json", "is_json", is_flag=True, help="Print one JSON object."
)
letter_argument = click.argument("id", metavar="LETTER")


@click.group("letters")
def letters_command() -> None:
    """Look at quarantined pieces, and run them again or delete them.

    A piece that ended as many workers as [manager] max_kills is not run again. It is
    kept as a dead letter on the computer of its manager, with its work and with what
    is known of each end.

    \b
    Examples:
        opencluster letters list
        opencluster letters show 1f2e3d4c5b6a
        opencluster letters put-back 1f2e3d4c5b6a
    """


@letters_command.command("list")
@json_option
@directory_option
def list_command(is_json: bool) -> None:
    """List the dead letters of all computers, the newest first.

    \b
    Examples:
        opencluster letters list
        opencluster letters list --json | jq '.letters[].reason'
    """
    with _letters() as letters:
        found = letters.find()
    if is_json:
        answer = {"letters": found.letters, "silent": found.silent}
        click.echo(json.dumps(answer, indent=2))
        return
    from opencluster.cli.letter_tables import page
    from opencluster.cli.status_tables import console

    console().print(page(found))


@letters_command.command("show")
@letter_argument
@json_option
@directory_option
def show_command(id: str, is_json: bool) -> None:
    """Show all that is known of a dead letter: how each worker ended, and said last.

    \b
    Examples:
        opencluster letters show 1f2e3d4c5b6a
        opencluster letters show 1f2e3d4c5b6a --json | jq .deaths
    """
    with _letters() as letters:
        letter = letters.show(id)
    if is_json:
        click.echo(json.dumps(letter, indent=2))
        return
    from opencluster.cli.letter_tables import sheet
    from opencluster.cli.status_tables import console

    console().print(sheet(letter))


@letters_command.command("put-back")
@letter_argument
@click.option(
    "--save",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the result into this file; see opencluster.wire.stored.",
)
@directory_option
def put_back_command(id: str, path: Path | None) -> None:
    """Run the piece of a dead letter again, and wait for it.

    It runs in a job of its own. When it is done the letter is removed; the program
    that wanted the result is gone, so it is printed, or saved, and forgotten. If it
    ends without a result the letter stays, and if it ends its workers again a new
    letter with the new evidence comes in its place.

    \b
    Examples:
        opencluster letters put-back 1f2e3d4c5b6a
        opencluster letters put-back 1f2e3d4c5b6a --save result.stored
    """
    from opencluster.putting_back import put_back
    from opencluster.wire import stored

    config = load()
    # fails at once and in words when no cluster is there, and not after a wait
    with connect(config, Place.find()) as control:
        letters = Letters(config, Place.find(), control)
        result = put_back(letters, id, config)
    click.echo(f"letter {id} is done and removed", err=True)
    if path is not None:
        path.write_bytes(
            stored.pack(result, "the result", config.network.max_message_bytes)
        )
        return
    click.echo(repr(result))


@letters_command.command("delete")
@click.argument("ids", nargs=-1, required=True, metavar="LETTER...")
@directory_option
def delete_command(ids: tuple[str, ...]) -> None:
    """Remove dead letters, with the work that is in them.

    \b
    Example:
        opencluster letters delete 1f2e3d4c5b6a
    """
    refused = []
    with _letters() as letters:
        for id in ids:
            try:
                letters.delete(id)
                click.echo(f"letter {id} is deleted", err=True)
            except LetterError as error:
                refused.append(str(error))
    if refused:
        raise LetterError("; ".join(refused))


@contextlib.contextmanager
def _letters() -> Iterator[Letters]:
    """Yield the letters of the cluster, or of this computer when none runs."""
    config, place = load(), Place.find()
    if why_unreachable(config, place):
        yield Letters(config, place, None)
        return
    with connect(config, place) as control:
        yield Letters(config, place, control)
