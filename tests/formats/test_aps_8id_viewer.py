"""Our result files in xpcs-viewer, the program with which beamline 8-ID looks at results: the classes that it
reads with, without its window, show the numbers that were written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyxpcsviewer import XpcsFile

from lightkeep.analysis.xpcs import QMap
from lightkeep.formats.aps_8id import FORMAT
from lightkeep.model.datasets import Metadata
from lightkeep.model.formats import Result
from lightkeep.testing.xpcs_results import (
    AVERAGE,
    DIFFUSION,
    FRAME_TIME_S,
    FRAMES,
    MEASURED,
    STRIDE,
    sample_qmap,
    sample_result,
)


def shown(folder: Path, result: Result) -> XpcsFile:
    (path,) = FORMAT.write(folder, result)
    return XpcsFile(str(path))


def test_g2_errors_and_delays_are_those_of_the_result(tmp_path: Path) -> None:
    result = sample_result()
    viewer = shown(tmp_path, result)
    assert viewer.atype == ("Twotime", "Multitau")
    np.testing.assert_array_equal(viewer.g2, result.outputs["g2"].data)
    np.testing.assert_array_equal(viewer.g2_err, result.outputs["g2_err"].data)
    np.testing.assert_allclose(viewer.t_el, result.outputs["g2"].scales["tau"], rtol=1e-12)
    assert viewer.t0 == pytest.approx(FRAME_TIME_S * STRIDE * AVERAGE)
    assert viewer.start_time == "2026-11-22 09:00:00"
    assert viewer.label == "silica-7"


def test_static_outputs_are_those_of_the_result(tmp_path: Path) -> None:
    result = sample_result()
    viewer = shown(tmp_path, result)
    outputs = {name: output.data for name, output in result.outputs.items()}
    np.testing.assert_array_equal(viewer.saxs_2d, outputs["saxs_2d"])
    np.testing.assert_array_equal(viewer.saxs_1d["data_raw"].ravel(), outputs["saxs_1d"])
    np.testing.assert_array_equal(viewer.Int_t[0], np.arange(FRAMES))
    np.testing.assert_array_equal(viewer.Int_t[1], outputs["intensity"])
    assert viewer.Iqp.shape == (4, 12)
    assert viewer.Int_t_fft.shape[1] == FRAMES // 2


def test_the_static_curve_is_the_mean_over_the_azimuths_of_each_q(tmp_path: Path) -> None:
    result = sample_result(sample_qmap(static=(12, 2)))
    qmap = sample_qmap(static=(12, 2))
    viewer = shown(tmp_path, result)
    expected = [result.outputs["saxs_1d"].data[qmap.static_q == q].mean() for q in np.unique(qmap.static_q)]
    np.testing.assert_allclose(viewer.saxs_1d["q"], np.unique(qmap.static_q))
    np.testing.assert_allclose(viewer.saxs_1d["Iq"][0], expected)


def test_q_of_each_curve_and_its_label_are_those_of_the_qmap(tmp_path: Path) -> None:
    qmap = sample_qmap()
    viewer = shown(tmp_path, sample_result())
    q, t_el, g2, err, labels = viewer.get_g2_data()
    np.testing.assert_array_equal(q, qmap.dynamic_q)
    assert g2.shape == err.shape == (t_el.size, qmap.n_dynamic)
    assert labels[3] == f"qbin=4, q={qmap.dynamic_q[3]:.5f} Å⁻¹, φ={qmap.dynamic_phi[3]:.1f} deg"
    low, high = qmap.dynamic_q[2] * 0.99, qmap.dynamic_q[2] * 1.01
    _q, _t, part, _err, _labels = viewer.get_g2_data(qrange=(low, high))
    np.testing.assert_array_equal(part, sample_result().outputs["g2"].data[:, 2:4])


def test_the_map_and_the_geometry_are_those_of_the_qmap(tmp_path: Path) -> None:
    qmap = sample_qmap()
    viewer = shown(tmp_path, sample_result())
    np.testing.assert_array_equal(viewer.dqmap, qmap.dynamic)
    np.testing.assert_array_equal(viewer.sqmap, qmap.static)
    np.testing.assert_array_equal(viewer.mask, qmap.dynamic > 0)
    assert (viewer.bcx, viewer.bcy, viewer.det_dist, viewer.pixel_size) == (20.5, 11.0, 5.0, 75e-6)
    assert viewer.X_energy == pytest.approx(10.0)
    assert "q=0.0" in viewer.get_info_at_position(30, 11)


def test_two_time_correlations_are_whole_and_symmetric(tmp_path: Path) -> None:
    result = sample_result()
    viewer = shown(tmp_path, result)
    c2 = result.outputs["c2"].data
    assert viewer.c2_processed_bins.tolist() == [1, 3]
    for selection in (0, 1):
        found = viewer.get_twotime_c2(selection=selection, correct_diag=False)
        np.testing.assert_array_equal(found["c2_mat"], c2[selection])
        assert found["acquire_period"] == pytest.approx(FRAME_TIME_S * STRIDE * AVERAGE)
        np.testing.assert_array_equal(found["g2_full"], result.outputs["g2_twotime"].data[:, selection])
        segments = result.outputs["g2_twotime_segments"].data[:, :, selection]
        np.testing.assert_array_equal(found["g2_partial"], segments)
    assert viewer.get_twotime_qbin_labels()[1].startswith("qbin=3, q=")
    assert viewer.c2_t0 == pytest.approx(FRAME_TIME_S * STRIDE * AVERAGE)


def test_a_correlation_larger_than_one_stored_piece_is_whole(tmp_path: Path) -> None:
    size = 700
    c2 = np.random.default_rng(4).uniform(1, 2, (1, size, size)).astype(np.float32)
    c2 = (c2 + np.swapaxes(c2, 1, 2)) / 2
    result = sample_result(mode="twotime", bins=(2,))
    outputs = {**result.outputs, "c2": replace(result.outputs["c2"], data=c2, scales={"bin": [2]})}
    outputs["g2_twotime"] = replace(outputs["g2_twotime"], data=np.ones((size, 1)))
    (path,) = FORMAT.write(tmp_path, replace(result, outputs=outputs))
    found = XpcsFile(str(path)).get_twotime_c2(correct_diag=False)["c2_mat"]
    np.testing.assert_array_equal(found, c2[0])
    with FORMAT.open(path) as source:
        np.testing.assert_array_equal(source.arrays["c2"][0], c2[0])
        np.testing.assert_array_equal(source.arrays["c2"][:, 600:, 100:650:3], c2[:, 600:, 100:650:3])


@pytest.mark.parametrize("mode", ["multitau", "twotime"])
def test_a_result_of_one_kind_opens_too(tmp_path: Path, mode: str) -> None:
    viewer = shown(tmp_path, sample_result(mode=mode))
    assert viewer.atype == ({"multitau": "Multitau", "twotime": "Twotime"}[mode],)
    assert viewer.saxs_2d.shape == (24, 32)


def test_the_viewers_fit_finds_the_decay_though_the_last_delay_has_no_error(tmp_path: Path) -> None:
    result = sample_result(sample_qmap(dynamic=(3, 1)))
    result.outputs["g2_err"].data[-1] = np.nan  # one pair of frames: no scatter
    viewer = shown(tmp_path, result)
    np.testing.assert_allclose(viewer.g2_err[-1], viewer.g2_err[:-1].mean(axis=0))
    bounds = ([0, 1e-6, 0, 0], [1, 10, 1, 3])
    summary = viewer.fit_g2(bounds=bounds, fit_flag=[True, True, False, True], fit_func="single")
    q = sample_qmap(dynamic=(3, 1)).dynamic_q
    found = summary["fit_val"][:, 0, 1]
    np.testing.assert_allclose(found * np.square(q) * DIFFUSION, 1, rtol=0.02)


def test_where_nobody_knows_the_frame_time_the_viewer_shows_frames(tmp_path: Path) -> None:
    result = sample_result()
    frames = np.rint(np.asarray(result.outputs["g2"].scales["tau"]) / (FRAME_TIME_S * STRIDE * AVERAGE))
    outputs = dict(result.outputs)
    for name, scale in {"g2": "tau", "intensity": "frame", "c2": "t1", "g2_twotime": "delay"}.items():
        values = frames if scale == "tau" else np.arange(FRAMES)
        outputs[name] = replace(
            outputs[name], scales={**outputs[name].scales, scale: values}, scale_units={scale: "frames"}
        )
    quantities = {name: value for name, value in MEASURED.quantities.items() if name != "frame_time"}
    unknown = replace(result, outputs=outputs, metadata=Metadata(quantities, MEASURED.texts))
    viewer = shown(tmp_path, unknown)
    np.testing.assert_array_equal(viewer.tau, frames)
    np.testing.assert_array_equal(viewer.t_el, frames * STRIDE * AVERAGE)


def test_a_qmap_that_knows_nothing_but_labels_opens(tmp_path: Path) -> None:
    labels = np.arange(24 * 32).reshape(24, 32) % 5
    qmap = QMap.from_labels(labels)
    viewer = shown(tmp_path, sample_result(qmap, mode="multitau", metadata=Metadata()))
    assert viewer.g2.shape[1] == 4
