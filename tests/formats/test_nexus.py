"""Results as NeXus: written so that any viewer shows them, and read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep import formats
from lightkeep.formats.nexus import FORMAT, steps
from lightkeep.model.errors import BadFile, StorageError
from lightkeep.model.formats import Format, Output, Result
from lightkeep.testing.suites.format import Hdf5Suite

ResultOf = Callable[..., Result]


def result_of(data: np.ndarray | None = None, **outputs: Output) -> Result:
    """A reconstruction of three small slices, unless told otherwise."""
    slices = np.arange(3 * 4 * 5, dtype=np.float32).reshape(3, 4, 5) if data is None else data
    scales = {"y": np.arange(4) * 0.65, "x": np.arange(5) * 0.65}
    main = Output(slices, ("row", "y", "x"), "1/pixel", "attenuation", scales, {"y": "um", "x": "um"})
    return Result(
        technique="tomography",
        title="Tooth",
        outputs={"slices": main, **outputs},
        default="slices",
        params={"center": 295.5, "window": "ramp", "limits": [0, 1], "flats": None},
        software="lightkeep 0.1.0",
        inputs={"ds_1": "tooth"},
        command="lightkeep run tomography ds_1 --center 295.5",
    )


class TestNexus(Hdf5Suite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return FORMAT.write(folder, result_of())[0]


def test_default_attributes_lead_from_the_root_to_the_picture(tmp_path: Path) -> None:
    (path,) = FORMAT.write(tmp_path, result_of())
    with h5py.File(path) as file:
        entry = file[file.attrs["default"]]
        plot = entry[entry.attrs["default"]]
        signal = plot[plot.attrs["signal"]]
        assert [file.attrs["NX_class"], entry.attrs["NX_class"], plot.attrs["NX_class"]] == [
            "NXroot",
            "NXentry",
            "NXdata",
        ]
        assert list(plot.attrs["axes"]) == [".", "y", "x"]
        assert plot["x"].attrs["units"] == "um"
        assert plot["x"].shape == signal.shape[2:]
        assert plot.attrs["x_indices"] == 2
        assert signal.attrs["units"] == "1/pixel"
        assert signal.attrs["long_name"] == "attenuation (1/pixel)"
        assert signal.attrs["interpretation"] == "image"


def test_a_result_says_how_it_was_made_and_how_to_repeat_it(tmp_path: Path) -> None:
    (path,) = FORMAT.write(tmp_path, result_of())
    with h5py.File(path) as file:
        process = file["entry/process"]
        assert process.attrs["NX_class"] == "NXprocess"
        assert (process["program"].asstr()[()], process["version"].asstr()[()]) == ("lightkeep", "0.1.0")
        assert process["command"].asstr()[()].startswith("lightkeep run")
        assert process["parameters/center"][()] == 295.5
        assert json.loads(process["parameters/limits"].asstr()[()]) == [0, 1]
        assert json.loads(process["parameters/flats"].asstr()[()]) is None
        assert list(process["inputs/id"].asstr()) == ["ds_1"]
    assert formats.inspect(path).metadata.texts["title"] == "Tooth"


def test_every_output_comes_back_bit_for_bit(tmp_path: Path) -> None:
    curve = Output(np.array([1.0, 4.0, 9.0]), ("delay",), "", "g2", {"delay": np.array([1, 2, 4])}, {"delay": "s"})
    (path,) = FORMAT.write(tmp_path, result_of(curve=curve))
    with FORMAT.open(path) as source:
        np.testing.assert_array_equal(source.arrays["slices"][...], result_of().outputs["slices"].data)
        np.testing.assert_array_equal(source.arrays["curve"][...], [1.0, 4.0, 9.0])
        assert source.arrays["frames"].shape == (3, 4, 5)


def test_the_size_of_a_pixel_comes_from_the_scales_of_its_axes(tmp_path: Path) -> None:
    (path,) = FORMAT.write(tmp_path, result_of())
    with FORMAT.open(path) as source:
        assert [(step.value, step.unit) for step in steps(source.arrays["slices"])] == [(0.65, "um")] * 2


@pytest.mark.parametrize(
    ("y", "unit"),
    [
        ([0, 1, 2, 4], "um"),
        ([1, 2, 3, 4], "um"),
        ([0, 1, 2, np.nan], "um"),
        ([0, 1, 2], "um"),
        ([0, 1, 2, 3], "mm"),
    ],
)
def test_uneven_or_unlike_scales_leave_a_pixel_a_pixel(tmp_path: Path, y: list[float], unit: str) -> None:
    scales = {"y": np.array(y, float), "x": np.arange(5) * 0.65}
    image = Output(np.zeros((3, 4, 5), np.float32), ("row", "y", "x"), "", "", scales, {"y": unit, "x": "um"})
    (path,) = FORMAT.write(tmp_path, result_of(odd=image))
    with FORMAT.open(path) as source:
        assert [(step.value, step.unit) for step in steps(source.arrays["odd"])] == [(1.0, "pixel")] * 2


class Recorder:
    """An array that is computed when it is sliced, and remembers the largest slice."""

    shape, dtype = (4096, 128, 128), np.dtype(np.float32)

    def __init__(self) -> None:
        self.largest = 0

    def __getitem__(self, key: slice) -> np.ndarray:
        begin, end, _ = key.indices(self.shape[0])
        block = np.broadcast_to(np.float32(begin), (end - begin, 128, 128))
        self.largest = max(self.largest, block.size * 4)
        return block


def test_a_result_larger_than_memory_is_written_slab_by_slab(tmp_path: Path) -> None:
    data = Recorder()
    (path,) = FORMAT.write(tmp_path, result_of(data))
    assert path.stat().st_size > 4096 * 128 * 128 * 4
    assert data.largest <= 32 << 20


def test_a_full_or_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        FORMAT.write(tmp_path / "nowhere", result_of())


def test_a_file_without_anything_to_plot_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["numbers"] = [1, 2, 3]
    assert formats.detect(path) == ""
    with pytest.raises(BadFile, match=r"no NXdata with a signal \(it holds: numbers\)"):
        FORMAT.open(path)
