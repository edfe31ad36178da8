"""`simulate`: a beamline that does not exist measures a sample whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import emit, printable, progress, say, size, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import Conflict, InvalidInput, SourceError


@click.group(
    cls=Group,
    short_help="Measure on a simulated beamline.",
    examples=("lightkeep simulate tomography scan_0001.h5", "lightkeep simulate xpcs run_0001 --rate 1000 --live"),
)
def simulate() -> None:
    """Let a beamline that does not exist measure a sample whose truth is known, and print the truth."""


@simulate.command(
    short_help="Write a tomography scan.",
    examples=(
        "lightkeep simulate tomography scan_0001.h5",
        "lightkeep simulate tomography scan_0002.h5 --rate 100 --photons 1000",
    ),
)
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@click.option(
    "--size", "columns", type=click.IntRange(16, 8192), default=256, help="Width of the detector, pixels."
)
@click.option("--rows", type=click.IntRange(1, 8192), default=64, help="Height of the detector, pixels.")
@click.option("--angles", type=click.IntRange(8, 20_000), default=360, help="Projections over the turn.")
@click.option("--photons", type=click.FloatRange(1, 60_000), default=1e4, help="Photons per pixel and frame.")
@click.option("--center-offset", default=7.3, help="Rotation axis, pixels from the middle of the detector.")
@click.option(
    "--turn",
    type=click.Choice(("180", "360")),
    default="180",
    help="Degrees; 360 with an axis near the edge is half acquisition.",
)
@click.option(
    "--order",
    type=click.Choice(("sequential", "interlaced", "golden")),
    default="sequential",
    help="Of the angles.",
)
@click.option("--flats-after", type=click.IntRange(0, 1000), default=0, help="More flats, after the scan.")
@click.option("--stripes", type=click.IntRange(0), default=0, help="Uneven pixels of each row.")
@click.option("--dead", type=click.IntRange(0), default=0, help="Dead pixels of each row.")
@click.option(
    "--zingers", type=click.FloatRange(0, 1), default=0.0, help="Share of pixels that a stray photon hits."
)
@click.option("--drift", type=click.FloatRange(0, 1), default=0.0, help="Share of the beam lost during the scan.")
@click.option("--tilt", type=click.FloatRange(-10, 10), default=0.0, help="Of the rotation axis, degrees.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Frames per second; at once otherwise.")
@click.option("--seed", default=0, help="Decides the sample and the noise.")
@click.pass_obj
def tomography(session: Session, /, file: Path, **options: Any) -> None:
    """Measure a core of concrete, and write the scan to FILE as Data Exchange.

    The line integrals are exact, the photons are counted, and the true rotation axis is printed.
    """
    from lightkeep.analysis.simulate import Flaws
    from lightkeep.testing.beamline import simulate_tomography

    _check_free(file)
    angles, rows, columns = options["angles"], options["rows"], options["columns"]
    flaws = Flaws(
        stripes=options["stripes"],
        dead=options["dead"],
        zingers=options["zingers"],
        beam_drift=options["drift"],
        tilt_deg=options["tilt"],
    )
    with _plain_errors(), progress(session, "Measuring (simulated)") as report:
        truth = simulate_tomography(
            file,
            size=columns,
            rows=rows,
            angles=angles,
            turn_deg=float(options["turn"]),
            order=options["order"],
            flats_after=options["flats_after"],
            i0=options["photons"],
            center_offset=options["center_offset"],
            flaws=flaws,
            rate_hz=options["rate"],
            seed=options["seed"],
            report=report,
        )
    emit(
        session,
        {"file": truth.path, "center": truth.center, "angles": angles, "rows": rows, "columns": columns},
        lambda: say(f"{file} ({size(file.stat().st_size)}), rotation axis at column {truth.center:g}"),
    )


@simulate.command(
    short_help="Serve a tomography scan by EPICS PVAccess.",
    examples=(
        "lightkeep simulate beamline",
        "lightkeep simulate beamline --rate 50 --angles 1200 --order interlaced",
    ),
)
@click.option("--prefix", default="SIM:", show_default=True, help="Of the channels Image and Acquire.")
@click.option("--size", type=click.IntRange(16, 8192), default=256, help="Width of the detector, pixels.")
@click.option("--rows", type=click.IntRange(1, 8192), default=16, help="Height of the detector, pixels.")
@click.option("--angles", type=click.IntRange(8, 20_000), default=600, help="Projections of a scan.")
@click.option(
    "--order",
    type=click.Choice(("golden", "interlaced", "sequential")),
    default="golden",
    show_default=True,
    help="Of the angles; a sequential scan cannot stop itself.",
)
@click.option("--photons", type=click.FloatRange(1, 60_000), default=1e4, help="Photons per pixel and frame.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=20.0, help="Frames per second.")
@click.option("--seed", default=0, help="Decides the sample and the noise.")
@click.option("--isolated", is_flag=True, help="On free ports of this computer only; the answer names them.")
@click.option("--scans", type=click.IntRange(1), help="End after so many scans; on Ctrl-C otherwise.")
@click.pass_obj
def beamline(session: Session, /, scans: int | None, **options: Any) -> None:
    """Serve frames with angles on PREFIXImage; a scan begins when PREFIXAcquire is set to 1, and obeys 0.

    Try `lightkeep acquire` on it, with the live technique tomography-live.
    """
    from lightkeep.testing.beamline.live import VirtualBeamline, shots

    with _plain_errors():
        frames = shots(
            size=options["size"],
            rows=options["rows"],
            angles=options["angles"],
            order=options["order"],
            i0=options["photons"],
            seed=options["seed"],
        )
    serving = VirtualBeamline(
        frames, prefix=options["prefix"], rate_hz=options["rate"], is_isolated=options["isolated"]
    )
    with serving:
        answer = {
            "image": serving.image,
            "acquire": serving.acquire,
            "frames": len(frames),
            "epics": serving.epics,
        }
        emit(session, answer, lambda: say(f"{len(frames)} frames on {serving.image} once {serving.acquire} is 1"))
        serving.wait(scans)
    if not session.as_json:
        say(f"{serving.scans} scans, the last one of {serving.sent} frames")


_DETECTORS = ("rigaku", "rigaku-3m", "imm", "imm-sparse", "hdf5", "eiger", "events")


@simulate.command(
    short_help="Write an XPCS run.",
    examples=(
        "lightkeep simulate xpcs run_0001",
        "lightkeep simulate xpcs run_0002 --rate 500 --live",
        "lightkeep simulate xpcs run_0003 --detector hdf5 --photons 0.5 --ageing 0.2",
    ),
)
@click.argument("folder", type=click.Path(readable=False, path_type=Path))
@click.option(
    "--detector",
    type=click.Choice(_DETECTORS),
    default="rigaku",
    show_default=True,
    help="Whose files; rigaku is the 500k.",
)
@click.option("--rows", type=click.IntRange(32, 8192), help="Height of the detector, pixels; its own otherwise.")
@click.option("--columns", type=click.IntRange(32, 8192), help="Width of the detector, pixels; its own otherwise.")
@click.option(
    "--frames", type=click.IntRange(2, 10_000_000), default=2000, show_default=True, help="Length of the run."
)
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), default=1000.0, show_default=True, help="Frames per second."
)
@click.option("--live", is_flag=True, help="Write at that rate, as the detector would; at once otherwise.")
@click.option(
    "--photons", type=click.FloatRange(0, 1000, min_open=True), help="Per pixel and frame; as usual otherwise."
)
@click.option(
    "--modes",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Speckle patterns; the contrast is 1 / modes.",
)
@click.option("--static", type=click.FloatRange(0, 1), default=0.0, help="Share of the light that never moves.")
@click.option(
    "--diffusion", type=click.FloatRange(0), help="D, angstrom^2/s; so that the rate suits it otherwise."
)
@click.option(
    "--ageing", type=click.FloatRange(0, min_open=True), default=1.0, help="Rates at the end over begin."
)
@click.option("--drift", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Share of the beam lost.")
@click.option("--lost", multiple=True, type=click.IntRange(0), help="A frame that the detector loses; repeatable.")
@click.option("--bad-pixels", type=click.IntRange(0, 1000), default=12, help="Dead, hot and saturated ones.")
@click.option("--seed", default=0, help="Decides speckle and noise.")
@click.pass_obj
def xpcs(session: Session, /, folder: Path, **options: Any) -> None:
    """Measure a diffusing colloid, and write the run into FOLDER as a detector of beamline 8-ID would.

    Beside the frames there are the run's metadata file and, beside FOLDER, the q map. Every pixel's correlation is
    known exactly: what g2 must be is printed.
    """
    from lightkeep.testing.beamline import XPCS_FORMATS, Colloid, simulate_xpcs

    _check_free(folder)
    own = XPCS_FORMATS[options["detector"]].shape
    sample = ("photons", "modes", "static", "diffusion", "ageing", "drift", "lost", "bad_pixels")
    with _plain_errors(), progress(session, "Measuring (simulated)") as report:
        truth = simulate_xpcs(
            folder,
            format=options["detector"],
            shape=(options["rows"] or own[0], options["columns"] or own[1]),
            frames=options["frames"],
            rate_hz=options["rate"],
            is_live=options["live"],
            colloid=Colloid(**{name: options[name] for name in sample}),
            seed=options["seed"],
            report=report,
        )
    answer = {
        "file": truth.path,
        "qmap": truth.qmap_path,
        "shape": truth.speckle.shape,
        "frame_time_s": truth.frame_time_s,
        "contrast": truth.speckle.contrast,
        "static": truth.speckle.static,
        "diffusion": truth.diffusion,
        "q": [round(float(q), 6) for q in truth.qmap.dynamic_q],
        "gamma": [float(f"{rate:.6g}") for rate in truth.gamma],
    }
    emit(session, answer, lambda: _say_truth(answer))


def _say_truth(answer: dict[str, Any]) -> None:
    frames, rows, columns = answer["shape"]
    say(f"{printable(str(answer['file']))} ({size(answer['file'].stat().st_size)})")
    say(f"{frames} frames of {rows} x {columns} pixels, one in {answer['frame_time_s'] * 1e3:g} ms")
    say(f"Q map     {printable(str(answer['qmap']))}")
    say(f"Contrast  {answer['contrast']:g}, {answer['static']:.0%} of the light static")
    say(f"Gamma     D q^2 with D = {answer['diffusion']:g} angstrom^2/s")
    say()
    table(
        ("q, 1/angstrom>", "Gamma, 1/s>"),
        [(f"{q:.4f}", f"{rate:.4g}") for q, rate in zip(answer["q"], answer["gamma"], strict=True)],
    )


def _check_free(place: Path) -> None:
    """Refuse what is there already, and a place in a folder that is not."""
    if place.exists():
        raise Conflict(f"{printable(str(place))} exists already", remedy="name one that does not exist yet")
    if not place.absolute().parent.is_dir():
        raise SourceError(f"there is no folder {printable(str(place.absolute().parent))}", remedy="make it first")


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise Conflict(printable(str(error)), remedy="name one that does not exist yet") from error
    except ValueError as error:
        raise InvalidInput(str(error)) from error
