"""Data Exchange files: what is read, what is refused and how that is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep import formats
from lightkeep.formats.data_exchange import FORMAT
from lightkeep.formats.scan import theta_problem
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Format
from lightkeep.testing.suites.format import Hdf5Suite, assert_one_line

from .conftest import ANGLES, COLUMNS, DARKS, FLATS, ROWS, write_data_exchange

Change = Callable[..., Path]
FRAMES = np.ones((3, ROWS, COLUMNS))


class TestDataExchange(Hdf5Suite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return write_data_exchange(folder / "example.h5")


def test_the_tooth_is_read_as_it_was_measured(shared_data: Path) -> None:
    found = formats.inspect(shared_data / "tomography" / "tooth.h5")
    assert (found.format, found.technique) == ("data-exchange", "tomography")
    assert found.arrays["projections"] == ((181, 2, 640), "float32")
    assert found.arrays["flats"][0] == found.arrays["darks"][0] == (10, 2, 640)
    assert found.metadata.texts["sample"] == "Tooth"
    with FORMAT.open(shared_data / "tomography" / "tooth.h5") as source:
        np.testing.assert_allclose(source.arrays["theta_deg"][...], np.arange(181) * 180 / 181)
        assert source.arrays["flats"][0].mean() > source.arrays["projections"][0].mean()


def test_roles_and_typed_fields_are_found(scan: Path) -> None:
    with FORMAT.open(scan) as source:
        shapes = {role: array.shape for role, array in source.arrays.items()}
        energy = source.metadata.quantities["energy"]
    assert shapes == {
        "projections": (ANGLES, ROWS, COLUMNS),
        "flats": (FLATS, ROWS, COLUMNS),
        "darks": (DARKS, ROWS, COLUMNS),
        "theta_deg": (ANGLES,),
    }
    assert (energy.value, energy.unit, energy.unit_si) == (24.9, "keV", "J")


@pytest.mark.parametrize(
    ("unit", "factor"), [("rad", np.pi / 180), ("degrees", 1.0), (None, 1.0), ("bananas", 1.0)]
)
def test_angles_come_in_degrees_whatever_the_file_uses(changed: Change, unit: str | None, factor: float) -> None:
    expected = np.linspace(0, 180, ANGLES)
    path = changed(theta=expected * factor)
    with h5py.File(path, "r+") as file:
        if unit:
            file["exchange/theta"].attrs["units"] = unit
    with FORMAT.open(path) as source:
        np.testing.assert_allclose(source.arrays["theta_deg"][...], expected)
        assert ("notes" in source.metadata.rest) == (unit in (None, "bananas"))


@pytest.mark.parametrize("turn_deg", [180.0, 360.0])
def test_angles_without_a_unit_that_span_a_turn_in_radians_are_radians(tmp_path: Path, turn_deg: float) -> None:
    path = write_data_exchange(tmp_path / "scan.h5")
    expected = np.arange(90) * turn_deg / 90
    with h5py.File(path, "r+") as file:
        del file["exchange/data"], file["exchange/theta"]
        file["exchange/data"] = np.ones((90, ROWS, COLUMNS), np.uint8)
        file["exchange/theta"] = np.deg2rad(expected)
    with FORMAT.open(path) as source:
        np.testing.assert_allclose(source.arrays["theta_deg"][...], expected)
        assert "taken as radians" in str(source.metadata.rest["notes"])
    with h5py.File(path, "r+") as file:
        file["exchange/theta"].attrs["units"] = "deg"
    with FORMAT.open(path) as source:
        np.testing.assert_allclose(source.arrays["theta_deg"][...], np.deg2rad(expected))


def test_a_scan_that_kept_only_its_first_angle_and_step_has_angles(changed: Change) -> None:
    path = changed(theta=None)
    with h5py.File(path, "r+") as file:
        file["process/acquisition/rotation/rotation_start"] = np.array([10.0])
        file["process/acquisition/rotation/rotation_step"] = np.array([0.25])
    with FORMAT.open(path) as source:
        np.testing.assert_allclose(source.arrays["theta_deg"][...], 10 + 0.25 * np.arange(ANGLES))
        assert "steps of 0.25 deg" in str(source.metadata.rest["notes"])


@pytest.mark.parametrize("after", [3, 0])
def test_flats_from_before_and_after_are_used_where_they_were_taken(changed: Change, after: int) -> None:
    path = changed(data_white=None)
    before = np.arange(2 * ROWS * COLUMNS, dtype=np.uint16).reshape(2, ROWS, COLUMNS)
    behind = np.full((after, ROWS, COLUMNS), 7, np.uint16)
    with h5py.File(path, "r+") as file:
        file["exchange/data_white_start"] = before
        if after:
            file["exchange/data_white_end"] = behind
    with FORMAT.open(path) as source:
        flats, all_of_them = source.arrays["flats"], np.concatenate([before, behind])
        assert flats.shape == all_of_them.shape
        for key in (slice(None), (slice(1, 4), slice(0, 2)), (slice(None), 1), 1, (..., 2)):
            np.testing.assert_array_equal(flats[key], all_of_them[key])
        np.testing.assert_array_equal(source.arrays["flats_at"][:], [0, 0] + [ANGLES] * after)


def test_flats_of_two_sizes_are_refused(changed: Change) -> None:
    path = changed(data_white=None)
    with h5py.File(path, "r+") as file:
        file["exchange/data_white_start"] = np.ones((2, ROWS, COLUMNS))
        file["exchange/data_white_end"] = np.ones((2, ROWS, COLUMNS - 1))
    with pytest.raises(BadFile, match="data_white_end has shape") as caught:
        formats.inspect(path)
    assert_one_line(caught.value, path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"theta": None}, "no exchange/theta"),
        ({"theta": np.arange(5.0)}, "5 angles for 7 projections"),
        ({"theta": np.array([0, 1, np.nan, 3, 4, 5, 6])}, "nan at index 2"),
        ({"theta": np.array([0, 1, 2, 1.5, 3, 4, 5])}, "negative step at index 3"),
        ({"theta": np.arange(7.0)[::-1]}, "negative step: it runs from 6 to 0 deg"),
        ({"theta": np.full(7, 3.0)}, "3 deg for every projection"),
        ({"data_white": np.ones((0, ROWS, COLUMNS))}, "no flats"),
        ({"data_white": None}, "no exchange/data_white"),
        ({"data_white": np.ones((3, ROWS, COLUMNS + 1))}, "do not fit projections"),
        ({"data_dark": np.ones((ROWS, COLUMNS))}, "do not fit projections"),
        ({"data": np.ones((ANGLES, 0, COLUMNS))}, "has shape"),
        ({"data": np.ones((ANGLES, COLUMNS))}, "has shape"),
        ({"data": np.ones((1, ANGLES, ROWS, COLUMNS))}, "has shape"),
        ({"data": 1.0}, "has shape"),
        ({"data": "text"}, "no numbers in exchange/data"),
    ],
)
def test_a_scan_that_does_not_fit_together_is_refused_by_name(changed: Change, values: dict, says: str) -> None:
    path = changed(**values)
    with pytest.raises(BadFile, match=says) as caught:
        formats.inspect(path)
    assert_one_line(caught.value, path)


@pytest.mark.parametrize("darks", [None, np.ones((0, ROWS, COLUMNS))])
def test_a_scan_without_darks_is_read_with_darks_of_zero_and_says_so(
    changed: Change, darks: np.ndarray | None
) -> None:
    with FORMAT.open(changed(data_dark=darks)) as scan:
        np.testing.assert_array_equal(scan.arrays["darks"][:], np.zeros((1, ROWS, COLUMNS)))
        assert "no darks (exchange/data_dark): taken as 0" in scan.metadata.rest["notes"]


def test_another_layout_is_refused_with_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["exchange/images"] = FRAMES
    with pytest.raises(BadFile, match=r"no exchange/data .*holds: images"):
        FORMAT.open(path)


@pytest.mark.parametrize(
    "theta",
    [
        np.arange(180.0),
        np.mod(np.arange(50) * 180 * (np.sqrt(5) - 1) / 2, 180),
        np.concatenate([np.arange(k, 180, 8.0) for k in range(8)]),
        np.mod(np.arange(300, 480.0), 360),
        np.array([0.0]),
        np.array([0.0, 0.0, 1.0]),
    ],
    ids=["sequential", "golden", "interlaced", "wrapped", "single", "repeated"],
)
def test_every_order_in_which_scans_are_taken_is_accepted(theta: np.ndarray) -> None:
    assert theta_problem(theta) == ("", "")
