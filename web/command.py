"""``opencluster web``: the pages of a cluster, and the accounts of who sees them."""

from __future__ import annotations

import getpass
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opencluster.config import Config, load
from opencluster.errors import AccountError, ConfigError
from opencluster.place import Place
from opencluster.start import set_up_logging

if TYPE_CHECKING:
    from opencluster_web.accounts.store import AccountStore
    from opencluster_web.serving import Certificate

ROLES = ("observer", "operator", "administrator")
DAY_S = 86_400.0


def _with_its_packages(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that tells which package it misses, and how to get it."""

    @wraps(command)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"`opencluster web` needs the Python package {error.name}: install "
                "what the pages need with pip install 'opencluster[web]'"
            ) from error

    return guarded


@click.group("web", invoke_without_command=True)
@click.option(
    "--images",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of MUSER's images, for a gallery of them.",
)
@click.option(
    "--index",
    "index_url",
    default="",
    metavar="URL",
    help="Their index; by default images.db in that folder.",
)
@click.option(
    "--bind", metavar="ADDRESS", help="Where to listen, instead of [web] bind."
)
@click.option("--dir", "directory", metavar="DIR", help="The cluster's directory.")
@click.pass_context
@_with_its_packages
def web_command(
    context: click.Context,
    images: Path | None,
    index_url: str,
    bind: str | None,
    directory: str | None,
) -> None:
    """Show the cluster, and the images of MUSER as they come, in a browser.

    The first start prints a link with which you make yourself the administrator; others
    get accounts from you, on the pages or by `opencluster web adduser`. There is no
    default password. See [web] in the configuration for TLS, proxies and guests.

    \b
    Examples:
        opencluster web
        opencluster web --images images --bind 127.0.0.1:9090
        opencluster web adduser anna --role operator
    """
    place = Place.find(directory)
    context.obj = place
    if context.invoked_subcommand is not None:
        return
    from opencluster_web.application import WebSettings, create_app
    from opencluster_web.serving import WebServer, parse_bind

    config = load()
    # who looks at the pages is told of the rest there
    set_up_logging("WARNING")
    web = config.web
    certificate = _certificate(config)
    is_protected = certificate is not None or web.behind_proxy
    host, port = parse_bind(bind or web.bind, is_protected)
    app = create_app(
        WebSettings(
            images,
            index_url,
            config,
            place,
            hosts=_hosts(config, host),
            guests=web.guests,
            is_encrypted=is_protected,
            is_behind_proxy=web.behind_proxy,
            session_s=web.session_hours * 3600.0,
        )
    )
    server = WebServer(app, host, port, certificate)
    accounts: AccountStore = app.extensions["opencluster_accounts"]
    click.echo(f"the pages are at {server.url}; Ctrl-C ends", err=True)
    if not accounts.people.has_administrator:
        click.echo(
            "there is no administrator yet: open this link within a day to be it\n"
            f"    {server.url}welcome/{accounts.links.make()}",
            err=True,
        )
    server.run()


@web_command.command("openapi")
@_with_its_packages
def openapi_command() -> None:
    """Print the OpenAPI document of the interface for programs, as JSON.

    \b
    Examples:
        opencluster web openapi > openapi.json
    """
    from opencluster_web.api.document import document
    from opencluster_web.application import WebSettings, close_app, create_app

    with tempfile.TemporaryDirectory() as folder:
        app = create_app(WebSettings(accounts=Path(folder) / "web.db"))
        click.echo(json.dumps(document(app), indent=2))
        close_app(app)


@web_command.command("adduser")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), default=ROLES[0], show_default=True)
@click.option(
    "--link",
    is_flag=True,
    help="Print a link to choose a password by, and ask for none.",
)
@click.pass_obj
@_with_its_packages
def adduser_command(place: Place, name: str, role: str, link: bool) -> None:
    """Make an account.

    Observers look; operators also start and stop things; administrators also see to
    accounts.
    """
    from opencluster_web.accounts.roles import Role

    with _accounts(place) as accounts:
        password = "" if link else _asked_twice()
        accounts.people.add(name, Role.of(role), password)
        _note(accounts, "add account", name, role=role)
        click.echo(f"{name} may log in as {role}", err=True)
        if link:
            _tell_link(accounts, name)


@web_command.command("passwd")
@click.argument("name")
@click.option("--link", is_flag=True, help="Print a link to choose it by instead.")
@click.pass_obj
@_with_its_packages
def passwd_command(place: Place, name: str, link: bool) -> None:
    """Change the password of an account, which ends its sessions."""
    with _accounts(place) as accounts:
        if link:
            _tell_link(accounts, name)
            return
        accounts.people.set_password(name, _asked_twice())
        _note(accounts, "change password", name)
        click.echo(f"the password of {name} is changed", err=True)


@web_command.command("deluser")
@click.argument("name")
@click.pass_obj
@_with_its_packages
def deluser_command(place: Place, name: str) -> None:
    """Remove an account with its tokens; the last administrator stays."""
    with _accounts(place) as accounts:
        accounts.people.remove(name)
        _note(accounts, "remove account", name)
        click.echo(f"{name} is removed", err=True)


@web_command.command("users")
@click.pass_obj
@_with_its_packages
def users_command(place: Place) -> None:
    """List the accounts."""
    with _accounts(place) as accounts:
        for each in accounts.people.all():
            state = "open" if each.has_password else "waits for a password"
            state = state if each.is_open else "closed"
            click.echo(f"{each.name:<24} {each.role.word:<14} {state}")


@web_command.command("token")
@click.argument("name")
@click.option("--for", "note", required=True, help="What it is for.")
@click.option("--role", type=click.Choice(ROLES), default=ROLES[0], show_default=True)
@click.option("--days", default=90.0, show_default=True, help="0 for ever.")
@click.pass_obj
@_with_its_packages
def token_command(place: Place, name: str, note: str, role: str, days: float) -> None:
    """Print a token of NAME's for a program, which may no more than NAME and the role.

    \b
    curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/api/v1/status
    """
    from opencluster_web.accounts.roles import Role

    if days < 0:
        raise AccountError("a token cannot be good for less than no time: --days 0")
    with _accounts(place) as accounts:
        _, secret = accounts.tokens.make(name, note, Role.of(role), days * DAY_S)
        _note(accounts, "make token", note, owner=name, role=role, days=days)
        click.echo(secret)


# --- inside -----------------------------------------------------------------


@contextmanager
def _accounts(place: Place) -> Iterator[AccountStore]:
    from opencluster_web.accounts.store import AccountStore
    from opencluster_web.application import ACCOUNTS

    with closing(AccountStore(place.path / ACCOUNTS)) as accounts:
        yield accounts


def _asked_twice() -> str:
    password: str = click.prompt(
        "Password", hide_input=True, confirmation_prompt=True, err=True
    )
    return password


def _note(accounts: AccountStore, action: str, subject: str, **details: Any) -> None:
    """Write into the audit log what was done here, in the name of the system's user."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        # an account of the system that has no name
        who = str(os.getuid())
    accounts.audit.note(who, "command", "", action, subject, "done", details)


def _tell_link(accounts: AccountStore, name: str) -> None:
    _note(accounts, "make one-time link", name)
    click.echo(
        "open this on the pages within a day to choose the password: "
        f"/welcome/{accounts.links.make(name)}"
    )


def _certificate(config: Config) -> Certificate | None:
    from opencluster_web.serving import Certificate

    files = {name: getattr(config.web, name) for name in ("tls_certificate", "tls_key")}
    if not any(files.values()):
        return None
    for name, text in files.items():
        if not text:
            raise ConfigError(f"[web] {name} is missing: a certificate needs its key")
    for name, text in files.items():
        if not Path(text).is_file():
            raise ConfigError(f"[web] {name}: there is no file {text}")
    return Certificate(Path(files["tls_certificate"]), Path(files["tls_key"]))


def _hosts(config: Config, bound: str) -> tuple[str, ...]:
    """Return the names under which browsers may ask."""
    named = [name.strip().lower() for name in config.web.hosts.split(",")]
    ours = ["localhost", "127.0.0.1", "[::1]", bound.lower()]
    if not config.web.hosts:
        ours += [socket.gethostname().lower(), socket.getfqdn().lower()]
    return tuple(dict.fromkeys(name for name in [*ours, *named] if name))
