"""NXtomo files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep.formats.nxtomo import FORMAT
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Format
from lightkeep.testing.suites.format import Hdf5Suite

from .conftest import ANGLES, COLUMNS, DARKS, ROWS, write_nxtomo


class TestNXtomo(Hdf5Suite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return write_nxtomo(folder / "example.nxs")


def test_frames_are_told_apart_by_their_image_key(tmp_path: Path) -> None:
    path = write_nxtomo(tmp_path / "scan.nxs")
    with h5py.File(path) as file, FORMAT.open(path) as source:
        stack, keys = file["entry/instrument/detector/data"][...], file["entry/instrument/detector/image_key"][...]
        for role, key in {"projections": 0, "flats": 1, "darks": 2}.items():
            np.testing.assert_array_equal(source.arrays[role][...], stack[keys == key])
            np.testing.assert_array_equal(source.arrays[role][:, 1:2], stack[keys == key][:, 1:2])
            np.testing.assert_array_equal(source.arrays[role][::-1], stack[keys == key][::-1])
        assert source.arrays["projections"].shape == (ANGLES, ROWS, COLUMNS)
        assert source.arrays["darks"].shape == (DARKS, ROWS, COLUMNS)
        np.testing.assert_allclose(source.arrays["theta_deg"][...], np.arange(ANGLES) * 180 / ANGLES)
        assert source.metadata.rest["notes"] == ["1 frames are marked invalid and are left out"]


def test_the_order_of_the_frames_says_when_each_flat_was_taken(tmp_path: Path) -> None:
    path = write_nxtomo(tmp_path / "scan.nxs")
    with h5py.File(path, "r+") as file:
        keys = file["entry/instrument/detector/image_key"]
        projections = np.flatnonzero(keys[...] == 0)
        keys[int(projections[2])] = keys[int(projections[-1])] = 1
        expected = [int((keys[:at] == 0).sum()) for at in np.flatnonzero(keys[...] == 1)]
    with FORMAT.open(path) as source:
        assert source.arrays["flats_at"][:].tolist() == expected
    assert {2, ANGLES - 2} <= set(expected)


def test_typed_fields_are_found(tmp_path: Path) -> None:
    with FORMAT.open(write_nxtomo(tmp_path / "scan.nxs")) as source:
        found = source.metadata
    assert found.quantities["pixel_size"].value_si == 6.5e-7
    assert found.quantities["exposure_time"].value == 0.05
    assert found.texts["title"] == "Foam under load"
    assert found.texts["sample"] == "Aluminium foam"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("instrument/detector/image_key", None, "no instrument/detector/image_key"),
        ("instrument/detector/image_key", np.zeros(3), "image_key 3 values"),
        ("sample/rotation_angle", None, "no sample/rotation_angle"),
        ("sample/rotation_angle", np.zeros(2), "2 angles for 7 projections"),
    ],
)
def test_an_incomplete_scan_is_refused(tmp_path: Path, name: str, value: np.ndarray | None, says: str) -> None:
    path = write_nxtomo(tmp_path / "scan.nxs")
    with h5py.File(path, "r+") as file:
        del file["entry/data"]
        del file[f"entry/{name}"]
        if value is not None:
            file[f"entry/{name}"] = value
    with pytest.raises(BadFile, match=says):
        FORMAT.open(path)


def test_a_scan_without_flats_is_refused(tmp_path: Path) -> None:
    path = write_nxtomo(tmp_path / "scan.nxs")
    with h5py.File(path, "r+") as file:
        keys = file["entry/instrument/detector/image_key"]
        keys[...] = np.where(keys[...] == 1, 3, keys[...])
    with pytest.raises(BadFile, match="holds no flats"):
        FORMAT.open(path)
