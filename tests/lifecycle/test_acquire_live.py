"""A series is computed while its frames come, and its raw data are kept all the same."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np

from lightkeep.analysis.xpcs import QMap
from lightkeep.formats import qmap
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.acquisitions.acquire_run import run
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.model.acquisition import SourceKind
from lightkeep.model.datasets import DatasetState
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import LIVE, RunState

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, build

SHAPE = (32, 40)


def test_a_series_is_followed_by_a_technique_while_it_is_acquired(tmp_path: Path) -> None:
    frames = np.random.default_rng(8).poisson(0.4, (60, *SHAPE)).astype(np.uint16)
    with h5py.File(tmp_path / "gel.h5", "w") as file:
        file["entry/data/data"] = frames
        file["entry/instrument/detector/frame_time"] = 0.01
    labels = np.broadcast_to(1 + np.arange(SHAPE[1]) // 10, SHAPE)
    qmap.write_qmap(tmp_path / "rings.h5", QMap.from_labels((labels + 1) // 2, labels))
    with build(tmp_path / "facility") as facility:
        ingest(facility, tmp_path / "rings.h5", experiment_id=EXPERIMENT, principal=ADA, quiet_s=0)
        options = {"file": str(tmp_path / "gel.h5"), "rate": 60, "live": "xpcs", "params": {"qmap": "rings"}}
        made = acquire.define(
            facility, "gel", experiment_id=EXPERIMENT, kind=SourceKind.REPLAY, options=options, principal=ADA
        )
        acquire.start(facility, made.id, principal=ADA)
        run(facility, made.id, ending=threading.Event())
        view = facility.catalog.view(SERVICE)
        deadline = time.monotonic() + 300
        while not (runs := view.runs(experiment_id=EXPERIMENT).items) or not runs[0].state.is_over:
            assert time.monotonic() < deadline, view.acquisition(made.id)
            time.sleep(0.05)
        (followed,) = runs
        assert (followed.engine, followed.state) == (LIVE, RunState.DONE), followed.message
        raw, result = view.dataset(followed.dataset_id), view.dataset(followed.result_id)
        assert (raw.name, raw.state, raw.files) == ("gel", DatasetState.COMPLETE, 1)
        assert raw.metadata.quantities["frame_time"].value == 0.01
        assert result.parents[0] == raw.id
        assert view.dataset_named(EXPERIMENT, "gel-2") is None
        assert view.acquisition(made.id).statistics.last_error == ""
