"""``opencluster web``: the pages of a cluster, served on this computer."""

from __future__ import annotations

from pathlib import Path

import click

from opencluster.errors import ConfigError

BIND = "127.0.0.1:8080"


@click.command("web")
@click.option(
    "--images",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of MUSER's images; see `opencluster muser serve --out`.",
)
@click.option(
    "--index",
    "index_url",
    default="",
    metavar="URL",
    help="Their index; by default images.db in that folder.",
)
@click.option("--bind", default=BIND, show_default=True, help="Where to listen.")
def web_command(images: Path, index_url: str, bind: str) -> None:
    """Show the images of MUSER in a browser, as they come.

    There are no accounts yet, so only this computer is let in.

    \b
    Example:
        opencluster web --images images
    """
    try:
        from opencluster_web.application import WebSettings, create_app
        from opencluster_web.serving import WebServer, parse_bind
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"`opencluster web` needs the Python package {error.name}: install what "
            "the pages need with pip install 'opencluster[web]'"
        ) from error

    host, port = parse_bind(bind)
    app = create_app(WebSettings(images, index_url))
    server = WebServer(app, host, port)
    click.echo(f"the pages are at {server.url}; Ctrl-C ends", err=True)
    server.run()
