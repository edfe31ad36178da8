"""`simulate`: a beamline that does not exist measures a sample whose truth is known."""

from __future__ import annotations

from pathlib import Path

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import emit, printable, progress, say, size
from lightkeep.cli.session import Session
from lightkeep.model.errors import Conflict, InvalidInput, SourceError


@click.command(
    cls=Command,
    short_help="Write a tomography scan of a simulated beamline.",
    examples=("lightkeep simulate scan_0001.h5", "lightkeep simulate scan_0002.h5 --rate 100 --photons 1000"),
)
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@click.option(
    "--size", "columns", type=click.IntRange(16, 8192), default=256, help="Width of the detector, pixels."
)
@click.option("--rows", type=click.IntRange(1, 8192), default=64, help="Height of the detector, pixels.")
@click.option("--angles", type=click.IntRange(8, 20_000), default=360, help="Projections over 180 degrees.")
@click.option("--photons", type=click.FloatRange(1, 60_000), default=1e4, help="Photons per pixel and frame.")
@click.option("--center-offset", default=7.3, help="Rotation axis, pixels from the middle of the detector.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Frames per second; at once otherwise.")
@click.option("--seed", default=0, help="Decides the sample and the noise.")
@click.pass_obj
def simulate(
    session: Session,
    file: Path,
    columns: int,
    rows: int,
    angles: int,
    photons: float,
    center_offset: float,
    rate: float | None,
    seed: int,
) -> None:
    """Measure a core of concrete on a simulated beamline, and write the scan to FILE as Data Exchange.

    The line integrals are exact, the photons are counted, and the true rotation axis is printed.
    """
    from lightkeep.testing.beamline import simulate_tomography

    if file.exists():
        raise Conflict(f"{printable(str(file))} exists already", remedy="name a file that does not exist yet")
    if not file.absolute().parent.is_dir():
        raise SourceError(f"there is no folder {printable(str(file.absolute().parent))}", remedy="make it first")
    with progress(session, "Measuring (simulated)") as report:
        try:
            truth = simulate_tomography(
                file,
                size=columns,
                rows=rows,
                angles=angles,
                i0=photons,
                center_offset=center_offset,
                rate_hz=rate,
                seed=seed,
                report=report,
            )
        except ValueError as error:
            raise InvalidInput(str(error)) from error
    emit(
        session,
        {"file": truth.path, "center": truth.center, "angles": angles, "rows": rows, "columns": columns},
        lambda: say(f"{file} ({size(file.stat().st_size)}), rotation axis at column {truth.center:g}"),
    )
