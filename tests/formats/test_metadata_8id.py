"""The metadata file that beamline 8-ID lays beside a run: found, read, and written back."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from lightkeep.formats.metadata import Gathered
from lightkeep.formats.metadata_8id import beside, complete, read_metadata, write_metadata
from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import BadFile, SourceError, UnsafeFile
from lightkeep.model.quantity import Quantity

RUN = Metadata(
    {
        "frame_time": Quantity.of(20, "us"),
        "exposure_time": Quantity.of(0.019, "ms"),
        "energy": Quantity.of(12184.0, "eV"),
        "distance": Quantity.of(11.6, "m"),
        "pixel_size": Quantity.of(76, "um"),
        "beam_center_x": Quantity.of(1676.25, "pixel"),
        "beam_center_y": Quantity.of(853.5, "pixel"),
        "frames": Quantity.of(100_000),
        "temperature": Quantity.of(293.15, "K"),
    },
    {"title": "Silica", "sample": "silica 100 nm", "detector": "rigaku3M", "start_time": "2026-11-22 09:00:00"},
)


def test_what_is_written_is_read_again_whatever_unit_it_was_given_in(tmp_path: Path) -> None:
    found = read_metadata(write_metadata(tmp_path / "A1_metadata.hdf", RUN))
    assert found.texts == RUN.texts
    assert set(found.quantities) == set(RUN.quantities)
    for name, quantity in RUN.quantities.items():
        assert found.quantities[name].value_si == pytest.approx(quantity.value_si, rel=1e-12)


def test_values_are_written_in_the_units_that_the_beamlines_programs_expect(tmp_path: Path) -> None:
    with h5py.File(write_metadata(tmp_path / "A1_metadata.hdf", RUN)) as file:
        entry = file["entry"]
        assert entry["instrument/incident_beam/incident_energy"][()] == pytest.approx(12.184)
        assert entry["instrument/detector_1/frame_time"][()] == pytest.approx(2e-5)
        assert entry["instrument/detector_1/count_time"][()] == pytest.approx(1.9e-5)
        assert entry["instrument/detector_1/y_pixel_size"][()] == pytest.approx(7.6e-5)
        assert "schema_version" in entry  # without it the beamline's own reduction does not see the file


def test_the_beam_centre_follows_the_detector(tmp_path: Path) -> None:
    path = write_metadata(tmp_path / "A1_metadata.hdf", RUN)
    with h5py.File(path, "r+") as file:
        file["entry/instrument/detector_1/position_x"][()] = 0.0076
    center = read_metadata(path).quantities["beam_center_x"]
    assert center.value == pytest.approx(1676.25 + 100)


def test_what_nobody_measured_is_absent_when_read(tmp_path: Path) -> None:
    found = read_metadata(write_metadata(tmp_path / "A1_metadata.hdf", Metadata()))
    assert not found.quantities
    assert not found.texts


@pytest.mark.parametrize("run", ["A1.h5", "A1.imm", "A1.bin", "A1.bin.000", "A1"])
def test_the_metadata_file_of_a_run_has_its_name(tmp_path: Path, run: str) -> None:
    own = write_metadata(tmp_path / "A1_metadata.hdf", RUN)
    write_metadata(tmp_path / "A2_metadata.hdf", RUN)
    assert beside(tmp_path / run) == own


def test_the_only_metadata_file_of_a_folder_is_that_of_its_run(tmp_path: Path) -> None:
    first = write_metadata(tmp_path / "scan7_metadata.hdf", RUN)
    assert beside(tmp_path / "A1.h5") == first
    write_metadata(tmp_path / "scan8_metadata.hdf", RUN)
    assert beside(tmp_path / "A1.h5") is None


def test_a_link_to_a_metadata_file_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    other = write_metadata(tmp_path / "A1_metadata.hdf", RUN)
    (tmp_path / "run" / "A1_metadata.hdf").symlink_to(other)
    assert beside(tmp_path / "run" / "A1.h5") is None


def test_the_runs_own_file_has_the_last_word_and_a_note_tells_the_difference(tmp_path: Path) -> None:
    write_metadata(tmp_path / "A1_metadata.hdf", RUN)
    found = Gathered(quantities={"frame_time": Quantity.of(1.0, "ms")})
    complete(tmp_path / "A1.h5", found)
    assert found.quantities["frame_time"].value == 1.0
    assert found.quantities["energy"].value == pytest.approx(12.184)
    assert found.texts["sample"] == "silica 100 nm"
    assert found.notes == ["frame_time is 1 ms here and 2e-05 s in A1_metadata.hdf"]


def test_a_run_without_a_metadata_file_says_so(tmp_path: Path) -> None:
    found = Gathered()
    complete(tmp_path / "A1.h5", found)
    assert found.notes == ["no *_metadata.hdf is beside it"]


def test_a_metadata_file_cut_short_is_left_out_with_the_reason(tmp_path: Path) -> None:
    path = write_metadata(tmp_path / "A1_metadata.hdf", RUN)
    path.write_bytes(path.read_bytes()[:-100])
    found = Gathered()
    complete(tmp_path / "A1.h5", found)
    (note,) = found.notes
    assert note.startswith("A1_metadata.hdf is left out: is cut short")
    assert not found.quantities


def test_a_metadata_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "A1_metadata.hdf"
    with pytest.raises(SourceError, match="no such file"):
        read_metadata(path)
    with h5py.File(path, "w") as file:
        file["measurement/instrument"] = 1
    with pytest.raises(BadFile, match="no group /entry"):
        read_metadata(path)
    with h5py.File(path, "r+") as file:
        file["entry/stolen"] = h5py.ExternalLink("/etc/other.h5", "/secret")
    with pytest.raises(UnsafeFile, match="outside its dataset"):
        read_metadata(path)
