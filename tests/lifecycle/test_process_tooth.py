"""A real tooth, measured at 2-BM: one answer from every way to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lightkeep.acquisition.frames import open_source
from lightkeep.acquisition.options import Replay
from lightkeep.acquisition.spool import Recorder
from lightkeep.facility import Facility
from lightkeep.formats.nxtomo import FORMAT
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import process, request
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.people import SERVICE
from lightkeep.techniques import tomography_live

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, build


def replayed(tooth: Path, folder: Path) -> Path:
    """The tooth's frames one after the other, as an acquisition that plays the file records them."""
    source, recorder = open_source(Replay(file=str(tooth), rate=1e6)), Recorder(folder, prefix="x")
    for message in source.messages():
        recorder.take(message)
    source.close()
    return folder / "tooth.h5"


def batch(facility: Facility, raw: Dataset, engine: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The slices of a run in 1/pixel, and its parameters in force."""
    run = request(facility, raw.id, "tomography", {"window": "hann"}, principal=ADA, engine=engine)
    made = process(facility, run.id)
    known = dict(facility.catalog.view(SERVICE).run(run.id).resolved)
    with h5py.File(local_path(facility, made.id, made.main_file)) as file:
        data = file["entry/slices/data"]
        unit = 1.0 if data.attrs["units"] == "1/pixel" else known["pixel_size_um"] / 1e4  # of 1/cm
        return data[:] * np.float32(unit), known


def live(path: Path, center: float) -> np.ndarray:
    """The slices when the last frame was followed, in 1/pixel."""
    params = tomography_live.Params(center=center)
    with FORMAT.open(path) as source:
        tomography_live.preflight(source, params)
        state = tomography_live.start(source, params, 0, 1)
        for block in tomography_live.blocks(source, params):
            state = tomography_live.push(state, block, block.begin)
    return np.asarray(tomography_live.finish(state, params)["slices"].data)


def test_the_tooth_is_the_same_inline_in_processes_and_replayed_live(tmp_path: Path, shared_data: Path) -> None:
    tooth = shared_data / "tomography" / "tooth.h5"
    with build(tmp_path / "facility") as facility:
        raw = ingest(facility, tooth, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset
        here, known = batch(facility, raw, "inline")
        there, again = batch(facility, raw, "processes")
    assert here.tobytes() == there.tobytes()
    assert known == again
    assert 295 <= known["center"] <= 296.5
    followed = live(replayed(tooth, tmp_path), known["center"])
    assert np.linalg.norm(followed - here) < 1e-5 * np.linalg.norm(here)
