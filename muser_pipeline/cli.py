"""``opencluster muser``: commands for the data of MUSER.

Messages go to standard error and data to standard out, as with every command.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from muser_pipeline import moments
from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.batch.command import uvfits_command
from muser_pipeline.realtime.image_command import image_command
from muser_pipeline.realtime.send_command import send_command
from muser_pipeline.realtime.serve_command import serve_command

if TYPE_CHECKING:
    from muser_pipeline.simulator import Observation, Sky

ARRAYS = {"I": 1, "II": 2, "1": 1, "2": 2}


def parse_time(text: str) -> int:
    """Return a time of ISO 8601 as nanoseconds since 1970.

    It is UTC unless it says otherwise; fractions of a second may have nine digits.
    """
    return _parsed(moments.parse_time, text)


def parse_duration(text: str) -> int:
    """Return a number with a unit, such as 25ms, 10s or 2min, as nanoseconds."""
    return _parsed(moments.parse_duration, text)


def _parsed(parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def parse_inputs(text: str) -> tuple[int, ...]:
    """Return the numbers in a text that are separated by commas."""
    try:
        return tuple(int(part) for part in text.split(",") if text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of inputs such as 4,7,11"
        ) from None


def _read_by(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """Let an option's text be read by a function."""
    return lambda context, parameter, text: parse(text)


@click.group("muser")
def muser_command() -> None:
    """Process the data of MUSER, the solar radio heliograph."""


muser_command.add_command(uvfits_command)
muser_command.add_command(image_command)
muser_command.add_command(serve_command)
muser_command.add_command(send_command)


@muser_command.command("simulate")
@click.option(
    "--array",
    "name",
    required=True,
    type=click.Choice(list(ARRAYS)),
    help="MUSER-I or MUSER-II.",
)
@click.option(
    "--start",
    required=True,
    metavar="TIME",
    callback=_read_by(parse_time),
    help="UTC, of the first frame.",
)
@click.option(
    "--duration",
    required=True,
    callback=_read_by(parse_duration),
    help="Such as 10s or 2min.",
)
@click.option(
    "--sky",
    "sky_file",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What is there, in TOML; see muser_pipeline/simulator/sky.py.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the archive is made.",
)
@click.option(
    "--mode",
    type=click.Choice(["loop", "fixed"]),
    default="loop",
    show_default=True,
    help="Go through all bands and hands, or stay in one.",
)
@click.option("--band", type=click.IntRange(min=0), default=0, help="If it is fixed.")
@click.option(
    "--polarization",
    type=click.Choice(["LL", "RR"]),
    default="LL",
    help="If the band is fixed.",
)
@click.option(
    "--layout",
    type=click.Choice(["old", "new"]),
    default="new",
    show_default=True,
    help="Of the frames.",
)
@click.option(
    "--fringes",
    type=click.Choice(["stopped", "running"]),
    default="stopped",
    show_default=True,
    help="Whether the hardware takes away the delays.",
)
@click.option(
    "--update",
    callback=_read_by(parse_duration),
    default="1s",
    show_default=True,
    help="How often the visibilities of the sky are computed anew.",
)
@click.option(
    "--system-temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Kelvin; 0 for no noise.",
)
@click.option(
    "--gain-scatter",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Of the antennas, 0.1 for 10 %.",
)
@click.option(
    "--phase-scatter",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Of the antennas, degrees.",
)
@click.option(
    "--delay-scatter",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Of the antennas, nanoseconds.",
)
@click.option(
    "--dead",
    callback=_read_by(parse_inputs),
    default="",
    metavar="INPUTS",
    help="Dead antennas, such as 4,7.",
)
@click.option(
    "--lost-frames",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Probability of a frame to be lost.",
)
@click.option(
    "--bit-errors",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Probability of a bit to be turned.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of all chance.",
)
@click.option("--json", "is_json", is_flag=True, help="Print a summary for programs.")
def simulate_command(
    name: str,
    start: int,
    duration: int,
    sky_file: Path,
    out: Path,
    is_json: bool,
    **options: Any,
) -> None:
    """Write raw frames of a sky that is known.

    The archive has the directories and files of the observatory's. The same seed gives
    the same bytes.

    \b
    Example:
        opencluster muser simulate --array I --start 2015-11-01T04:00:00 \\
            --duration 10s --sky sun.toml --out archive --system-temperature 300
    """
    from muser_pipeline.raw.clock import TICK_NS
    from muser_pipeline.simulator import Damage, read_sky, simulate

    array = ARRAYS[name]
    frames = -(-duration // FRAME_PERIOD_NS)
    last_band = len(load_array(array).bands) - 1
    if options["band"] > last_band:
        raise click.BadParameter(
            f"MUSER-{name} has the bands 0 to {last_band}", param_hint="--band"
        )
    sky = read_sky(sky_file)
    observation = _observation(array, start - start % TICK_NS, sky, options)
    damage = Damage(options["lost_frames"], options["bit_errors"])
    done = simulate(observation, frames, out, seed=options["seed"], damage=damage)
    if is_json:
        summary = {
            "files": [str(path) for path in done.files],
            "frames": done.frames,
            "lost_utc_ns": done.lost_utc_ns,
            "bit_errors": done.bit_errors,
        }
        click.echo(json.dumps(summary))
        return
    for path in done.files:
        click.echo(path)
    click.echo(
        f"{done.frames:,} frames written, {len(done.lost_utc_ns):,} lost, "
        f"{done.bit_errors:,} bits turned",
        err=True,
    )


def _observation(
    array: int, start: int, sky: Sky, options: dict[str, Any]
) -> Observation:
    from muser_pipeline.calibration import static_delays_ns
    from muser_pipeline.simulator import Instrument, Observation

    instrument = Instrument.random(
        load_array(array),
        np.random.default_rng([options["seed"], array]),
        gain_scatter=options["gain_scatter"],
        phase_scatter_deg=options["phase_scatter"],
        delay_scatter_ns=options["delay_scatter"],
        static_delays_ns=static_delays_ns(1, start) if array == 1 else None,
        dead=options["dead"],
        system_temperature_k=options["system_temperature"],
    )
    return Observation(
        array,
        sky,
        instrument,
        start,
        mode=options["mode"],
        band=options["band"],
        polarization=options["polarization"],
        layout=options["layout"],
        fringes_stopped=options["fringes"] == "stopped",
        update_ns=options["update"],
    )
