"""Small files for the tests of the formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

ANGLES, ROWS, COLUMNS, FLATS, DARKS = 7, 3, 8, 4, 2


def write_data_exchange(path: Path) -> Path:
    """A scan as the beamlines of the APS write it."""
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        file["implements"] = "exchange:measurement"
        for name, count in {"data": ANGLES, "data_white": FLATS, "data_dark": DARKS}.items():
            file[f"exchange/{name}"] = rng.integers(0, 4096, (count, ROWS, COLUMNS), np.uint16)
        file["exchange/theta"] = np.arange(ANGLES) * 180.0 / ANGLES
        file["exchange/theta"].attrs["units"] = "degrees"
        file["measurement/sample/name"] = "Tooth"
        file["measurement/instrument/monochromator/energy"] = np.array([24.9])
        file["measurement/instrument/monochromator/energy"].attrs["units"] = "keV"
    return path


def write_nxtomo(path: Path) -> Path:
    """A scan as the NXtomo definition says: darks, flats, projections, flats and an invalid frame, one stack."""
    keys = [2] * DARKS + [1] * 2 + [0] * 3 + [3] + [0] * (ANGLES - 3) + [1] * 2
    rng = np.random.default_rng(2)
    angles = np.zeros(len(keys))
    angles[np.equal(keys, 0)] = np.arange(ANGLES) * 180.0 / ANGLES
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXtomo"
        entry["title"] = "Foam under load"
        entry["start_time"] = "2026-11-22T09:00:00+00:00"
        detector = entry.create_group("instrument/detector")
        entry["instrument"].attrs["NX_class"], detector.attrs["NX_class"] = "NXinstrument", "NXdetector"
        detector["data"] = rng.integers(0, 4096, (len(keys), ROWS, COLUMNS), np.uint16)
        detector["image_key"] = np.array(keys)
        detector["x_pixel_size"] = 0.65
        detector["x_pixel_size"].attrs["units"] = "um"
        detector["count_time"] = 0.05
        detector["count_time"].attrs["units"] = "s"
        sample = entry.create_group("sample")
        sample.attrs["NX_class"] = "NXsample"
        sample["name"] = "Aluminium foam"
        sample["rotation_angle"] = angles
        sample["rotation_angle"].attrs["units"] = "deg"
        data = entry.create_group("data")
        data.attrs.update({"NX_class": "NXdata", "signal": "data"})
        data["data"], data["image_key"] = (
            detector["data"],
            detector["image_key"],
        )  # hard links, as the definition says
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A correct Data Exchange file."""
    return write_data_exchange(tmp_path / "scan.h5")


@pytest.fixture
def changed(scan: Path) -> Callable[..., Path]:
    """Replace parts of a correct Data Exchange file: path -> new value, or None to remove it."""

    def change(**values: Any) -> Path:
        with h5py.File(scan, "r+") as file:
            for name, value in values.items():
                del file["exchange"][name]
                if value is not None:
                    file["exchange"][name] = value
        return scan

    return change
