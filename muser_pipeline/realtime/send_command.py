"""``opencluster muser send``: frames of an archive or a simulation, sent over TCP."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muser_pipeline.moments import parse_duration, parse_time
from muser_pipeline.realtime.serve_command import (
    ARRAYS,
    parse_address,
    read_tls,
    tls_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from muser_pipeline.realtime.sending import Block
    from opencluster.ingest import Sent

FASTEST = "max"
FOREVER_NS = (1 << 63) - 1


def parse_rate(text: str) -> float:
    """Return how much faster than observed; 0 for as fast as can be."""
    if text == FASTEST:
        return 0.0
    try:
        rate = float(text.removesuffix("x"))
    except ValueError:
        rate = -1.0
    if not 0 < rate < float("inf"):
        raise click.BadParameter(f"{text!r} is no rate such as 1x, 0.5x or {FASTEST}")
    return rate


def _moment(context: click.Context, parameter: Any, text: str | None) -> int | None:
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _duration(context: click.Context, parameter: Any, text: str | None) -> int | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("send")
@click.argument(
    "directory", required=False, type=click.Path(exists=True, path_type=Path)
)
@click.option(
    "--to",
    "address",
    metavar="HOST:PORT",
    default="127.0.0.1:9110",
    show_default=True,
    callback=lambda context, parameter, text: parse_address(text),
    help="Where `opencluster muser serve` listens.",
)
@click.option(
    "--rate",
    default="1x",
    show_default=True,
    callback=lambda context, parameter, text: parse_rate(text),
    help=f"How much faster than observed: 1x, 0.5x, 10x, or {FASTEST}.",
)
@click.option(
    "--framing",
    type=click.Choice(["frames", "items"]),
    default="frames",
    show_default=True,
    help="As the server has it.",
)
@click.option("--interval", default="1s", callback=_duration, help="Length of an item.")
@click.option(
    "--array", type=click.Choice(list(ARRAYS)), default="I", show_default=True
)
@click.option(
    "--sky",
    "sky_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Simulate this sky instead of reading an archive.",
)
@click.option(
    "--start",
    callback=_moment,
    metavar="TIME",
    help="UTC, of the first frame; of a simulation by default now.",
)
@click.option("--duration", callback=_duration, help="Such as 10s; default all.")
@click.option(
    "--system-temperature",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    help="Of a simulation, kelvin.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of its noise.")
@click.option(
    "--patience",
    default="1min",
    show_default=True,
    callback=_duration,
    help="For how long a server that is not there is tried.",
)
@tls_options
def send_command(
    directory: Path | None,
    address: tuple[str, int],
    rate: float,
    framing: str,
    interval: int,
    array: str,
    sky_file: Path | None,
    start: int | None,
    duration: int | None,
    system_temperature: float,
    seed: int,
    patience: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
) -> None:
    """Send raw frames over TCP, as if they were observed now.

    They come from the files in DIRECTORY, or from a simulation of --sky. With
    --framing items each second is sent until the server has answered for it, over as
    many connections as that takes; exit code 1 says that some were refused.

    \b
    Examples:
        opencluster muser send archive --rate 1x
        opencluster muser send archive --rate max --framing items
        opencluster muser send --sky sun.toml --duration 1min
        opencluster muser send archive --to muser.example.org:9110 \\
            --tls-cert me.pem --tls-key me.key --tls-ca observatory.pem
    """
    from muser_pipeline.realtime.sending import (
        FeedSender,
        Pacer,
        by_interval,
        send_items,
    )
    from opencluster.ingest import ItemSender

    if (directory is None) == (sky_file is None):
        raise click.UsageError("give a DIRECTORY of raw files, or --sky")
    number = ARRAYS[array]
    if sky_file is not None:
        blocks = _simulated(number, sky_file, start, duration, system_temperature, seed)
    else:
        assert directory is not None
        blocks = _archived(directory, number, start, duration)
    tls = read_tls(tls_cert, tls_key, tls_ca)
    context = tls and tls.for_client()
    pacer = Pacer(rate)
    began = time.monotonic()
    refused: dict[str, str] = {}
    with _bar() as moved:
        if framing == "items":
            with ItemSender(
                address,
                tls=context,
                patience_s=patience / 1e9,
                on_change=lambda sent: moved(sent.written_bytes, sent.waits),
            ) as sender:
                send_items(sender, number, by_interval(blocks, interval), pacer)
            sent, total = sender.sent, sender.sent.written_bytes
            refused = sent.refused
            told = _told(sent)
        else:
            total = 0

            def more(count: int) -> None:
                nonlocal total
                total += count
                moved(total, "")

            feed = FeedSender(
                address, tls=context, patience_s=patience / 1e9, on_sent=more
            )
            feed.send(blocks, pacer)
            told = f"{feed.connections} connection{'s' * (feed.connections > 1)}"
            if feed.connections > 1:
                told += ", and frames were lost with each but the last"
    elapsed_s = max(1e-9, time.monotonic() - began)
    click.echo(
        f"{total / 1e6:,.1f} MB in {elapsed_s:.1f} s, {total / 1e6 / elapsed_s:,.1f} "
        f"MB/s; {told}",
        err=True,
    )
    for name, reason in refused.items():
        click.echo(f"{name} was refused: {reason}", err=True)
    if refused:
        sys.exit(1)


def _told(sent: Sent) -> str:
    told = f"{sent.accepted:,} items accepted"
    for count, what in (
        (sent.known, "known already"),
        (sent.repeated, "sent again"),
        (len(sent.refused), "refused"),
    ):
        told += f", {count:,} {what}" if count else ""
    return told


def _archived(
    directory: Path, array: int, start: int | None, duration: int | None
) -> Iterator[Block]:
    from muser_pipeline.archive import index_archive
    from muser_pipeline.realtime.sending import archived

    archive = index_archive(directory, array)
    if not archive.files:
        raise click.UsageError(
            f"{directory} has no raw files of MUSER-{'I' * array}; see --array"
        )
    first = archive.files[0].first_utc_ns if start is None else start
    end = FOREVER_NS if duration is None else first + duration
    return archived(archive, first, end)


def _simulated(
    array: int,
    sky_file: Path,
    start: int | None,
    duration: int | None,
    temperature_k: float,
    seed: int,
) -> Iterator[Block]:
    import numpy as np

    from muser_pipeline.array import FRAME_PERIOD_NS, load_array
    from muser_pipeline.raw.clock import TICK_NS
    from muser_pipeline.realtime.sending import simulated
    from muser_pipeline.simulator import Instrument, Observation, read_sky

    begin = time.time_ns() if start is None else start
    instrument = Instrument.random(
        load_array(array),
        np.random.default_rng([seed, array]),
        system_temperature_k=temperature_k,
    )
    observation = Observation(
        array, read_sky(sky_file), instrument, begin - begin % TICK_NS
    )
    count = FOREVER_NS if duration is None else duration
    return simulated(observation, -(-count // FRAME_PERIOD_NS), seed)


@contextmanager
def _bar() -> Iterator[Callable[[int, str], None]]:
    """Yield what moves a display of bytes and rate; on no terminal it shows nothing."""
    from rich.console import Console
    from rich.progress import (
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        line = bar.add_task("", total=None)

        def moved(count: int, waits: str) -> None:
            said = f"the server waits: {waits}" if waits else ""
            bar.update(line, completed=count, description=said)

        yield moved
