"""``opencluster web``: the pages of a cluster, served on this computer."""

from __future__ import annotations

from pathlib import Path

import click

from opencluster.config import load
from opencluster.errors import ConfigError
from opencluster.place import Place

BIND = "127.0.0.1:8080"


@click.command("web")
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
@click.option("--bind", default=BIND, show_default=True, help="Where to listen.")
@click.option("--dir", "directory", metavar="DIR", help="The cluster's directory.")
def web_command(
    images: Path | None, index_url: str, bind: str, directory: str | None
) -> None:
    """Show the cluster, and the images of MUSER as they come, in a browser.

    There are no accounts yet, so only this computer is let in.

    \b
    Examples:
        opencluster web
        opencluster web --images images --bind 127.0.0.1:9090
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
    app = create_app(WebSettings(images, index_url, load(), Place.find(directory)))
    server = WebServer(app, host, port)
    click.echo(f"the pages are at {server.url}; Ctrl-C ends", err=True)
    server.run()
