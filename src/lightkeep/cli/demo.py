"""`demo`: the whole way once, from a beamline's files to a reconstruction and a correlation in the portal."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

import click

from lightkeep import config as configuration
from lightkeep.cli.app import Command
from lightkeep.cli.output import emit, progress, say, size
from lightkeep.cli.server import address, listen, listen_anywhere, run_server
from lightkeep.cli.session import Session, Work, os_person, principal
from lightkeep.cli.settings import write_starter
from lightkeep.model.errors import BadFile, RunFailed, SourceError
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import Grant, Person, Role, Scope
from lightkeep.model.runs import Run, RunState

if TYPE_CHECKING:
    from lightkeep.model.datasets import Dataset
    from lightkeep.workflow.orchestrator import Job

STATION = "2-BM"
EXPERIMENT = "demo"
XPCS_STATION = "8-ID"
XPCS_EXPERIMENT = "demo-xpcs"
USER = "demo"
_PERIOD_S = 0.1
_DIFFUSION = 5e4
"""Of the simulated colloid, angstrom^2/s: Gamma is 0.3 per frame at the highest q."""


@click.command(
    cls=Command,
    short_help="Measure, keep, process and show.",
    examples=("lightkeep demo", "lightkeep demo --data tooth.h5 --port 9000", "lightkeep demo --no-serve --json"),
)
@click.option(
    "--data", type=click.Path(readable=False, path_type=Path), help="A measured scan; a simulated one otherwise."
)
@click.option(
    "--root",
    type=click.Path(readable=False, path_type=Path),
    default="demo",
    show_default=True,
    help="Facility's folder.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="TCP port of the portal; a free one otherwise.")
@click.option("--no-serve", is_flag=True, help="Do everything but serve the portal, and end.")
@click.pass_obj
def demo(session: Session, data: Path | None, root: Path, port: int | None, no_serve: bool) -> None:
    """Measure, keep and reconstruct a tomography scan, correlate an XPCS run, then show both in the portal.

    Both are simulated, with known truth; with --data it is that scan alone. Makes a facility in ./demo, or goes on
    with the one that is there. Delete the folder to begin anew.
    """
    from lightkeep.facility import create_facility

    write_starter(root)
    settings = configuration.load(root / configuration.FILE_NAME)
    settings = replace(settings, ingest=replace(settings.ingest, quiet_s=0.0))  # nobody writes to these files
    listener = None if no_serve else _listener(settings.http, port)
    with create_facility(settings, admin=os_person()) as facility:
        work = Work(facility, principal(facility))
        password = _people_and_places(work, with_xpcs=data is None)
        tell = (lambda _text: None) if session.as_json else say
        source = data or _simulated(session, root / "detector" / "scan_0001.h5", tell)
        answer = reconstruct(session, work, source, tell)
        if data is None:
            folder = _simulated_run(session, root / "detector" / "run_0001", tell)
            answer["xpcs"] = correlate(session, work, folder, tell)
    answer |= {"user": USER, "password": password, "root": settings.root}
    if listener is None:
        _place(answer, f"http://{settings.http.host}:{settings.http.port}/")
        emit(session, answer, lambda: say(f"Portal         LIGHTKEEP_CONFIG={settings.file} lightkeep serve"))
        return
    _place(answer, address(settings.http.host, listener))
    emit(session, answer, lambda: _invite(answer))
    sys.stdout.flush()
    os.environ["LIGHTKEEP_CONFIG"] = str(settings.file)
    _open_browser(answer["page"])
    run_server(listener)


def _listener(http: configuration.HttpConfig, port: int | None) -> socket:
    """Return the socket of the portal: the port asked for, or the configured one, or any when that is taken."""
    return listen_anywhere(http.host, http.port) if port is None else listen(http.host, port)


def _place(answer: dict[str, Any], portal: str) -> None:
    """Add the portal's address and that of the result's page."""
    answer.update(portal=portal, page=f"{portal}datasets/{answer['result']}")


def _invite(answer: dict[str, Any]) -> None:
    say()
    say(f"Portal         {answer['page']}")
    say(f"Sign in        {answer['user']} with the password {answer['password']}")
    say("Ctrl-C ends it; the data stay.")


def _people_and_places(work: Work, *, with_xpcs: bool) -> str:
    """Make stations, experiments and a person where they are not there; return that person's new password."""
    from lightkeep.lifecycle.people import experiments, set_up, sign_in

    facility, who = work.facility, work.principal
    if all(each.id != USER for each in work.view.people()):
        set_up.add_person(facility, Person(USER, "Demo"), principal=who)
    places = [(Station(STATION, "Micro-tomography", ("tomography",)), EXPERIMENT, "A first look at Lightkeep")]
    if with_xpcs:
        station = Station(XPCS_STATION, "Small-angle XPCS", ("xpcs",))
        places.append((station, XPCS_EXPERIMENT, "A colloid that diffuses"))
    for station, experiment, title in places:
        if all(each.id != station.id for each in work.view.stations()):
            set_up.add_station(facility, station, principal=who)
        if all(each.id != experiment for each in work.view.experiments(limit=1000).items):
            experiments.create(facility, Experiment(experiment, station.id, title), principal=who)
            set_up.grant(facility, Grant(USER, Role.PI, Scope.EXPERIMENT, experiment), principal=who)
    password = "-".join(secrets.token_hex(2) for _ in range(4))
    sign_in.set_password(facility, USER, password, principal=who)
    return password


def _simulated(session: Session, path: Path, tell: Callable[[str], None]) -> Path:
    """Return the simulated beamline's scan; measured once, the same each time."""
    if path.exists():
        return path
    from lightkeep.testing.beamline import simulate_tomography

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with progress(session, "Measuring (simulated)") as report:
        simulate_tomography(part, report=report)
    part.replace(path)
    tell(f"Measured       {path} ({size(path.stat().st_size)}, simulated)")
    return path


def _simulated_run(session: Session, folder: Path, tell: Callable[[str], None]) -> Path:
    """Return the folder of the simulated XPCS run; measured once, the same each time."""
    done = folder / "measured"
    if done.exists():
        return folder
    from lightkeep.testing.beamline import Colloid, simulate_xpcs

    shutil.rmtree(folder, ignore_errors=True)
    with progress(session, "Measuring (simulated)") as report:
        truth = simulate_xpcs(
            folder / "run_0001",
            format="hdf5",
            frames=1000,
            colloid=Colloid(diffusion=_DIFFUSION),
            report=report,
        )
    done.touch()
    tell(f"Measured       {truth.path} ({size(truth.path.stat().st_size)}, simulated)")
    return folder


def reconstruct(session: Session, work: Work, source: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Ingest, verify, reconstruct and keep the result, as the durable chain does it; return what to print.

    Raises
    ------
    SourceError: the file is missing. RunFailed: the reconstruction failed.
    """
    if not source.exists():
        raise SourceError(f"{source} does not exist", remedy="check the path given to --data")
    before = time.monotonic()
    job = _finished(session, work, source, EXPERIMENT, technique="tomography")
    answer = _told(work, job, "Reconstructed", tell)
    if (center := job.runs[0].resolved.get("center")) is not None:
        tell(f"Centre         {center:.2f} pixel")
    _tell_files(answer, before, tell)
    return answer | {"center": center}


def correlate(session: Session, work: Work, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Ingest, verify and correlate a simulated XPCS run with its q map; return what to print.

    Raises
    ------
    RunFailed: the correlation failed.
    """
    before = time.monotonic()
    bins = _finished(session, work, folder / "run_0001_qmap.hdf", XPCS_EXPERIMENT, technique="")
    params = {"qmap": bins.dataset_id}
    job = _finished(session, work, folder / "run_0001", XPCS_EXPERIMENT, technique="xpcs", params=params)
    answer = _told(work, job, "Correlated", tell)
    diffusion = next(_diffusion(Path(each)) for each in answer["files"] if each.endswith(".hdf"))
    tell(f"Diffusion      {diffusion:.3g} angstrom^2/s ({_DIFFUSION:.3g} was simulated)")
    _tell_files(answer, before, tell)
    return answer | {"qmap": bins.dataset_id, "diffusion": diffusion}


def _finished(
    session: Session,
    work: Work,
    source: Path,
    experiment: str,
    *,
    technique: str,
    params: Mapping[str, Any] | None = None,
) -> Job:
    """Do the whole chain and return what became of it; a technique of "" keeps the data only."""
    from lightkeep.workflow import open_workflow

    with open_workflow(work.facility) as orchestrator:
        job_id = orchestrator.submit_ingest(
            source, experiment_id=experiment, principal=work.principal, technique=technique, params=params
        )
        with progress(session, f"Processing {source.name}" if technique else f"Keeping {source.name}") as report:
            while (job := orchestrator.look(job_id)) is None:
                orchestrator.work()
                _report_newest(work, experiment, report)
                time.sleep(_PERIOD_S)
    for run in job.runs:
        if run.state is not RunState.DONE:
            remedy = f"start it again: lightkeep runs retry {run.id}"
            raise RunFailed(f"run {run.id}: {run.message}", remedy=remedy)
    return job


def _report_newest(work: Work, experiment: str, report: Callable[[float, str], None]) -> None:
    for run in work.view.runs(experiment_id=experiment, limit=1).items:
        if not run.state.is_over:
            report(run.progress, run.message)


def _diffusion(path: Path) -> float:
    """Return D in angstrom^2/s as the curves of a result say: the weighted mean of Gamma / q^2 over the bins.

    Raises BadFile where the file has no such curves.
    """
    import numpy as np

    from lightkeep.analysis import xpcs
    from lightkeep.formats.aps_8id import read_result

    result, _ = read_result(path)
    if result is None:
        raise BadFile(f"{path}: no multi-tau correlation in it", remedy="correlate the run again")
    fit = xpcs.fit_g2(result)
    good = fit.is_good & np.isfinite(result.q)
    time_c, error, q = fit.values["tau_c"][good], fit.errors["tau_c"][good], result.q[good]
    weight = (q**2 * time_c**2 / error) ** 2
    return float(np.sum(weight / (time_c * q**2)) / np.sum(weight))


def _told(work: Work, job: Job, verb: str, tell: Callable[[str], None]) -> dict[str, Any]:
    run = job.runs[0]
    dataset, result = work.view.dataset(job.dataset_id), work.view.dataset(run.result_id)
    answer = _answer(work, dataset, run, result)
    tell(f"Kept           {dataset.name}: {size(dataset.size)}, verified   {dataset.id}")
    tell(f"{verb:<15}{result.name}: {size(result.size)} in {answer['seconds']:.1f} s   {run.id}")
    return answer


def _tell_files(answer: dict[str, Any], before: float, tell: Callable[[str], None]) -> None:
    tell(f"Result         {answer['result']}, in {time.monotonic() - before:.1f} s from the file to here")
    for each in answer["files"]:
        tell(f"  {each}")


def _answer(work: Work, dataset: Dataset, run: Run, result: Dataset) -> dict[str, Any]:
    from lightkeep.lifecycle.replicas.locate import local_path

    files = work.view.files(result.id, limit=1000).items
    shown = [each for each in files if not each.path.endswith((".tif", ".tiff"))] or files[:1]
    paths = [str(local_path(work.facility, result.id, each.path)) for each in shown]
    took = (run.ended_at - run.started_at).total_seconds() if run.ended_at and run.started_at else 0.0
    return {
        "dataset": dataset.id,
        "run": run.id,
        "result": result.id,
        "seconds": took,
        "files": list(
            dict.fromkeys(re.sub(r"(\.zarr)/.*", r"\1", path) for path in paths)
        ),  # an image is a folder
    }


def _open_browser(page: str) -> None:
    """Open a page where somebody sits in front of a display; nothing elsewhere."""
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        import threading
        import webbrowser

        threading.Timer(2.0, webbrowser.open, [page]).start()
