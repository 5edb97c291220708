"""``opencluster deploy``: make a computer part of a cluster that stays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click

from opencluster_deploy.installation import CERTIFICATES, SYSUSERS, Installation, plan


@click.group("deploy")
def deploy_command() -> None:
    """Install the daemons of a cluster on this computer, under systemd."""


def _read_factories(
    context: click.Context, parameter: click.Parameter, text: str
) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    for part in found:
        host, _, port = part.rpartition(":")
        if not host or not port.isdecimal():
            raise click.BadParameter(
                f"{part!r} is not HOST:PORT, such as node1:9100,node2:9100"
            )
    return found


@deploy_command.command("install")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(list(CERTIFICATES)),
    help="What this computer does. Repeatable.",
)
@click.option(
    "--factories",
    required=True,
    metavar="HOST:PORT,...",
    callback=_read_factories,
    help="All factories, the same list in the same order on every computer.",
)
@click.option(
    "--keys",
    default="",
    metavar="new|DIR",
    help="Make the keys of the cluster here, or copy them from a folder.",
)
@click.option(
    "--root",
    default="/",
    type=click.Path(file_okay=False, path_type=Path),
    help="Install below this folder, for an image of a computer.",
)
@click.option(
    "--program",
    default="",
    metavar="COMMAND",
    help="How the daemons start opencluster; default: with this Python.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--start", is_flag=True, help="Start the daemons, now and at each boot.")
def install_command(
    roles: tuple[str, ...],
    factories: list[str],
    keys: str,
    root: Path,
    program: str,
    dry_run: bool,
    start: bool,
) -> None:
    """Write the configuration, keys and units of this computer.

    Configuration that is there is left as it is; units are replaced. Run it again after
    an upgrade, or with further roles.

    \b
    Examples:
        opencluster deploy install --role factory --role workshop \\
            --factories node1:9100,node2:9100,node3:9100 --keys new --start
        opencluster deploy install --role workshop --keys ./keys-for-node7 \\
            --factories node1:9100,node2:9100,node3:9100 --dry-run
    """
    installation = plan(roles, factories, root=root, program=program, keys=keys)
    would = "would " if dry_run else ""
    for step in installation.steps():
        click.echo(f"{would}{step}")
    if not dry_run:
        installation.write_files()
        _make_user(installation)
        installation.install_keys()
    for role in installation.missing_keys():
        click.echo(
            f"missing {root / 'etc/opencluster/keys' / role}.key: copy it from the "
            "computer where the keys were made, mode 600 and owned by the user "
            "opencluster, before you start the daemons",
            err=True,
        )
    _start(installation, start and not dry_run)


def _make_user(installation: Installation) -> None:
    """Make the user to whom keys are given."""
    if installation.root == Path("/") and shutil.which("systemd-sysusers") is not None:
        subprocess.run(["systemd-sysusers", f"/{SYSUSERS}"], check=True)


def _start(installation: Installation, is_wanted: bool) -> None:
    commands = [
        ["systemd-tmpfiles", "--create", "/etc/tmpfiles.d/opencluster.conf"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "--now", *installation.units],
    ]
    if not is_wanted:
        click.echo("then run:")
    for command in commands:
        click.echo(f"  {' '.join(command)}")
        if is_wanted:
            subprocess.run(command, check=True)
