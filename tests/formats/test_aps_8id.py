"""XPCS results as files of beamline 8-ID: what is written comes back, others' files open, and the NeXus names lead
to the same values."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis.xpcs.qmap_arrays import grids_of
from lightkeep.formats.aps_8id import FORMAT, read_result
from lightkeep.formats.metadata_8id import write_metadata
from lightkeep.formats.qmap import read_qmap, write_group
from lightkeep.formats.xpcs_csv import csv_of
from lightkeep.model.errors import BadFile, InvalidInput, StorageError
from lightkeep.model.formats import Format, Output
from lightkeep.testing.suites.format import Hdf5Suite
from lightkeep.testing.xpcs_results import (
    AVERAGE,
    FRAME_TIME_S,
    FRAMES,
    MEASURED,
    STRIDE,
    sample_qmap,
    sample_result,
)

STEP_S = FRAME_TIME_S * STRIDE * AVERAGE


class TestAps8id(Hdf5Suite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return FORMAT.write(folder, sample_result())[0]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The file of a multi-tau and two-time result."""
    return FORMAT.write(tmp_path, sample_result())[0]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file as boost-corr writes it: metadata of the run, the qmap, float32; maps numbered as they come."""
    path = write_metadata(tmp_path / "A7_results.hdf", MEASURED)
    result = sample_result()
    values = {name: np.asarray(output.data) for name, output in result.outputs.items()}
    delays = np.rint(np.asarray(result.outputs["g2"].scales["tau"]) / STEP_S).astype(int)
    with h5py.File(path, "r+") as file:
        write_group(file.create_group("xpcs/qmap"), sample_qmap())
        xpcs = file["xpcs"]
        xpcs["multitau/delay_list"] = delays
        xpcs["multitau/normalized_g2"] = values["g2"].astype(np.float32)
        xpcs["multitau/normalized_g2_err"] = values["g2_err"].astype(np.float32)
        xpcs["multitau/normalized_g2_partial"] = np.ones((5, *values["g2"].shape), np.float32)
        xpcs["temporal_mean/scattering_2d"] = values["saxs_2d"][None].astype(np.float32)
        xpcs["temporal_mean/scattering_1d"] = values["saxs_1d"][None].astype(np.float32)
        xpcs["temporal_mean/scattering_1d_segments"] = values["saxs_1d_segments"].astype(np.float32)
        xpcs["spatial_mean/intensity_vs_time"] = np.stack([np.arange(FRAMES), values["intensity"]])
        for part in ("multitau", "twotime"):
            xpcs[f"{part}/config/stride_frame"], xpcs[f"{part}/config/avg_frame"] = STRIDE, AVERAGE
        xpcs["twotime/processed_bins"] = [1, 3]
        for index in (0, 1):
            xpcs[f"twotime/correlation_map/c2_{index + 1:05d}"] = np.triu(values["c2"][index])
        xpcs["twotime/normalized_g2"] = values["g2_twotime"].astype(np.float32)
        xpcs["twotime/normalized_g2_segments"] = np.swapaxes(values["g2_twotime_segments"], 0, 1)
        xpcs["rawdata_path"] = "/data/A7.bin"
    return path


def test_every_output_comes_back_as_it_was(written: Path) -> None:
    with FORMAT.open(written) as source:
        for name, output in sample_result().outputs.items():
            np.testing.assert_array_equal(source.arrays[name][...], output.data, err_msg=name)
        assert source.technique == "xpcs"


def test_coordinates_come_back_with_their_units(written: Path) -> None:
    result, qmap = sample_result(), sample_qmap()
    with FORMAT.open(written) as source:
        arrays, rest = source.arrays, source.metadata.rest
        np.testing.assert_array_equal(arrays["tau"], result.outputs["g2"].scales["tau"])
        np.testing.assert_array_equal(arrays["time"], result.outputs["c2"].scales["t1"])
        np.testing.assert_array_equal(arrays["q"], qmap.dynamic_q)
        np.testing.assert_array_equal(arrays["phi"], qmap.dynamic_phi)
        np.testing.assert_array_equal(arrays["static_q"], qmap.static_q)
        np.testing.assert_array_equal(arrays["bin"], [1, 3])
        assert rest["units"]["tau"] == rest["units"]["time"] == "s"
        assert rest["units"]["saxs_2d"] == "counts/pixel/frame"


def test_how_it_was_made_comes_back(written: Path) -> None:
    result = sample_result()
    with FORMAT.open(written) as source:
        rest = source.metadata.rest
        assert rest["params"] == result.params
        assert rest["flags"] == ["2 frames were left out"]
        assert rest["facts"] == {"q_bins": 6}
        assert source.metadata.texts["command"] == result.command
        assert source.metadata.texts["software"] == "lightkeep 0.1.0"
        assert source.metadata.texts["title"] == "xpcs of silica-7"
        assert source.metadata.quantities["temperature"].value == 295.0
        assert rest["reduction"]["step_s"] == pytest.approx(STEP_S)
    with h5py.File(written) as file:
        assert list(file["entry/process/inputs/id"].asstr()) == ["ds_1", "ds_2"]
        assert file["xpcs/rawdata_path"].asstr()[()] == "silica-7 (ds_1), rings (ds_2)"


def test_the_qmap_comes_back_whole(written: Path) -> None:
    with FORMAT.open(written) as source:
        found, qmap = read_qmap(source), sample_qmap()
    np.testing.assert_array_equal(found.dynamic, qmap.dynamic)
    np.testing.assert_array_equal(found.mask, qmap.mask)
    assert found.geometry == qmap.geometry
    for name, values in grids_of(qmap).items():
        np.testing.assert_array_equal(grids_of(found)[name], values)


def test_the_results_objects_come_back(written: Path) -> None:
    multitau, twotime = read_result(written)
    assert multitau is not None
    assert twotime is not None
    outputs = sample_result().outputs
    for name in ("g2", "g2_err", "g2_partial", "pairs", "saxs_2d", "saxs_1d", "saxs_1d_segments", "intensity_q"):
        np.testing.assert_array_equal(getattr(multitau, name), outputs[name].data)
    np.testing.assert_array_equal(multitau.tau, outputs["g2"].scales["tau"])
    assert (multitau.frames, multitau.stride, multitau.average, multitau.begin) == (FRAMES, STRIDE, AVERAGE, 0)
    assert (multitau.scheme, multitau.dpl, multitau.normalisation) == ("aps", 4, "partition")
    assert multitau.frame_time_s == pytest.approx(STEP_S)
    assert multitau.flags == ("2 frames were left out",)
    assert twotime.bins == (1, 3)
    np.testing.assert_array_equal(twotime.c2[3], outputs["c2"].data[1])
    np.testing.assert_array_equal(twotime.g2_segments, outputs["g2_twotime_segments"].data)
    np.testing.assert_array_equal(twotime.intensity, outputs["intensity_q"].data[:, [0, 2]])
    assert not any(frames.size for frames in twotime.empty.values())
    assert twotime.smooth == "static"


@pytest.mark.parametrize(("mode", "has"), [("multitau", (True, False)), ("twotime", (False, True))])
def test_a_result_of_one_kind_has_only_that(tmp_path: Path, mode: str, has: tuple[bool, bool]) -> None:
    found = read_result(FORMAT.write(tmp_path, sample_result(mode=mode))[0])
    assert tuple(each is not None for each in found) == has


def test_a_result_read_and_written_again_is_the_same(written: Path, tmp_path: Path) -> None:
    result, again = sample_result(), tmp_path / "again"
    again.mkdir()
    with FORMAT.open(written) as source:
        outputs = {name: replace(each, data=source.arrays[name]) for name, each in result.outputs.items()}
        (path,) = FORMAT.write(again, replace(result, outputs=outputs))
    assert path.read_bytes() == written.read_bytes()


def test_the_names_of_nxxpcs_lead_to_the_same_values(written: Path) -> None:
    with h5py.File(written) as file:
        entry = file[file.attrs["default"]]
        assert entry["definition"].asstr()[()] == "NXxpcs"
        assert entry["entry_identifier"].asstr()[()] == "silica-7"
        data = entry[entry.attrs["default"]]
        assert data.attrs["NX_class"] == "NXdata"
        assert data[data.attrs["signal"]] == file["xpcs/multitau/normalized_g2"]
        assert data["g2_derr"] == file["xpcs/multitau/normalized_g2_err"]
        assert data["delay_difference"] == file["xpcs/multitau/delay_list"]
        assert data["g2"].attrs["storage_mode"] == "one_array"
        assert [data[axis].size for axis in data.attrs["axes"]] == list(data["g2"].shape)
        two_time = entry["twotime/two_time_corr_func"]
        assert list(two_time) == ["c2_00001", "c2_00003"]
        assert dict(two_time.attrs) == {
            "storage_mode": "data_exchange_keys",
            "baseline_reference": 1,
            "time_origin_location": "upper_left",
            "populated_elements": "upper_half",
        }
        assert entry["twotime/g2_from_two_time_corr_func"].attrs["first_point_for_fit"] == 0
        masks = entry["instrument/masks"]
        np.testing.assert_array_equal(masks["dynamic_roi_map"], sample_qmap().dynamic)
        np.testing.assert_array_equal(masks["dynamic_q_list"], sample_qmap().dynamic_q)
        assert masks["static_roi_map"].attrs["units"] == "au"
        assert entry["instrument/incident_beam/incident_energy"].attrs["units"] == "keV"
        assert entry["instrument/detector_1/count_time"][()] == pytest.approx(0.9e-3)


def test_a_file_names_no_folder_of_any_machine(written: Path) -> None:
    content = written.read_bytes()
    for part in (str(Path.home()), str(Path(__file__).parent), str(written.parent), "/tmp"):
        assert part.encode() not in content


def test_the_file_is_named_for_the_run(tmp_path: Path) -> None:
    name = "A 7/../x*ü"
    assert FORMAT.write(tmp_path, sample_result(inputs={"ds_1": name}))[0] == tmp_path / "A_7_.._x_results.hdf"
    assert FORMAT.write(tmp_path, sample_result(inputs={}))[0].name == "xpcs_results.hdf"


def test_what_the_layout_has_no_place_for_is_kept_as_nxdata(tmp_path: Path) -> None:
    result = sample_result()
    extra = Output(np.arange(6.0).reshape(2, 3), ("level", "lag"), "1/s", "Rate")
    (path,) = FORMAT.write(tmp_path, replace(result, outputs={**result.outputs, "rates": extra}))
    with FORMAT.open(path) as source:
        np.testing.assert_array_equal(source.arrays["rates"], extra.data)


def test_below_the_diagonal_a_correlation_takes_no_room(tmp_path: Path) -> None:
    result = sample_result(mode="twotime", bins=(1,))
    noise = np.random.default_rng(0).uniform(1, 2, (1, 2048, 2048)).astype(np.float32)
    outputs = {name: each for name, each in result.outputs.items() if "twotime" not in name}
    outputs["c2"] = replace(outputs["c2"], data=noise, scales={"bin": [1]})
    (path,) = FORMAT.write(tmp_path, replace(result, outputs=outputs))
    assert path.stat().st_size < 0.7 * noise.nbytes


def test_a_result_without_a_qmap_is_not_written(tmp_path: Path) -> None:
    result = sample_result()
    with pytest.raises(InvalidInput, match="no static_roi_map"):
        FORMAT.write(
            tmp_path, replace(result, outputs={k: v for k, v in result.outputs.items() if k != "static_roi_map"})
        )
    with pytest.raises(StorageError, match="cannot be written"):
        FORMAT.write(tmp_path / "nowhere", result)


def test_a_file_of_another_program_opens(foreign: Path) -> None:
    assert formats.inspect(foreign).format == "aps-8id"
    outputs = sample_result().outputs
    multitau, twotime = read_result(foreign)
    assert multitau is not None
    assert twotime is not None
    np.testing.assert_allclose(multitau.g2, outputs["g2"].data, rtol=1e-6)
    np.testing.assert_allclose(multitau.tau, outputs["g2"].scales["tau"], rtol=1e-12)
    np.testing.assert_allclose(multitau.q, sample_qmap().dynamic_q)
    assert np.isnan(multitau.g2_partial).all()
    assert not multitau.pairs.any()
    np.testing.assert_array_equal(twotime.c2[3], outputs["c2"].data[1])
    np.testing.assert_allclose(twotime.time, np.arange(FRAMES) * STEP_S)
    with FORMAT.open(foreign) as source:
        assert source.metadata.rest["params"] == {}
        assert source.metadata.texts["sample"] == "silica 100 nm"


def test_a_file_without_what_was_measured_opens_with_delays_in_frames(foreign: Path) -> None:
    with h5py.File(foreign, "r+") as file:
        del file["entry"]
    multitau, _twotime = read_result(foreign)
    assert multitau is not None
    assert multitau.frame_time_s is None
    assert multitau.units["tau"] == "frames"
    np.testing.assert_array_equal(multitau.tau, multitau.tau_frames)
    with FORMAT.open(foreign) as source:
        assert source.metadata.rest["notes"] == ["the file does not say what was measured: it has no /entry"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("multitau/delay_list", None, "the delays of g2 are missing"),
        ("multitau/delay_list", np.arange(3), "tau has 3 values per delay, g2 has"),
        ("multitau/normalized_g2_err", np.ones((3, 6)), "g2_err has 3 values per delay"),
        ("multitau/normalized_g2", np.ones((5, 40, 6)), "g2 has shape"),
        ("multitau/normalized_g2", np.ones((38, 7)), "per delay|per bin of the qmap"),
        ("temporal_mean/scattering_2d", np.ones((1, 32, 24)), "per row"),
        ("temporal_mean/scattering_1d", np.ones((1, 5)), "per static partition"),
        ("twotime/processed_bins", np.arange(7), "2 two-time correlations for 7 bins"),
        ("twotime/correlation_map/c2_00001", np.ones((3, 4)), "square maps of one size"),
        ("twotime/normalized_g2", np.ones((4, 2)), "per frame of the two-time correlation"),
        ("qmap/dynamic_index_mapping", np.arange(4), "per bin of the qmap"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_their_names(
    foreign: Path, name: str, value: Any, message: str
) -> None:
    with h5py.File(foreign, "r+") as file:
        del file["xpcs"][name]
        if value is not None:
            file["xpcs"][name] = value
    with pytest.raises(BadFile, match=message) as caught:
        FORMAT.open(foreign)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["multitau/normalized_g2_err", "temporal_mean/scattering_1d"])
def test_a_result_with_a_part_missing_opens_but_says_what_is_missing(foreign: Path, name: str) -> None:
    with h5py.File(foreign, "r+") as file:
        del file["xpcs"][name]
    FORMAT.open(foreign).close()
    with pytest.raises(BadFile, match="is missing in the result"):
        read_result(foreign)


def test_hostile_parameters_are_made_safe(written: Path) -> None:
    with h5py.File(written, "r+") as file:
        parameters = file["entry/process/parameters"]
        parameters["escape"] = '["\\u001b[2J", {"a\\u0000": NaN}]'
        parameters["deep"] = "[" * 4000
        parameters["huge"] = np.zeros(100_000)
    params = formats.inspect(written).metadata.rest["params"]
    assert params["escape"] == ["[2J", {"a": "NaN"}]
    assert params["huge"] is None
    json.dumps(params, allow_nan=False)


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_curves_as_csv_have_units_and_every_digit(written: Path) -> None:
    outputs, qmap = sample_result().outputs, sample_qmap()
    with FORMAT.open(written) as source:
        texts = csv_of(source)
    assert set(texts) == {"g2.csv", "g2_twotime.csv", "saxs_1d.csv", "intensity.csv"}
    head, *lines = rows(texts["g2.csv"])
    q, phi = qmap.dynamic_q[0], qmap.dynamic_phi[0]
    assert head[:3] == [
        "tau (s)",
        f"g2 q={q:.6g} 1/angstrom phi={phi:.6g} deg",
        f"error q={q:.6g} 1/angstrom phi={phi:.6g} deg",
    ]
    values = np.array(lines, float)
    np.testing.assert_array_equal(values[:, 0], outputs["g2"].scales["tau"])
    np.testing.assert_array_equal(values[:, 1::2], outputs["g2"].data)
    np.testing.assert_array_equal(values[:, 2::2], outputs["g2_err"].data)
    head, *lines = rows(texts["g2_twotime.csv"])
    assert f"q={qmap.dynamic_q[2]:.6g}" in head[2]
    np.testing.assert_array_equal(np.array(lines, float)[:, 1:], outputs["g2_twotime"].data)
    head, *lines = rows(texts["saxs_1d.csv"])
    assert head[:3] == ["q (1/angstrom)", "phi (deg)", "intensity (counts/pixel/frame)"]
    np.testing.assert_array_equal(np.array(lines, float)[:, 2], outputs["saxs_1d"].data)
    head, *lines = rows(texts["intensity.csv"])
    assert head == ["frame", "time (s)", "intensity (counts/pixel/frame)"]
    assert lines[1][:2] == ["1", repr(float(STEP_S))]


def test_csv_leaves_empty_what_is_not_known(foreign: Path) -> None:
    with h5py.File(foreign, "r+") as file:
        del file["entry"], file["xpcs/qmap/dynamic_v_list_dim0"]
        file["xpcs/multitau/normalized_g2"][2, 0] = np.nan
    with FORMAT.open(foreign) as source:
        texts = csv_of(source)
    head, *lines = rows(texts["g2.csv"])
    assert head[:3] == ["tau (frames)", "g2 bin 1", "error bin 1"]
    assert lines[2][1] == ""
    assert rows(texts["intensity.csv"])[0] == ["frame", "intensity"]
