"""``opencluster keys``: who is admitted to a cluster, made, shown and changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from opencluster.cli.options import directory_option
from opencluster.config import Config, load
from opencluster.core.roles import FACTORY, ROLES
from opencluster.core.roll import Roll
from opencluster.errors import FactoryUnreachable, OpenClusterError, SecurityError
from opencluster.launchers.connection import why_unreachable
from opencluster.net import keyfiles
from opencluster.net.control import Control
from opencluster.net.keys import Keyring
from opencluster.place import Place, factories, keys_directory

FINGERPRINT_CHARACTERS = 16
"""Of a key's SHA-256: enough to compare by eye, and to tell keys apart."""

TELL_ATTEMPTS = 5
"""How often a roll is joined with the changes of others before that is given up."""

Command = TypeVar("Command", bound=Callable[..., Any])

_USES = {
    "factory": "computers that run a factory; copy roll there as well",
    "workshop": "computers that run a workshop",
    "worker": "computers that run workers or services",
    "manager": "people and programs that use the cluster",
    "observer": "people who only look: `opencluster status`",
}


def keys_option(command: Command) -> Command:
    """Let ``--keys`` name the directory of keys."""
    return click.option(
        "--keys",
        "directory",
        metavar="KEYS",
        type=click.Path(path_type=Path),
        help="The directory of keys; default [cluster] keys, else keys in the "
        "cluster's directory.",
    )(command)


@click.group("keys")
def keys_command() -> None:
    """Make keys for a cluster, and say who is admitted to it.

    With keys every connection is encrypted, and only who holds a certificate that is
    on the roll gets in. What a certificate allows is its role:

    \b
        factory    keeps the registry, and says who is admitted
        workshop   registers a computer and the processes that it starts there
        worker     registers itself, performs pieces, calls services
        manager    hands out pieces, starts and stops workers
        observer   looks, and changes nothing

    A cluster of this computer alone needs no keys. For one of several computers, on
    the one of its factory:

    \b
        opencluster keys new
        opencluster keys add node7 --role workshop
        opencluster keys add node7-workers --role worker
        scp ~/.local/state/opencluster/default/keys/node7*.key node7:KEYS/

    On node7, with `factories = HOST:PORT` and `keys = KEYS` in [cluster], and KEYS of
    mode 700:

    \b
        opencluster workshop

    Later, while everything runs:

    \b
        opencluster keys add alice --role manager
        opencluster keys show
        opencluster keys revoke alice

    A whole site, step by step, is in docs/security.md.
    """


@keys_command.command("new")
@keys_option
@directory_option
def new_command(directory: Path | None) -> None:
    """Make a directory of keys, with one certificate of each role.

    Keep it closed to others: each NAME.key holds a secret, and alone is enough to get
    in. Processes that are started from then on use the keys; restart those that run.

    \b
    Examples:
        opencluster keys new
        opencluster keys new --keys /etc/opencluster/keys
    """
    place = Place.find()
    directory = _chosen(directory, load(), place)
    if directory.parent == place.path:
        place.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    roll = keyfiles.make_keys(directory)
    click.echo(f"made keys in {directory}; give away what is needed there:", err=True)
    for holder in roll.holders:
        name = f"{holder.name}{keyfiles.SUFFIX}"
        click.echo(f"  {name:14} {_USES[holder.role]}", err=True)
    if keys_directory(load(), place) != directory:
        click.echo(f"write `keys = {directory}` in [cluster] to use them", err=True)


@keys_command.command("show")
@keys_option
@directory_option
def show_command(directory: Path | None) -> None:
    """Show who is admitted: names, roles and fingerprints, never secrets.

    A file is named where the certificate's secret lies in this directory.

    \b
    Example:
        opencluster keys show
    """
    directory = _chosen(directory, load(), Place.find())
    keyfiles.check_closed(directory)
    here = keyfiles.certificates(directory)
    roll = keyfiles.read_roll(directory) if _has_roll(directory) else Roll()
    files = {c.public_key: f"{c.name}{keyfiles.SUFFIX}" for c in here}
    known = {h.public_key for h in roll.holders}
    rows = [("NAME", "ROLE", "FINGERPRINT", "STATE", "FILE")]
    for holder in roll.holders:
        key = holder.public_key
        state = "revoked" if holder.is_revoked else "admitted"
        rows.append(
            (holder.name, holder.role, fingerprint(key), state, files.get(key, "-"))
        )
    for own in here:
        if own.public_key not in known:
            key = own.public_key
            rows.append((own.name, own.role, fingerprint(key), "unknown", files[key]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
    click.echo(f"roll version {roll.version} in {directory}", err=True)


@keys_command.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role for role in ROLES if role != FACTORY]),
    required=True,
    help="What the certificate is for.",
)
@keys_option
@directory_option
def add_command(name: str, role: str, directory: Path | None) -> None:
    """Make a further certificate, and tell the cluster that it is admitted.

    One for each person or computer can be revoked without disturbing the others, and
    keeps what it registers to itself.

    \b
    Examples:
        opencluster keys add alice --role manager
        opencluster keys add node7 --role workshop
    """
    with _changing(directory) as (directory, tell):
        path, roll = keyfiles.add_certificate(directory, name, role)
        click.echo(
            f"made {path}: copy this one file into the directory of keys of whoever "
            "is to use it (mode 600), and keep no copy that is not needed",
            err=True,
        )
        tell(roll)


@keys_command.command("revoke")
@click.argument("name")
@keys_option
@directory_option
def revoke_command(name: str, directory: Path | None) -> None:
    """Admit a certificate no more, from this moment and for good.

    The factories that answer are told, and tell everyone else: what the holder says is
    not heard any more, also over connections that stand. Nothing is restarted.

    \b
    Example:
        opencluster keys revoke alice
    """
    with _changing(directory) as (directory, tell):
        roll = keyfiles.read_roll(directory)
        holder = roll.holder(name)
        if holder is None or not holder.is_revoked:
            roll = keyfiles.revoke_certificate(directory, name)
            click.echo(f"revoked {name}", err=True)
        else:
            click.echo(f"{name} is revoked already", err=True)
        tell(roll)


def fingerprint(public_key: str) -> str:
    """Return what people compare two keys by."""
    digest = hashlib.sha256(public_key.encode()).hexdigest()[:FINGERPRINT_CHARACTERS]
    return "-".join(digest[i : i + 4] for i in range(0, len(digest), 4))


def _chosen(directory: Path | None, config: Config, place: Place) -> Path:
    if directory is not None:
        return directory.expanduser().absolute()
    return keys_directory(config, place) or place.path / "keys"


def _has_roll(directory: Path) -> bool:
    return (directory / keyfiles.ROLL).exists()


@contextmanager
def _changing(
    directory: Path | None,
) -> Iterator[tuple[Path, Callable[[Roll], None]]]:
    """Yield the directory, its roll brought up to date, and what tells a new one.

    Who is admitted is changed on top of the newest roll that anyone has: else two
    changes could have the same version, and one of them would be lost.
    """
    config, place = load(), Place.find()
    directory = _chosen(directory, config, place)
    keyfiles.factory_certificate(directory)
    missing = why_unreachable(config, place)
    if missing:
        yield directory, lambda roll: click.echo(f"told nobody: {missing}", err=True)
        return
    keys = Keyring.load(directory, FACTORY)
    with Control(config, partial(factories, config, place), keys) as control:
        _gather(control, directory)
        yield directory, partial(_tell, control, directory)


def _gather(control: Control, directory: Path) -> Roll:
    """Join the roll here with those of all factories; keep it, and return it."""
    answers = control.every_factory("roll", {}).values()
    with keyfiles.locked(directory):
        roll = keyfiles.read_roll(directory) if _has_roll(directory) else Roll()
        for answer in answers:
            if isinstance(answer, Mapping):
                roll = roll.joined(Roll.from_fields(answer))
        keyfiles.save_roll(directory, roll)
    return roll


def _tell(control: Control, directory: Path, roll: Roll) -> None:
    """Give every factory the new roll, and see that it is the one that holds.

    Who is admitted may be changed elsewhere at the same time. Both changes shall hold,
    so what the factories have is joined with the roll here, and told again.

    Raises
    ------
    FactoryUnreachable
        When none takes it.
    SecurityError
        When there is no end of other changes.
    """
    for _ in range(TELL_ATTEMPTS):
        answers = control.every_factory("enroll", {"roll": roll.to_fields()})
        joined = _gather(control, directory)
        if joined == roll:
            break
        roll = joined
    else:
        raise SecurityError(
            "who is admitted is being changed elsewhere at the same time: run the "
            "command again"
        )
    for endpoint, answer in answers.items():
        if isinstance(answer, OpenClusterError):
            click.echo(f"{endpoint} was not told: {answer}", err=True)
    told = [e for e, a in answers.items() if not isinstance(a, OpenClusterError)]
    if not told:
        raise FactoryUnreachable(
            "the roll here is changed, but no factory could be told, so it is not in "
            "force where others run: run the command again when one answers"
        )
    click.echo(f"told {', '.join(told)} (roll version {roll.version})", err=True)
