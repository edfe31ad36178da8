"""Correlation results as data."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyxpcsviewer import XpcsFile
from starlette.testclient import TestClient

from lightkeep import formats
from lightkeep.testing import xpcs_results
from lightkeep.testing.correlated import BINS, EXPERIMENT, Correlated
from lightkeep.testing.populated import Populated
from lightkeep.testing.xpcs_results import DIFFUSION, FRAMES, SHAPE, decay, sample_qmap

QMAP = sample_qmap(dynamic=(6, 1), static=(12, 2))


@pytest.fixture
def ask(member: TestClient, correlated: Correlated) -> Any:
    """Return what asks for a part of the first result."""

    def asked(part: str = "", status: int = 200, **params: Any) -> Any:
        answer = member.get(f"/api/v1/datasets/{correlated.first.id}/xpcs{part}", params=params)
        assert answer.status_code == status, answer.text
        return answer.json()

    return asked


def _array(given: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(given["bdata"]), f"<{given['dtype']}").reshape(given["shape"])


def test_curves_are_those_of_the_file(ask: Any) -> None:
    found = ask()
    q = np.array(found["q"])
    assert found["bins"] == [1, 2, 3, 4, 5, 6]
    assert np.allclose(q, QMAP.dynamic_q, rtol=1e-6)
    expected = decay(np.array(found["tau"])[None, :], q[:, None])
    assert np.abs(np.array(found["g2"]) - expected).max() < 1e-3  # five times the noise
    assert found["two_time_bins"] == list(BINS)
    assert (found["time_unit"], found["frames"], found["together"]) == ("s", FRAMES, 1)


def test_flags_of_the_result_are_told(ask: Any) -> None:
    assert "2 frames were left out" in ask()["flags"]


def test_partitions_of_one_ring_are_one_point_of_the_static_curve(ask: Any) -> None:
    """There are 12 rings of 2 wedges; the curve is exp(-50 q), the same in both."""
    found = ask()
    assert len(found["saxs_q"]) == 12
    assert np.allclose(
        found["saxs_1d"], 100 * np.exp(-50 * np.array(found["saxs_q"])), rtol=2e-3
    )  # wedges differ in q
    assert [len(part) for part in found["saxs_1d_segments"]] == [12] * 4


def test_the_image_says_of_every_pixel_where_it_is(ask: Any) -> None:
    found = ask("/image")
    assert (found["rows"], found["columns"], found["factor"]) == (*SHAPE, 1)
    assert np.array_equal(_array(found["bins"]), np.where(QMAP.mask, QMAP.dynamic, 0))
    assert np.isnan(_array(found["values"])[~np.asarray(QMAP.mask, bool)]).all()
    assert found["beam"] == [20.5, 11.0]
    row, column = np.unravel_index(_array(found["q"]).argmin(), SHAPE)
    assert abs(row - 11) <= 1
    assert abs(column - 20.5) <= 1


@pytest.mark.parametrize("model", ["single", "stretched"])
def test_the_law_of_diffusion_is_found(ask: Any, model: str) -> None:
    found = ask("/fit", model=model, baseline=1)
    assert abs(found["law"]["exponent"] - 2) < 4 * found["law"]["exponent_err"]
    tau, q, good = (np.array(each) for each in (found["values"]["tau_c"], ask()["q"], found["is_good"]))
    assert np.allclose(tau[good], 1 / (DIFFUSION * q[good] ** 2), rtol=0.05)  # noise of 1/1000 of the contrast


@pytest.mark.parametrize("model", ["single", "stretched", "double"])
def test_every_fit_that_is_not_good_says_why(ask: Any, model: str) -> None:
    found = ask("/fit", model=model)
    assert [bool(reason) for reason in found["reason"]] == [not is_good for is_good in found["is_good"]]
    assert not found["is_good"][0]  # the first bin decays later than it was measured
    assert len(found["curve"]) == 6


def test_the_law_can_be_bound_to_some_q(ask: Any) -> None:
    q = ask()["q"]
    bound = ask("/fit", q_low=q[2] * 0.99, q_high=q[4] * 1.01)["law"]["q"]
    assert (bound[0], bound[-1]) == (pytest.approx(q[2]), pytest.approx(q[4]))


def test_where_no_two_fits_are_left_it_says_why_there_is_no_law(ask: Any) -> None:
    found = ask("/fit", q_low=1.0)
    assert found["law"] is None
    assert "0 of 6 fits" in found["no_law"]


def test_a_two_time_map_comes_without_its_shot_noise(ask: Any) -> None:
    found = ask(f"/two-time/{BINS[0]}")
    map_ = _array(found["values"])
    q = ask()["q"][BINS[0] - 1]
    time = np.arange(FRAMES) * found["step"]
    expected = decay(np.abs(time[:, None] - time), q)
    off = ~np.eye(FRAMES, dtype=bool)
    assert np.allclose(map_[off], expected[off], atol=1e-6)
    assert np.allclose(np.diagonal(map_), np.diagonal(map_, 1)[0], atol=1e-6)


def test_cuts_of_a_sample_that_does_not_age_are_alike_at_every_age(ask: Any) -> None:
    step = ask(f"/two-time/{BINS[0]}")["step"]
    run = FRAMES * step
    early, late = ask(f"/two-time/{BINS[0]}/cuts", age=[run / 4, 3 * run / 4], width=run / 8)
    q = ask()["q"][BINS[0] - 1]
    for found in (early, late):
        assert len(found["tau"]) > FRAMES / 4
        assert np.allclose(found["g2"], decay(np.array(found["tau"]), q), atol=1e-6)


def test_a_bin_without_a_two_time_map_is_named(ask: Any) -> None:
    assert "1, 3 have" in ask("/two-time/2", status=404)["detail"]


def test_tables_have_a_row_for_each_point(member: TestClient, correlated: Correlated, ask: Any) -> None:
    address = f"/api/v1/datasets/{correlated.first.id}/xpcs"
    for name, rows in {
        "g2": len(ask()["tau"]),
        "intensity": FRAMES,
        "saxs_1d": QMAP.n_static,
        "g2_twotime": FRAMES,
    }.items():
        answer = member.get(f"{address}/{name}.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        assert len(list(csv.reader(io.StringIO(answer.text)))) == rows + 1
    assert f"silica-1-xpcs-{name}.csv" in answer.headers["content-disposition"]


def test_an_average_leaves_out_the_run_that_does_not_belong(member: TestClient, correlated: Correlated) -> None:
    address = f"/api/v1/experiments/{EXPERIMENT}/xpcs/average"
    found = member.get(address, params={"result": [each.id for each in correlated.runs]}).json()
    assert [each["is_used"] for each in found["runs"]] == [True, True, True, False]
    assert "contrast" in found["runs"][3]["reason"]
    mean = found["mean"]
    expected = decay(np.array(mean["tau"])[None, :], np.array(mean["q"])[:, None])
    assert np.abs(np.array(mean["g2"]) - expected).std() < 1.5e-4  # noise of 2e-4, three runs
    kept = member.get(address, params={"result": [each.id for each in correlated.runs], "outliers": "none"}).json()
    assert all(each["is_used"] for each in kept["runs"])


def test_an_average_is_a_result_file_that_the_viewer_of_the_beamline_opens(
    member: TestClient, correlated: Correlated, tmp_path: Path
) -> None:
    address = f"/api/v1/experiments/{EXPERIMENT}/xpcs/average"
    asked = {"result": [each.id for each in correlated.runs]}
    mean = member.get(address, params=asked).json()["mean"]
    answer = member.get(f"{address}.hdf", params=asked)
    assert "silica-1-xpcs-average_results.hdf" in answer.headers["content-disposition"]
    path = tmp_path / "average_results.hdf"
    path.write_bytes(answer.content)
    viewer = XpcsFile(str(path))
    _q, tau, g2, error, _labels = viewer.get_g2_data()
    np.testing.assert_allclose(g2.T, mean["g2"], rtol=1e-6)
    np.testing.assert_allclose(error.T, mean["g2_err"], rtol=1e-6)
    np.testing.assert_allclose(tau, mean["tau"], rtol=1e-6)
    np.testing.assert_array_equal(viewer.dqmap, QMAP.dynamic)
    assert viewer.saxs_2d.shape == SHAPE
    with formats.get("aps-8id").open(path) as source:
        flags = source.metadata.rest["flags"]
        assert flags[0] == "This is the mean of 3 runs."
        assert flags[1].startswith("silica-4-xpcs was left out: ")
        assert "contrast" in flags[1]
        images = [xpcs_results.sample_result(QMAP, seed=seed).outputs["saxs_2d"].data for seed in (1, 2, 3)]
        np.testing.assert_allclose(source.arrays["saxs_2d"][...], np.mean(images, axis=0), rtol=1e-6)
    rows = list(csv.reader(io.StringIO(member.get(f"{address}.csv", params=asked).text)))
    assert len(rows) == len(mean["tau"]) + 1
    assert float(rows[1][1]) == pytest.approx(mean["g2"][0][0], rel=1e-6)


def test_an_average_takes_results_of_its_experiment_only(
    member: TestClient, house: Populated, correlated: Correlated
) -> None:
    address = f"/api/v1/experiments/{house.raw.experiment_id}/xpcs/average"
    assert member.get(address, params={"result": correlated.first.id}).status_code == 404
    address = f"/api/v1/experiments/{EXPERIMENT}/xpcs/average"
    assert member.get(address, params={"result": house.result.id}).status_code == 404
    assert member.get(f"{address}.hdf", params={"result": house.result.id}).status_code == 404


def test_what_is_no_correlation_result_says_so(member: TestClient, house: Populated) -> None:
    answer = member.get(f"/api/v1/datasets/{house.raw.id}/xpcs")
    assert answer.status_code == 404
    assert answer.json()["remedy"]


def test_the_picture_of_a_result_is_its_scattering_in_logarithms(
    member: TestClient, correlated: Correlated
) -> None:
    stack = member.get(f"/api/v1/datasets/{correlated.first.id}/preview").json()
    assert (stack["role"], stack["count"], stack["height"], stack["width"]) == ("saxs_2d", 1, *SHAPE)
    assert 0 <= stack["low"] < stack["high"] <= 2  # 1 to 100 counts
