"""What is seen while a scan comes is what is there when it is complete."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeep.acquisition.spool import Recorder
from lightkeep.analysis.tomography import normalise, reconstruct
from lightkeep.formats.nxtomo import FORMAT
from lightkeep.model.acquisition import Begin, Frame
from lightkeep.model.errors import InvalidInput
from lightkeep.techniques import tomography_live as technique
from lightkeep.testing.beamline.live import Order, Shot, shots

SIZE, ROWS, ANGLES = 64, 3, 120
CENTER = (SIZE - 1) / 2 + 3.3


def scan(order: Order = "golden") -> list[Shot]:
    return shots(size=SIZE, rows=ROWS, angles=ANGLES, order=order, flats=4, darks=2, i0=5e4)


def take(recorder: Recorder, number: int, shot: Shot) -> None:
    values = {"rotation_angle": shot.rotation_angle, "image_key": float(shot.image_key)}
    recorder.take(Frame(number, shot.data, 1.0, values))


def recorded(folder: Path, frames: list[Shot]) -> Path:
    recorder = Recorder(folder, prefix="x")
    recorder.take(Begin("scan"))
    for number, shot in enumerate(frames):
        take(recorder, number, shot)
    recorder.end()
    return folder / "scan.h5"


def followed(path: Path, **given: Any) -> Any:
    """Follow a complete file as a batch run does."""
    params = technique.Params(**{"center": CENTER, **given})
    with FORMAT.open(path) as source:
        technique.preflight(source, params)
        state = technique.start(source, params, 0, 1)
        for block in technique.blocks(source, params):
            state = technique.push(state, block, block.begin)
        return pickle.loads(pickle.dumps(state)), params


def test_the_slices_are_those_of_a_reconstruction_of_the_whole_scan(tmp_path: Path) -> None:
    path = recorded(tmp_path, scan())
    state, params = followed(path)
    outputs = technique.finish(state, params)
    with FORMAT.open(path) as source:
        sinograms = normalise(*(source.arrays[name][:] for name in ("projections", "flats", "darks")))
        expected = reconstruct(sinograms, source.arrays["theta_deg"][:], CENTER, window="hann")
        shapes = technique.preflight(source, params).shapes
    found = outputs["slices"].data
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    assert {name: each.data.shape for name, each in outputs.items()} == shapes
    assert outputs["quality"].data[-1] > outputs["quality"].data[0]


def test_a_scan_that_grows_is_followed_with_its_angles(tmp_path: Path) -> None:
    frames, recorder = scan(), Recorder(tmp_path, prefix="x")
    recorder.take(Begin("scan"))
    for number, shot in enumerate(frames[:46]):
        take(recorder, number, shot)
    recorder._flush(time.monotonic())
    path = tmp_path / "scan.h5"
    params = technique.Params(center=CENTER)
    with FORMAT.open_live(path) as source:
        state = technique.start(source, params, 0, 1)
        done = 0
        for end in (46, len(frames)):
            for number, shot in enumerate(frames[done:end] if done else [], done):
                take(recorder, number, shot)
            recorder._flush(time.monotonic())
            assert source.arrays["frames"].look().frames == end
            for block in source.arrays["frames"].blocks(done):
                state = technique.push(state, block, block.begin)
            done = end
            assert technique.snapshot(state, params)["projections"] == end - 6
        live = technique.finish(state, params)["slices"].data
    recorder.end()
    state, params = followed(path)
    whole = technique.finish(state, params)["slices"].data
    assert np.linalg.norm(live - whole) < 1e-5 * np.linalg.norm(whole)


def test_the_rotation_centre_is_found_from_the_first_projections(tmp_path: Path) -> None:
    state, params = followed(recorded(tmp_path, scan()), center=None)
    assert state.center == pytest.approx(CENTER, abs=0.5)
    assert [each.projections for each in state.checks] == [64, 80, 96, 112]
    assert technique.snapshot(state, params)["views"]["xy"].startswith("data:image/png;base64,")


def test_enough_is_said_only_when_it_is_asked_for_and_never_of_a_sequential_scan(tmp_path: Path) -> None:
    wanted = {"quality": 0.5, "resolution_px": 8.0, "change": 0.5, "planned": 500}
    path = recorded(tmp_path, scan())
    state, params = followed(path, stop=True, **wanted)
    said = technique.enough(state, params)
    assert said["planned"] == 500
    assert said["used"] == 64
    assert "stopped at 64 of 500 projections" in technique.flags(state, params)[0]
    state, params = followed(path, **wanted)
    assert not technique.enough(state, params)
    assert "could have stopped" in technique.flags(state, params)[0]
    (tmp_path / "other").mkdir()
    state, params = followed(recorded(tmp_path / "other", scan("sequential")[:86]), stop=True, **wanted)
    assert not technique.enough(state, params)
    assert "come in sequence" in technique.flags(state, params)[0]


def test_projections_without_an_angle_are_left_out_and_counted(tmp_path: Path) -> None:
    frames = scan()
    frames[20] = Shot(frames[20].data, 0, float("nan"))
    recorder = Recorder(tmp_path, prefix="x")
    recorder.take(Begin("scan"))
    for number, shot in enumerate(frames):
        take(recorder, number, shot)
    recorder._flush(time.monotonic())
    params = technique.Params(center=CENTER)
    with FORMAT.open_live(tmp_path / "scan.h5") as source:
        source.arrays["frames"].look()
        state = technique.start(source, params, 0, 1)
        for block in technique.blocks(source, params):
            technique.push(state, block, block.begin)
        assert "1 projections had no angle" in technique.flags(state, params)[-1]
        assert np.isfinite(technique.finish(state, params)["slices"].data).all()
    recorder.end()


def test_projections_before_the_flats_are_refused_with_the_remedy(tmp_path: Path) -> None:
    frames = scan()
    with pytest.raises(InvalidInput, match="no flat") as caught:
        followed(recorded(tmp_path, [*frames[6:], *frames[:6]]))
    assert caught.value.remedy == "take flats and darks before the projections"
