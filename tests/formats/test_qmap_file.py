"""qmap files: written as pySimpleMask does, read back, and refused or repaired where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightkeep.analysis.xpcs import Geometry, QMap
from lightkeep.analysis.xpcs.qmap_arrays import describe, for_frames, grids_of, qmap_of
from lightkeep.formats.qmap import FORMAT, read_qmap, write_qmap
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Format
from lightkeep.testing.suites.format import Hdf5Suite

GEOMETRY = Geometry(20.5, 11.0, 75e-6, 5.0, 10.0)


def rings(shape: tuple[int, int] = (24, 32), **more: Any) -> QMap:
    """Rings about the beam with a dead corner; some cells of the grid have no pixel."""
    mask = np.ones(shape, bool)
    mask[:4, :5] = False
    return QMap.from_geometry(shape, GEOMETRY, dynamic=(3, 2), static=(12, 8), mask=mask, **more)


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Write a correct qmap file, then replace datasets: name -> new value, or None to remove it."""

    def change(**values: Any) -> Path:
        path = write_qmap(tmp_path / "qmap.hdf", rings())
        with h5py.File(path, "r+") as file:
            for name, value in values.items():
                if name in file["qmap"]:
                    del file["qmap"][name]
                if value is not None:
                    file["qmap"][name] = value
        return path

    return change


class TestQMap(Hdf5Suite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return write_qmap(folder / "qmap.hdf", rings())


def assert_same(found: QMap, expected: QMap) -> None:
    np.testing.assert_array_equal(found.dynamic, expected.dynamic)
    np.testing.assert_array_equal(found.static, expected.static)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.static_to_dynamic, expected.static_to_dynamic)
    for name, values in grids_of(expected).items():
        np.testing.assert_array_equal(grids_of(found)[name], values)
    assert (found.names, found.map_units, found.geometry) == (
        expected.names,
        expected.map_units,
        expected.geometry,
    )


@pytest.mark.parametrize(
    "qmap",
    [
        rings(),
        rings(spacing="log"),
        QMap.from_geometry((24, 32), GEOMETRY, kind="x-y", dynamic=(2, 2), static=(4, 4)),
        QMap.from_geometry((24, 32), Geometry(-300.0, 11.0, 75e-6, 0.2, 10.0, 25.0, -3.0)),
    ],
    ids=["rings", "log", "boxes", "arm"],
)
def test_a_qmap_comes_back_from_a_file_as_it_was(tmp_path: Path, qmap: QMap) -> None:
    assert_same(read_qmap(write_qmap(tmp_path / "qmap.hdf", qmap)), qmap)


def test_a_qmap_comes_back_from_named_arrays_and_words_as_it_was() -> None:
    qmap = rings()
    maps = {"dynamic_roi_map": qmap.dynamic, "static_roi_map": qmap.static, "mask": qmap.mask}
    assert_same(qmap_of(maps, describe(qmap)), qmap)


def test_a_qmap_without_grid_and_geometry_keeps_its_labels(tmp_path: Path) -> None:
    labels = np.arange(6).reshape(2, 3) % 4
    found = read_qmap(write_qmap(tmp_path / "qmap.hdf", QMap.from_labels(labels)))
    np.testing.assert_array_equal(found.dynamic, labels)
    assert found.geometry is None
    assert np.isnan(found.dynamic_q).all()


def test_a_source_of_a_qmap_gives_what_a_technique_needs(tmp_path: Path) -> None:
    with FORMAT.open(write_qmap(tmp_path / "qmap.hdf", rings())) as source:
        assert source.technique == "xpcs"
        assert_same(qmap_of(source.arrays, source.metadata.rest["qmap"]), rings())
        assert_same(read_qmap(source), rings())
        assert source.metadata.quantities["energy"].unit == "keV"


def test_arrays_are_in_the_smallest_type_that_holds_them(tmp_path: Path) -> None:
    with h5py.File(write_qmap(tmp_path / "qmap.hdf", rings())) as file:
        group = file["qmap"]
        assert group["dynamic_roi_map"].dtype == np.uint8
        assert group["static_index_mapping"].dtype == np.uint8
        assert group["mask"].dtype == bool
        assert [text.decode() for text in group["map_units"][()]] == ["Å⁻¹", "deg"]
        assert dict(group["static_v_list_dim1"].attrs) == {"unit": "deg", "name": "phi", "size": 8}
        assert list(group["static_num_pts"][()]) == [12, 8]


def test_the_hash_tells_maps_apart_and_is_the_same_for_the_same_map(tmp_path: Path) -> None:
    def of(qmap: QMap) -> str:
        with h5py.File(write_qmap(tmp_path / "qmap.hdf", qmap)) as file:
            return str(file["qmap"].attrs["hash"])

    assert of(rings()) == of(rings())
    assert of(rings()) != of(rings(spacing="log"))


def test_labels_with_gaps_are_numbered_again_and_said_so(changed: Callable[..., Path]) -> None:
    qmap = rings()
    path = changed(dynamic_roi_map=qmap.dynamic * 10)
    with FORMAT.open(path) as source:
        (note,) = source.metadata.rest["notes"]
        assert "dynamic labels had gaps" in note
        assert_same(read_qmap(source), qmap)


def test_a_grid_with_a_place_for_each_number_goes_with_its_labels(changed: Callable[..., Path]) -> None:
    qmap = rings()
    kept = qmap.dynamic != 2
    path = changed(dynamic_roi_map=qmap.dynamic * kept, static_roi_map=qmap.static * kept, mask=None, blemish=None)
    found = read_qmap(path)
    assert found.n_dynamic == qmap.n_dynamic - 1
    np.testing.assert_array_equal(found.dynamic_q, np.delete(qmap.dynamic_q, 1))
    np.testing.assert_array_equal(found.dynamic_phi, np.delete(qmap.dynamic_phi, 1))


def test_masked_pixels_with_a_bin_are_left_out_and_said_so(changed: Callable[..., Path]) -> None:
    qmap = rings()
    used = qmap.dynamic > 0
    row, column = np.argwhere(used)[0]
    used[row, column] = False
    with FORMAT.open(changed(mask=used)) as source:
        assert source.metadata.rest["notes"] == ["1 masked pixels had a bin: left out"]
        assert read_qmap(source).dynamic[row, column] == 0
    works = qmap.mask.copy()
    works[row, column] = False
    assert read_qmap(changed(blemish=works)).dynamic[row, column] == 0


def test_a_file_without_a_blemish_map_takes_the_mask(changed: Callable[..., Path]) -> None:
    np.testing.assert_array_equal(read_qmap(changed(blemish=None)).mask, rings().dynamic > 0)


def test_maps_with_an_axis_of_one_are_read(changed: Callable[..., Path]) -> None:
    qmap = rings()
    assert_same(read_qmap(changed(dynamic_roi_map=qmap.dynamic[None], static_roi_map=qmap.static[None])), qmap)


def test_a_static_partition_in_two_dynamic_bins_is_refused(changed: Callable[..., Path]) -> None:
    with pytest.raises(BadFile, match="static partition 1 spans dynamic bins") as caught:
        FORMAT.open(changed(static_roi_map=(rings().static > 0).astype(int), static_index_mapping=[0]))
    assert "multiples" in caught.value.remedy


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"static_roi_map": np.ones((3, 4), int)}, "differ in shape"),
        ({"static_roi_map": np.ones(7, int)}, "is not a map of numbers"),
        ({"static_roi_map": b"text"}, "is not a map of numbers"),
        ({"static_roi_map": np.full((24, 32), 0.5)}, "labels that are not whole"),
        ({"dynamic_roi_map": np.zeros((24, 32), int)}, "no pixel has a dynamic label"),
        ({"dynamic_index_mapping": np.arange(2)}, "does not fit: 2 places for 6 labels"),
        ({"dynamic_index_mapping": np.array([0, 1, 2, 3, 4, 600])}, "in a grid of 3 x 2"),
    ],
)
def test_maps_that_cannot_be_meant_are_refused(
    changed: Callable[..., Path], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadFile, match=message) as caught:
        FORMAT.open(changed(**values))
    assert caught.value.remedy


def test_a_map_that_is_turned_against_the_frames_is_turned_with_a_flag() -> None:
    qmap = rings()
    assert for_frames(qmap, (24, 32)) == (qmap, [])
    turned, flags = for_frames(qmap, (32, 24))
    assert flags == ["the qmap was transposed: its rows are the columns of the frames"]
    np.testing.assert_array_equal(turned.dynamic, qmap.dynamic.T)
    np.testing.assert_array_equal(turned.mask, qmap.mask.T)
    np.testing.assert_array_equal(turned.dynamic_q, qmap.dynamic_q)
    assert turned.geometry is not None
    assert (turned.geometry.beam_center_x, turned.geometry.beam_center_y) == (11.0, 20.5)
    with pytest.raises(ValueError, match="the frames have"):
        for_frames(qmap, (24, 33))


def test_q_of_a_turned_map_is_that_of_its_pixels() -> None:
    arm = QMap.from_geometry((24, 32), Geometry(-300.0, 11.0, 75e-6, 0.2, 10.0, 25.0))
    turned, _flags = for_frames(arm, (32, 24))
    assert turned.geometry is not None
    again = QMap.from_geometry((32, 24), turned.geometry)
    np.testing.assert_allclose(again.dynamic_q, arm.dynamic_q, rtol=1e-12)


def test_a_turned_map_of_an_arm_with_two_angles_keeps_its_q_but_claims_no_geometry() -> None:
    arm = QMap.from_geometry((24, 32), Geometry(-300.0, 11.0, 75e-6, 0.2, 10.0, 25.0, -3.0))
    turned, _flags = for_frames(arm, (32, 24))
    assert turned.geometry is None
    np.testing.assert_array_equal(turned.dynamic_q, arm.dynamic_q)
