"""OME-Zarr results, read back by zarr and held to the models of the specification."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image

from lightkeep.formats import ome_zarr
from lightkeep.formats.zarr_array import ArrayWriter
from lightkeep.model.errors import StorageError
from lightkeep.model.formats import Output, Result

COMMAND = "lightkeep run tomography ds_1 --center 295.9"


def result_of(data: np.ndarray, *, pixel_um: float | None = 2.5) -> Result:
    axes = ("rows", "y", "x")[-data.ndim :]
    scales = {axis: pixel_um * np.arange(n) for axis, n in zip(axes, data.shape, strict=True)} if pixel_um else {}
    output = Output(data, axes, "1/cm", "Attenuation", scales, dict.fromkeys(scales, "um"))
    return Result(
        "tomography",
        "Tooth",
        {"slices": output},
        "slices",
        {"center": 295.9, "row_end": None},
        "lightkeep 0",
        inputs={"ds_1": "tooth"},
        command=COMMAND,
        facts={"sigma": 0.25},
    )


def written(folder: Path, data: np.ndarray, **options: float | None) -> zarr.Group:
    (main, *rest) = ome_zarr.FORMAT.write(folder, result_of(data, **options))
    assert main == folder / "slices.ome.zarr" / "zarr.json"
    assert set(rest) | {main} == {path for path in folder.rglob("*") if path.is_file()}
    return zarr.open_group(main.parent, mode="r")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 300, 301), (70, 65, 129), (130, 150, 64), (1, 1, 129)])
def test_every_level_is_the_mean_of_the_one_before_and_valid(tmp_path: Path, shape: tuple[int, ...]) -> None:
    data = noise(*shape)
    group = written(tmp_path, data)
    image = Image.from_zarr(group)
    datasets = image.attributes.ome.multiscales[0].datasets
    np.testing.assert_array_equal(group["0"][:], data)
    for finer, coarser in pairwise(datasets):
        below = group[finer.path][:].astype(float)
        even = np.pad(below, [(0, n % 2) for n in below.shape], mode="edge")
        z, y, x = even.shape
        means = even.reshape(z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(1, 3, 5))
        np.testing.assert_allclose(group[coarser.path][:], means, atol=1e-6)
    assert max(group[datasets[-1].path].shape) <= 128
    assert group["0"].metadata.dimension_names == ("z", "y", "x")


def test_voxels_of_all_levels_lie_where_they_are_in_the_sample(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(512, dtype=np.float32), (4, 512, 512))
    group = written(tmp_path, ramp)
    multiscale = Image.from_zarr(group).attributes.ome.multiscales[0]
    assert [(axis.name, axis.type, axis.unit) for axis in multiscale.axes] == [
        (name, "space", "micrometer") for name in "zyx"
    ]
    for dataset in multiscale.datasets:
        scale, shift = (getattr(each, each.type) for each in dataset.coordinateTransformations)
        values = group[dataset.path][0, 0]
        np.testing.assert_allclose(scale[2] * np.arange(values.size) + shift[2], 2.5 * values, rtol=1e-6)


def test_without_a_pixel_size_there_is_no_unit(tmp_path: Path) -> None:
    axes = Image.from_zarr(written(tmp_path, noise(2, 8, 8), pixel_um=None)).attributes.ome.multiscales[0].axes
    assert [axis.unit for axis in axes] == [None] * 3


def test_one_slice_is_as_thick_as_its_pixels_are_wide_and_an_image_is_one_slice(tmp_path: Path) -> None:
    for number, data in enumerate((noise(1, 9, 8), noise(9, 8))):
        group = written(tmp_path / str(number), data)
        dataset = Image.from_zarr(group).attributes.ome.multiscales[0].datasets[0]
        assert dataset.coordinateTransformations[0].scale == [2.5, 2.5, 2.5]
        np.testing.assert_array_equal(group["0"][0], data.reshape(9, 8))


def test_it_says_how_it_was_made_and_how_to_repeat_it(tmp_path: Path) -> None:
    made = written(tmp_path, noise(1, 4, 4)).attrs["lightkeep"]
    assert made["command"] == COMMAND
    assert made["parameters"]["center"] == 295.9
    assert (made["inputs"], made["software"]) == ({"ds_1": "tooth"}, "lightkeep 0")


def test_the_contrast_is_that_of_the_sample_not_of_hot_voxels_or_empty_corners(tmp_path: Path) -> None:
    data = np.zeros((1, 100, 100), np.float32)
    data[0, 20:80, 20:80] = np.random.default_rng(0).uniform(1, 2, (60, 60))
    data[0, 50, 50] = 1e6
    window = written(tmp_path, data).attrs["ome"]["omero"]["channels"][0]["window"]
    assert 1 <= window["start"] < 1.02 < 1.98 < window["end"] <= 2
    assert window["max"] == 1e6


def test_empty_space_takes_no_room_and_values_that_are_not_numbers_stay(tmp_path: Path) -> None:
    data = np.zeros((64, 256, 256), np.float32)
    data[3, 100, 100] = np.nan
    group = written(tmp_path, data)
    np.testing.assert_array_equal(group["0"][:], data)
    assert sum(path.stat().st_size for path in tmp_path.rglob("c/*/*/*")) < 50_000


def test_a_large_slab_is_cut_into_few_files(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        array = ArrayWriter(tmp_path / "a", (1, 2100, 1030), pool=pool)
        values = noise(1, 2100, 1030)
        array.put(0, values)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], values)
    assert len(array.files) == 1 + 3 * 2  # 1024 x 1024 pixels in each


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    data = noise(66, 70, 70)
    for name in ("a", "b"):
        written(tmp_path / name, data)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_curve_gives_nothing_and_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    assert ome_zarr.FORMAT.write(tmp_path, result_of(noise(4))) == []
    (tmp_path / "slices.ome.zarr").write_text("")
    with pytest.raises(StorageError, match=r"slices\.ome\.zarr"):
        ome_zarr.FORMAT.write(tmp_path, result_of(noise(1, 4, 4)))


def test_the_metadata_are_plain_json(tmp_path: Path) -> None:
    written(tmp_path, np.full((1, 4, 4), np.nan, np.float32))
    text = (tmp_path / "slices.ome.zarr" / "zarr.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
