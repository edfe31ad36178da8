"""A run says how its file is read, where such files do not say it themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis.xpcs import QMap
from lightkeep.facility import Facility
from lightkeep.formats import events, qmap, rigaku
from lightkeep.lifecycle.acquisitions import live
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import process, request
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import InvalidInput

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, build

RNG = np.random.default_rng(4)
FRAMES, SHAPE = 40, (7, 9)


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with build(tmp_path / "facility") as facility:
        for name, shape in (("wide", rigaku.MODULE), ("small", SHAPE)):
            labels = np.broadcast_to(1 + np.arange(shape[1]) * 4 // shape[1], shape)
            qmap.write_qmap(tmp_path / f"{name}.h5", QMap.from_labels((labels + 1) // 2, labels))
            taken_in(facility, tmp_path / f"{name}.h5")
        yield facility


def taken_in(facility: Facility, path: Path) -> Dataset:
    return ingest(facility, path, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset


def run_of_rigaku(path: Path, *, along: str) -> tuple[Path, np.ndarray]:
    """Return a run whose pixels are numbered along rows or columns, and its image."""
    rows, columns = rigaku.MODULE
    row, column = RNG.integers(0, rows, 4000), RNG.integers(0, columns, 4000)
    pixel = row * columns + column if along == "row" else column * rows + row
    frame = np.sort(RNG.integers(0, FRAMES, 4000))
    frame[-1] = FRAMES - 1
    path.write_bytes((frame << 40 | pixel << 16 | 1).astype("<u8").tobytes())
    image = np.zeros(rigaku.MODULE)
    np.add.at(image, (row, column), 1 / FRAMES)
    return path, image


def result_of(facility: Facility, dataset: Dataset, **params: Any) -> dict[str, np.ndarray]:
    """Return the arrays of what a run makes."""
    return arrays_of(facility, process(facility, request(facility, dataset.id, "xpcs", params, principal=ADA).id))


def arrays_of(facility: Facility, made: Dataset) -> dict[str, np.ndarray]:
    with formats.get(made.format).open(local_path(facility, made.id, made.main_file)) as source:
        return {name: np.asarray(source.arrays[name][...]) for name in ("saxs_2d", "g2", "tau", "intensity")}


def test_pixels_may_be_numbered_along_columns(facility: Facility, tmp_path: Path) -> None:
    path, image = run_of_rigaku(tmp_path / "gel.bin", along="column")
    dataset = taken_in(facility, path)
    straight = result_of(facility, dataset, qmap="wide", pixel_order="column")
    np.testing.assert_allclose(straight["saxs_2d"], image)
    assert not np.allclose(result_of(facility, dataset, qmap="wide")["saxs_2d"], image)


def test_a_run_that_is_followed_is_read_as_it_says_too(facility: Facility, tmp_path: Path) -> None:
    path, image = run_of_rigaku(tmp_path / "gel.bin", along="column")
    params = {"qmap": "wide", "pixel_order": "column"}
    run = live.request(
        facility, path, "xpcs", params, experiment_id=EXPERIMENT, principal=ADA, frames=FRAMES, idle_s=0.2
    )
    np.testing.assert_allclose(arrays_of(facility, process(facility, run.id))["saxs_2d"], image)


def test_times_of_events_become_frames_of_any_length(facility: Facility, tmp_path: Path) -> None:
    times = np.sort(RNG.integers(0, 100_000, 5000)).astype(np.uint64)
    pixels = RNG.integers(0, 63, 5000).astype(np.uint32)
    path = events.write_times(tmp_path / "gel.h5", [(times, pixels)], shape=SHAPE)
    dataset = taken_in(facility, path)
    assert dataset.format == "events"
    for bin_time_s, count in ((1e-6, 99), (4e-6, 24)):
        found = result_of(facility, dataset, qmap="small", bin_time_s=bin_time_s)
        assert found["tau"][0] == pytest.approx(bin_time_s)
        assert len(found["intensity"]) == count
    with pytest.raises(InvalidInput, match="does not say how long a frame is"):
        result_of(facility, dataset, qmap="small")


def test_how_files_of_another_format_are_read_cannot_be_said(facility: Facility, tmp_path: Path) -> None:
    dataset = taken_in(facility, run_of_rigaku(tmp_path / "gel.bin", along="row")[0])
    with pytest.raises(InvalidInput, match="for files of format events, this one is rigaku") as caught:
        request(facility, dataset.id, "xpcs", {"qmap": "wide", "bin_time_s": 1e-6}, principal=ADA)
    assert caught.value.data["field"] == "bin_time_s"
