"""Tomography as a technique: what it derives from a scan, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis import simulate
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Source
from lightkeep.techniques import tomography
from lightkeep.testing.beamline import simulate_tomography
from lightkeep.testing.suites.technique import TechniqueSuite, source_of

SIZE, ROWS, CENTER = 64, 7, 35.2


def scan(*, columns: int = SIZE, rows: int = ROWS, angles: int = 90) -> dict[str, Any]:
    """The arrays of a small scan of the head."""
    made = simulate.tomography_scan(
        simulate.shepp_logan(),
        np.arange(angles) * 180 / angles,
        rows=rows,
        columns=columns,
        rng=np.random.default_rng(9),
        center=CENTER,
        i0=4e4,
    )
    return {
        "projections": made.projections,
        "flats": made.flats,
        "darks": made.darks,
        "theta_deg": made.theta_deg,
    }


def changed(folder: Path, **arrays: Any) -> Source:
    return source_of(folder, **{**SCAN, **arrays})


def slices(source: Source, **params: Any) -> np.ndarray:
    found = tomography.preflight(source, tomography.Params(**params))
    in_force = tomography.Params(**found.params)
    outputs = tomography.run(source, in_force, lambda _fraction, _text: None, 0, found.length)
    return outputs["slices"]


SCAN = scan()


class TestTomography(TechniqueSuite):
    name = "tomography"

    def example(self, folder: Path) -> Source:
        return source_of(folder, **SCAN)

    def unusable(self, folder: Path) -> Sequence[Source]:
        return [
            changed(folder, flats=SCAN["flats"][:0]),
            changed(folder, flats=SCAN["darks"]),
            changed(folder, theta_deg=SCAN["theta_deg"][:-1]),
            changed(folder, projections=SCAN["projections"][:7], theta_deg=SCAN["theta_deg"][:7]),
            changed(folder, projections=SCAN["projections"][:0], theta_deg=SCAN["theta_deg"][:0]),
            changed(folder, theta_deg=np.full(90, np.nan)),
        ]


def test_angles_that_are_not_numbers_are_refused_also_when_the_axis_is_known(tmp_path: Path) -> None:
    source = changed(tmp_path, theta_deg=np.where(np.arange(90) == 4, np.nan, SCAN["theta_deg"]))
    with pytest.raises(InvalidInput, match="89 angles for 90 projections"):
        tomography.preflight(source, tomography.Params(center=CENTER))


def test_the_head_comes_out_at_its_place(tmp_path: Path) -> None:
    source = source_of(tmp_path, **SCAN)
    found = tomography.preflight(source, tomography.Params())
    assert found.params["center"] == pytest.approx(CENTER, abs=0.2)
    truth = simulate.shepp_logan().slices(SIZE)[0]
    image = slices(source)[3]
    inside = np.hypot(*np.meshgrid(*[np.arange(SIZE) - (SIZE - 1) / 2] * 2)) < 0.9 * SIZE / 2
    assert np.corrcoef(image[inside], truth[inside])[0, 1] > 0.93


def test_selected_rows_are_the_same_as_in_the_whole(tmp_path: Path) -> None:
    source = source_of(tmp_path, **SCAN)
    whole = slices(source, center=CENTER)
    np.testing.assert_array_equal(slices(source, center=CENTER, row_begin=2, row_end=6), whole[2:6])
    # A pair that is made of other rows shares rounding with another partner.
    np.testing.assert_allclose(slices(source, center=CENTER, row_begin=3, row_end=4)[0], whole[3], atol=2e-4)


@pytest.mark.parametrize(("rows", "columns"), [(1, 64), (2, 65), (3, 96)])
def test_any_shape_of_detector_will_do(tmp_path: Path, rows: int, columns: int) -> None:
    image = slices(source_of(tmp_path, **scan(rows=rows, columns=columns)))
    assert image.shape == (rows, columns, columns)
    assert np.isfinite(image).all()
    assert image.any()


def test_empty_flats_are_left_out_and_said(tmp_path: Path) -> None:
    flats = np.concatenate([SCAN["flats"], SCAN["darks"][:4]])
    source = changed(tmp_path, flats=flats)
    found = tomography.preflight(source, tomography.Params())
    assert list(found.warnings) == ["4 of 24 flats are empty and were left out"]
    np.testing.assert_array_equal(
        slices(source, center=CENTER), slices(source_of(tmp_path, **SCAN), center=CENTER)
    )


def test_no_darks_and_counts_that_are_not_numbers_give_finite_slices(tmp_path: Path) -> None:
    projections = SCAN["projections"].astype(np.float32)
    projections[5, :, 20] = np.nan
    assert np.isfinite(slices(changed(tmp_path, projections=projections, darks=SCAN["darks"][:0]))).all()


def test_angles_may_be_given(tmp_path: Path) -> None:
    without = changed(tmp_path, theta_deg=np.zeros(90))
    given = slices(without, theta_step_deg=2.0, theta_start_deg=0, center=CENTER)
    np.testing.assert_array_equal(given, slices(source_of(tmp_path, **SCAN), center=CENTER))


@pytest.mark.parametrize(
    "params", [{"theta_step_deg": -1}, {"theta_step_deg": 0}, {"center": -3}, {"pad": 9}, {"window": "hat"}]
)
def test_a_parameter_out_of_range_is_named(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(params))):
        tomography.Params(**params)


@pytest.mark.parametrize(
    "params", [{"center": 64}, {"row_begin": 7}, {"row_begin": 4, "row_end": 4}, {"row_end": 8}]
)
def test_what_is_not_on_the_detector_is_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="detector") as caught:
        tomography.preflight(source_of(tmp_path, **SCAN), tomography.Params(**params))
    assert caught.value.remedy


def test_a_pixel_size_makes_it_a_coefficient_per_centimetre(tmp_path: Path) -> None:
    source = source_of(tmp_path, **SCAN)
    found = tomography.preflight(source, tomography.Params(pixel_size_um=2.5))
    assert found.units == {"slices": "1/cm"}
    np.testing.assert_allclose(
        slices(source, center=CENTER, pixel_size_um=2.5), slices(source, center=CENTER) / 2.5e-4, rtol=1e-6
    )


def test_a_preview_is_labelled_as_one(tmp_path: Path) -> None:
    source = source_of(tmp_path, **SCAN)
    found = tomography.preflight(source, tomography.Params(center=CENTER, accuracy="preview"))
    assert any("preview" in warning for warning in found.warnings)
    assert not tomography.preflight(source, tomography.Params(center=CENTER)).warnings


@pytest.mark.parametrize(
    "params", [{"method": "fbp"}, {"method": "cgls", "iterations": 12}, {"method": "tv", "tv_weight": 1e-4}]
)
def test_every_method_gives_the_head(tmp_path: Path, params: dict[str, Any]) -> None:
    source = source_of(tmp_path, **SCAN)
    usual, other = slices(source, center=CENTER), slices(source, center=CENTER, **params)
    assert np.corrcoef(usual.ravel(), other.ravel())[0, 1] > 0.9
    assert not np.array_equal(usual, other)


def test_the_mask_clears_the_corners(tmp_path: Path) -> None:
    source = source_of(tmp_path, **SCAN)
    assert slices(source, center=CENTER)[0, 0, 0] == 0
    assert slices(source, center=CENTER, mask=False)[0, 0, 0] != 0


def test_a_piece_fits_the_memory_and_a_smaller_one_gives_the_same_bytes(tmp_path: Path) -> None:
    source = source_of(tmp_path, **scan(rows=40))
    free = tomography.preflight(source, tomography.Params(center=CENTER))
    tight = tomography.preflight(source, tomography.Params(center=CENTER, memory_gb=0.9e-9 * free.memory_bytes))
    assert tight.piece < free.piece
    assert tight.memory_bytes <= 0.9 * free.memory_bytes
    params = tomography.Params(**tight.params)
    whole = slices(source, center=CENTER)
    for begin in range(0, 40, tight.piece):
        end = min(begin + tight.piece, 40)
        part = tomography.run(source, params, lambda _fraction, _text: None, begin, end)["slices"]
        np.testing.assert_array_equal(part, whole[begin:end])


def test_too_little_memory_is_refused_with_the_least_that_works(tmp_path: Path) -> None:
    source = source_of(tmp_path, **SCAN)
    with pytest.raises(InvalidInput, match="memory too small") as caught:
        tomography.preflight(source, tomography.Params(center=CENTER, memory_gb=1e-4))
    named = re.search(r"memory_gb ([0-9.]+) or more", caught.value.remedy)
    assert named
    found = tomography.preflight(source, tomography.Params(center=CENTER, memory_gb=float(named[1])))
    assert found.memory_bytes <= 1e9 * float(named[1])


@pytest.mark.parametrize(
    ("threads", "options", "least"),
    [(1, {}, 0.7), (1, {"stripes": "vo", "tilt_deg": 0.5, "rings": True}, 0.5), (2, {}, 0.3)],
)
def test_a_run_never_takes_more_memory_than_it_said(threads: int, options: dict[str, Any], least: float) -> None:
    """Measured by the kernel in a process of its own, on a scan whose counts are made when they are read.

    Of one thread it is the same each time; how much two take depends on how they meet.
    """
    out = subprocess.run(
        [sys.executable, Path(__file__).with_name("peak_memory.py"), "360", "32", "512", json.dumps(options)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_NUM_THREADS": str(threads)},
    )
    said, taken = map(int, out.stdout.split())
    assert least * said < taken < said, (said, taken)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ("ome-zarr", ["nexus", "ome-zarr", "thumbnail"]),
        ("tiff", ["nexus", "tiff-stack", "thumbnail"]),
        ("none", ["nexus", "thumbnail"]),
        ("all", ["nexus", "ome-zarr", "tiff-stack", "thumbnail"]),
    ],
)
def test_the_files_are_chosen(outputs: Any, expected: list[str]) -> None:
    assert tomography.results(tomography.Params(outputs=outputs)) == expected


def test_what_was_left_out_of_the_flats_is_recorded(tmp_path: Path) -> None:
    flats = np.concatenate([SCAN["darks"][:2], SCAN["flats"]])
    found = tomography.preflight(changed(tmp_path, flats=flats), tomography.Params(center=CENTER))
    assert found.facts["flats_left_out"] == [0, 1]


def test_a_scan_with_flaws_over_a_full_turn_is_prepared_stitched_and_true(tmp_path: Path) -> None:
    truth = simulate_tomography(
        tmp_path / "half.h5",
        size=64,
        rows=3,
        angles=240,
        turn_deg=360.0,
        center_offset=22.3,
        flats_after=20,
        flaws=simulate.Flaws(zingers=1e-3, beam_drift=0.3),
        i0=5e4,
    )
    options = {"half_acquisition": True, "flats_after": 20, "zingers": 0.5, "window": "hann"}
    with formats.get("data-exchange").open(truth.path) as source:
        found = tomography.preflight(source, tomography.Params(**options))
        params = tomography.Params(**found.params)
        assert params.center == pytest.approx(truth.center, abs=0.3)
        slices = tomography.run(source, params, lambda *_: None, 0, 3)["slices"]
        phase = tomography.preflight(source, tomography.Params(**options, delta_beta=20.0))
        assert phase.params["energy_kev"] == 27.4
        assert phase.params["distance_mm"] == 40
        with pytest.raises(InvalidInput, match="another unit"):
            tomography.preflight(source, tomography.Params(**options, delta_beta=20.0, energy_kev=27400))
    assert slices.shape == found.shapes["slices"]
    expected = truth.slices() * 1e4 / params.pixel_size_um
    size = min(slices.shape[1], expected.shape[1])
    ours, theirs = (stack[1, :size, :size] for stack in (slices, expected))
    inside = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2)) < 0.9 * size / 2
    assert np.corrcoef(ours[inside], theirs[inside])[0, 1] > 0.8
    assert ours[inside].mean() == pytest.approx(theirs[inside].mean(), rel=0.05)


def test_half_acquisition_needs_a_full_turn(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="these angles span 178"):
        tomography.preflight(changed(tmp_path), tomography.Params(half_acquisition=True))


@pytest.mark.parametrize("stripes", ["vo", "wavelet"])
def test_stripes_and_rings_are_removed_when_asked(tmp_path: Path, stripes: str) -> None:
    source = changed(tmp_path)
    plain, cleaned = (
        tomography.run(source, tomography.Params(center=CENTER, **options), lambda *_: None, 0, 2)["slices"]
        for options in ({}, {"stripes": stripes, "rings": True})
    )
    assert np.corrcoef(plain.ravel(), cleaned.ravel())[0, 1] > 0.8
    assert (plain != cleaned).any()


def test_an_axis_that_leans_is_said_and_turned_upright(tmp_path: Path) -> None:
    """Slices of the whole scan, of rows far from the middle, and in pieces."""
    options = {"size": 64, "rows": 40, "angles": 120, "i0": 5e4, "center_offset": 2.0, "seed": 4}
    truth = simulate_tomography(tmp_path / "straight.h5", **options)
    simulate_tomography(tmp_path / "leans.h5", flaws=simulate.Flaws(tilt_deg=3.0), **options)
    with formats.get("data-exchange").open(truth.path) as source:
        straight = tomography.preflight(source, tomography.Params())
        assert not any("lean" in warning for warning in straight.warnings)
        assert abs(straight.facts["tilt_deg_seen"]) < 0.1
    with formats.get("data-exchange").open(tmp_path / "leans.h5") as source:
        told = tomography.preflight(source, tomography.Params())
        assert any("tilt_deg 3.0" in warning or "tilt_deg 2.9" in warning for warning in told.warnings)
        assert told.facts["tilt_deg_seen"] == pytest.approx(3.0, abs=0.1)
        found = tomography.preflight(source, tomography.Params(tilt_deg=3.0))
        assert found.params["center"] == pytest.approx(truth.center, abs=0.3)
        whole, plain = slices(source, tilt_deg=3.0, window="hann"), slices(source, window="hann")
        params = tomography.Params(**{**found.params, "window": "hann"})
        part = tomography.run(source, params, lambda *_: None, 30, 36)["slices"]
        np.testing.assert_array_equal(part, whole[30:36])
    expected = truth.slices() * 1e4 / found.params["pixel_size_um"]
    like = [np.corrcoef(each[38].ravel(), expected[38].ravel())[0, 1] for each in (whole, plain)]
    assert like[0] > max(0.9, like[1] + 0.01), like


def test_the_order_of_the_flats_in_the_file_says_how_the_beam_drifted(tmp_path: Path) -> None:
    made = simulate.tomography_scan(
        simulate.shepp_logan(), np.arange(90) * 2.0, rows=4, columns=64, rng=np.random.default_rng(2),
        center=CENTER, i0=4e4, flats_after=20, flaws=simulate.Flaws(beam_drift=0.3),
    )  # fmt: skip
    arrays = {
        "projections": made.projections,
        "flats": made.flats,
        "darks": made.darks,
        "theta_deg": made.theta_deg,
    }
    ordered = source_of(tmp_path, **arrays, flats_at=made.flats_at)
    told = slices(source_of(tmp_path, **arrays), center=CENTER, flats_after=20)
    np.testing.assert_array_equal(slices(ordered, center=CENTER), told)
    assert not np.array_equal(slices(ordered, center=CENTER, flats_after=0), told)
