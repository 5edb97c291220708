"""``opencluster muser image``: an image of a UVFITS file, by hand."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muser_pipeline.moments import parse_duration

if TYPE_CHECKING:
    from muser_pipeline.imaging.clean import CleanOptions
    from muser_pipeline.imaging.image import Image
    from muser_pipeline.imaging.options import ImageOptions, SunOptions
    from muser_pipeline.imaging.phasing import PhasesName
    from muser_pipeline.imaging.pipeline import Progress
    from muser_pipeline.imaging.visibilities import Snapshot

SUN = "sun"
"""The name of the target whose images are turned and have a disk."""
_SIGMAS = 3.0
_SIGMA = re.compile(r"(.*?)\s*sigma", re.IGNORECASE)
_RANGE = re.compile(r"\s*([0-9.]+)\s*-\s*([0-9.]+)\s*(MHz|GHz)?\s*", re.IGNORECASE)
_HERTZ = {"mhz": 1e6, "ghz": 1e9}


def _read_by(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """Let an option's text be read by a function."""

    def read(
        context: click.Context, parameter: click.Parameter, text: str | None
    ) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return read


def parse_weight(text: str) -> tuple[str, float]:
    """Return the weighting and the robust parameter that a text is."""
    from muser_pipeline.realtime.options import parse_weighting

    return parse_weighting(text)


def parse_threshold(text: str) -> tuple[float, float]:
    """Return a threshold in units of the image, and one in sigma; 0 for none.

    Raises
    ------
    ValueError
        When the text is neither a number nor a number of sigma.
    """
    found = _SIGMA.fullmatch(text.strip())
    try:
        number = float(found[1] if found else text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError(f"{text!r} is no threshold such as 0.05 or 5sigma")
    return (0.0, number) if found else (number, 0.0)


def parse_range(text: str) -> tuple[float, float]:
    """Return a range of frequencies in hertz.

    Raises
    ------
    ValueError
        When the text is none.
    """
    found = _RANGE.fullmatch(text)
    try:
        low, high = (float(found[n]) if found else -1.0 for n in (1, 2))
    except ValueError:
        low = high = -1.0
    if not found or not low < high:
        raise ValueError(f"{text!r} is no range such as 400-800MHz or 1.2-1.6GHz")
    unit = _HERTZ[(found[3] or "MHz").lower()]
    return low * unit, high * unit


@click.command("image")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--size",
    type=click.IntRange(min=32),
    help="Pixels of a side, even; default what holds the Sun, else 512.",
)
@click.option(
    "--cell",
    "cell_arcsec",
    type=click.FloatRange(min=0, min_open=True),
    metavar="ARCSEC",
    help="Side of a pixel; default a third of the smallest fringe.",
)
@click.option(
    "--weight",
    default="natural",
    show_default=True,
    metavar="NAME",
    callback=_read_by(parse_weight),
    help="natural, uniform or briggs:R with R from -2 to 2.",
)
@click.option(
    "--taper",
    "taper_arcsec",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="ARCSEC",
    help="Width of what the taper makes of a point.",
)
@click.option(
    "--clean",
    "algorithm",
    type=click.Choice(["hogbom", "clark", "multiscale", "none"]),
    default="hogbom",
    show_default=True,
    help="How it is cleaned.",
)
@click.option(
    "--gain",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Part of a peak that one component takes away.",
)
@click.option(
    "--niter",
    "iterations",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Components at most.",
)
@click.option(
    "--threshold",
    metavar="T",
    callback=_read_by(parse_threshold),
    help="Where to stop: 0.05 in units of the image, 5sigma of its noise, or 0; "
    "default 3sigma, but 0 where phases were found.",
)
@click.option(
    "--pol",
    "polarization",
    type=click.Choice(["I", "V", "LL", "RR"]),
    default="I",
    show_default=True,
    help="Stokes parameter or hand.",
)
@click.option(
    "--frequency",
    "range_hz",
    metavar="RANGE",
    callback=_read_by(parse_range),
    help="Only channels in this range, such as 400-800MHz; default all.",
)
@click.option(
    "--self-calibrate",
    is_flag=True,
    help="Solve for phases of antennas on the brightest point.",
)
@click.option(
    "--phases",
    type=click.Choice(["auto", "known", "unknown"]),
    default="auto",
    show_default=True,
    help="Whether those of antennas are known; what is unknown is found in turns with "
    "the image. Auto looks at closure phases; not of the Sun.",
)
@click.option(
    "--window",
    "window_arcsec",
    type=click.FloatRange(min=0, min_open=True),
    metavar="ARCSEC",
    help="Phases are unknown, and the source is within so much about the middle; "
    "default what closure phases say.",
)
@click.option(
    "--interval",
    "interval_ns",
    default="10s",
    show_default=True,
    metavar="DURATION",
    callback=_read_by(parse_duration),
    help="How long phases that are found stay as they are.",
)
@click.option(
    "--shortest",
    "shortest_wavelengths",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="WAVELENGTHS",
    help="Where phases are found: leave out shorter baselines, which see more than "
    "the window; default those that are far shorter than all others.",
)
@click.option(
    "--disk/--no-disk",
    default=True,
    help="Of the Sun: fit its disk, take it out before CLEAN, and put it back.",
)
@click.option(
    "--register/--no-register",
    default=True,
    help="Of the Sun: move the image so that the disk is in its middle.",
)
@click.option(
    "--out",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the files; made if there is none. Default this one.",
)
@click.option("--json", "is_json", is_flag=True, help="Print the record for programs.")
def image_command(
    file: Path,
    polarization: str,
    range_hz: tuple[float, float] | None,
    phases: PhasesName,
    window_arcsec: float | None,
    interval_ns: int,
    shortest_wavelengths: float,
    disk: bool,
    register: bool,
    out: Path,
    is_json: bool,
    **asked: Any,
) -> None:
    """Make an image of a UVFITS file, whoever wrote it.

    The folder gets a FITS file (the cleaned image, with the dirty one, the beam, the
    model and the residual in extensions), a picture with a small one of itself, and a
    record in JSON. An image of the Sun is turned to solar north and has coordinates
    that sunpy understands; of anything else it has right ascension and declination.

    Where phases of antennas are plainly not known, which closure phases tell, they are
    found in turns with the image; a note on standard error and the record say so.

    Exit code 1 if there is no image in the data; the message, and with --json the
    record, says why.

    \b
    Examples:
        opencluster muser image MUSER-I_20151101.uvfits --frequency 800-1200MHz
        opencluster muser image m87.uvfits --out images --json
        opencluster muser image m87.uvfits --size 256 --cell 1e-6 \\
            --window 60e-6 --shortest 1e8
    """
    try:
        from muser_pipeline.imaging.errors import ImagingError
        from muser_pipeline.imaging.hybrid import HybridOptions
        from muser_pipeline.imaging.phasing import phased
        from muser_pipeline.imaging.pipeline import make_image
        from muser_pipeline.imaging.publishing import publish
        from muser_pipeline.imaging.uvfits import read_uvfits
        from muser_pipeline.realtime.options import ARCSEC_RAD
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"{error.name} is not installed: pip install 'opencluster[muser]'"
        ) from None
    began = time.perf_counter()
    try:
        snapshot = read_uvfits(file)
        if range_hz is not None:
            snapshot = _within(snapshot, *range_hz)
        read_s = time.perf_counter() - began
        sun = _sun(snapshot, disk, register)
        options = _options(polarization, sun, **asked)
        hybrid = HybridOptions(
            window_rad=(window_arcsec or 0.0) * ARCSEC_RAD,
            interval_s=interval_ns / 1e9,
            shortest_wavelengths=shortest_wavelengths,
        )
        if window_arcsec is not None:
            phases = "unknown"
        with progress_bar() as show:
            snapshot, options, found = phased(snapshot, options, phases, hybrid, show)
            if found is not None and asked["threshold"] is None:
                # a window says better than noise, which is mostly sidelobes there
                cleaning = replace(options.clean, threshold_sigma=0.0)
                options = replace(options, clean=cleaning)
            image = make_image(snapshot, options, progress=show)
        image = _with_note(replace(image, phases=found))
        files = publish(image, out, f"{_stem(file)}_{polarization}")
    except ImagingError as error:
        if is_json:
            record = {
                "status": "refused",
                "reason": error.reason,
                "message": str(error),
            }
            click.echo(json.dumps(record))
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{out}: {error.strerror or error}") from None
    timings: dict[str, float] = {"read": read_s, **files.record["timings"]}
    timings["all"] = time.perf_counter() - began
    names = ("fits", "png", "thumbnail", "json")
    where = {name: str(getattr(files, name)) for name in names}
    _tell(
        {**files.record, **where, "status": "image", "timings": timings},
        is_json,
    )


def _within(snapshot: Snapshot, low_hz: float, high_hz: float) -> Snapshot:
    """Return the channels of a range.

    Raises
    ------
    ImagingError
        When there is none in it.
    """
    from muser_pipeline.imaging.errors import ImagingError

    frequency_hz = snapshot.frequency_hz
    chosen = (frequency_hz >= low_hz) & (frequency_hz <= high_hz)
    if not chosen.any():
        raise ImagingError(
            "frequency",
            f"no channel is from {low_hz / 1e6:g} to {high_hz / 1e6:g} MHz: the file "
            f"has {frequency_hz.min() / 1e6:g} to {frequency_hz.max() / 1e6:g} MHz",
        )
    return snapshot.replace(
        frequency_hz=frequency_hz[chosen],
        data=snapshot.data[..., chosen],
        weights=snapshot.weights[..., chosen],
    )


def _with_note(image: Image) -> Image:
    """Return an image that says how its phases were found, if they were."""
    from muser_pipeline.realtime.options import ARCSEC_RAD

    found = image.phases
    if found is None:
        return image
    why = "as asked for"
    if found.coherence is not None:
        seen, expected = found.coherence
        why = (
            f"since {seen:.2f} of what is seen adds up with those of the file, where "
            f"{expected:.2f} would if they were known (--phases known keeps them)"
        )
    (start, end), window = found.closure_phases, found.window_rad / ARCSEC_RAD
    note = (
        f"phases of antennas were found in turns with the image, {why}: begun with a "
        f"{found.start.name}, closure phases fitted with a reduced chi squared of "
        f"{start:.2f} then and {end:.2f} now; as with --window {window:.3g} "
        f"--shortest {found.shortest_wavelengths:.3g}"
    )
    return replace(image, notes=(*image.notes, note))


def _sun(snapshot: Snapshot, disk: bool, register: bool) -> SunOptions | None:
    """Return how the Sun stood in the middle of an observation of it, else None."""
    if snapshot.target.strip().lower() != SUN:
        return None
    import numpy as np

    from muser_pipeline.array import SITE
    from muser_pipeline.geometry import Sun, follow
    from muser_pipeline.realtime.cutting import sun_of

    times = snapshot.time_utc_ns
    middle = int(times[0]) + int((times - times[0]).mean())
    track = follow(Sun(), np.array([middle]), SITE)
    sun = sun_of(track, float(snapshot.frequency_hz.mean()))
    return replace(sun, disk=disk, register=register)


def _options(
    polarization: str,
    sun: SunOptions | None,
    size: int | None,
    cell_arcsec: float | None,
    weight: tuple[Any, float],
    taper_arcsec: float,
    self_calibrate: bool,
    **cleaning: Any,
) -> ImageOptions:
    from muser_pipeline.imaging.options import ImageOptions
    from muser_pipeline.realtime.options import ARCSEC_RAD

    weighting, robust = weight
    return ImageOptions(
        size=size,
        cell_rad=None if cell_arcsec is None else cell_arcsec * ARCSEC_RAD,
        weighting=weighting,
        robust=robust,
        taper_rad=taper_arcsec * ARCSEC_RAD,
        polarization=polarization,  # type: ignore[arg-type]
        clean=_cleaning(**cleaning),
        sun=sun,
        self_calibrate=self_calibrate,
    )


def _cleaning(
    algorithm: Any, gain: float, iterations: int, threshold: tuple[float, float] | None
) -> CleanOptions:
    from muser_pipeline.imaging.clean import CleanOptions

    in_units, in_sigma = threshold or (0.0, _SIGMAS)
    return CleanOptions(
        algorithm=algorithm,
        gain=gain,
        iterations=iterations,
        threshold=in_units,
        threshold_sigma=in_sigma,
    )


def _stem(file: Path) -> str:
    """Return the name of a file without its ending, as other files may be called."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", file.stem).strip("._") or "image"


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield what moves a bar on standard error; on no terminal it shows nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        line = bar.add_task("", total=1)
        yield lambda step, done, total: bar.update(
            line, description=step, completed=done, total=total
        )


def _tell(record: dict[str, Any], is_json: bool) -> None:
    """Print what was made: data on standard out, words on standard error."""
    if is_json:
        click.echo(json.dumps(record))
    else:
        click.echo(record["fits"])
        click.echo(record["png"])
    unit, timings = record["unit"], record["timings"]
    click.echo(
        f"peak {record['peak']:.4g} {unit}/beam, noise {record['rms']:.3g}, "
        f"{record['iterations']:,} iterations, {timings['all']:.2f} s",
        err=True,
    )
    for note in record["notes"]:
        click.echo(note, err=True)
    sys.stdout.flush()
