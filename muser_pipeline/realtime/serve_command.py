"""``opencluster muser serve``: raw frames come in over TCP, images go out."""

from __future__ import annotations

import ast
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muser_pipeline.moments import parse_duration

if TYPE_CHECKING:
    from opencluster import Manager

MANAGER = "muser_pipeline.realtime.image_manager:MUSERImageManager"
LOOP = "loop"
SWITCH_S = 0.0005
"""Longest turn of a thread that runs Python: managers must not keep the sockets."""
ARRAYS = {"I": 1, "II": 2}


def parse_interval(text: str) -> int:
    """Return the length of an item in nanoseconds; 0 for a loop."""
    try:
        return 0 if text == LOOP else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of an address such as ``127.0.0.1:9110``."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is no address such as 127.0.0.1:9110")
    return host.strip("[]"), int(port)


def parse_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of the manager from ``NAME=VALUE`` texts."""
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{pair!r}: write NAME=VALUE")
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name] = text
    return options


def tls_options(command: Any) -> Any:
    """Add the options of TLS to a command."""
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    for name, what in (
        ("--tls-ca", "Who signs the certificates of the other side (PEM)."),
        ("--tls-key", "The key of our certificate (PEM)."),
        ("--tls-cert", "Our certificate (PEM); needed beyond this computer."),
    ):
        command = click.option(name, type=path, help=what)(command)
    return command


def read_tls(cert: Path | None, key: Path | None, authority: Path | None) -> Any:
    """Return the files of TLS, or ``None`` without any."""
    from opencluster.ingest import TLSFiles

    if cert is None and key is None and authority is None:
        return None
    if cert is None or key is None or authority is None:
        raise click.UsageError("--tls-cert, --tls-key and --tls-ca go together")
    return TLSFiles(cert, key, authority)


@click.command("serve")
@click.option(
    "--array", type=click.Choice(list(ARRAYS)), default="I", show_default=True
)
@click.option(
    "--bind",
    metavar="HOST:PORT",
    default="127.0.0.1:9110",
    show_default=True,
    callback=lambda context, parameter, text: parse_address(text),
    help="Where to listen, elsewhere only with TLS; port 0 takes a free one.",
)
@click.option(
    "--framing",
    type=click.Choice(["frames", "items"]),
    default="frames",
    show_default=True,
    help="Frames back to back, as the digital receiver sends them, or items that are "
    "answered for (docs/protocols.md).",
)
@click.option(
    "--interval",
    default="1s",
    show_default=True,
    callback=lambda context, parameter, text: parse_interval(text),
    help=f"Frames that make one item: 25ms, 1s, or {LOOP} for one of all bands.",
)
@click.option(
    "--spool",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder on a local disk, where items wait until they are processed.",
)
@click.option(
    "--images",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the images, which the workers must see too.",
)
@click.option("--index", metavar="URL", help="Index of images; default in that folder.")
@click.option(
    "--manager",
    "target",
    metavar="MODULE:CLASS",
    default=MANAGER,
    show_default=True,
    help="The Manager that has a run for each item.",
)
@click.option(
    "--option",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="For the manager, such as clean=clark or iterations=500. Repeatable.",
)
@click.option(
    "--policy",
    type=click.Choice(["block", "drop-oldest", "sample"]),
    help="When more comes than is processed: the sender waits, the oldest item goes, "
    "or fewer are kept. Default [ingest] policy.",
)
@click.option("--managers", type=click.IntRange(1, 1000), help="Items at a time.")
@click.option(
    "--engine",
    type=click.Choice(["cluster", "process", "local"]),
    help="Where the pieces run: on the cluster, or without one on this computer.",
)
@click.option(
    "--status-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the counts are written each second, as JSON.",
)
@click.option("--drain", is_flag=True, help="On Ctrl-C, first process what is spooled.")
@tls_options
def serve_command(
    array: str,
    bind: tuple[str, int],
    framing: Any,
    interval: int,
    spool: Path,
    images: Path | None,
    index: str | None,
    target: str,
    pairs: tuple[str, ...],
    policy: str | None,
    managers: int | None,
    engine: str | None,
    status_file: Path | None,
    drain: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
) -> None:
    """Take raw frames over TCP, and have images made of them as they come.

    What was accepted is on disk before the sender is told, and is processed once,
    whatever is killed meanwhile: start the command again with the same --spool. What
    is no frame of the array, comes twice, late or from the future is left out and
    counted. The counts are logged each minute and printed at the end. Ctrl-C ends it;
    a second one does not wait.

    \b
    On a cluster:
        opencluster start
        opencluster worker muser_pipeline.realtime.image_worker:MUSERImageWorker
        opencluster muser serve --spool /data/spool --images /data/images
    Frames for it, from an archive, at the speed of the instrument:
        opencluster muser send archive --to 127.0.0.1:9110 --rate 1x
    """
    from muser_pipeline.realtime.server import MUSERSocketServer
    from opencluster.ingest import set_up_logging

    options = parse_options(pairs)
    if images is not None:
        images.mkdir(parents=True, exist_ok=True)
        options["out"] = images.absolute()
    elif target == MANAGER:
        raise click.UsageError("--images is needed: where do they go?")
    if index:
        options["index"] = index
    tls = read_tls(tls_cert, tls_key, tls_ca)
    server = MUSERSocketServer(
        ARRAYS[array],
        manager_maker(target, engine or ""),
        spool,
        framing=framing,
        interval_ns=interval,
        options=options,
        host=bind[0],
        port=bind[1],
        tls=tls and tls.for_server(),
        policy=policy or "",
        managers=managers or 0,
        status_file=status_file,
        drain=drain,
    )

    set_up_logging(server.config.log.level)

    def end(number: int, frame: object) -> None:
        # a second signal ends it as it would any program
        signal.signal(number, signal.SIG_DFL)
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    sys.setswitchinterval(SWITCH_S)
    host, port = server.address
    click.echo(f"listening at {host}:{port}")
    server.run()
    click.echo(str(server.status), err=True)
    if status_file is not None:
        click.echo(f"the counts are in {status_file}", err=True)


def manager_maker(target: str, engine: str) -> Any:
    """Return what makes managers of a class.

    Raises
    ------
    click.BadParameter
        When there is no such class, or it is no Manager.
    """
    from importlib import import_module

    from opencluster import Manager

    module, colon, name = target.rpartition(":")
    try:
        cls = getattr(import_module(module), name) if colon else None
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"{target}: {error}", param_hint="--manager") from None
    if not isinstance(cls, type) or not issubclass(cls, Manager):
        raise click.BadParameter(
            f"{target} is no Manager; write MODULE:CLASS", param_hint="--manager"
        )

    def make() -> Manager:
        return cls(engine)

    return make
