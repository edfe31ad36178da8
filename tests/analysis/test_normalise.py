"""Counts become line integrals as the formula says, whatever the detector did."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.tomography import lit_flats, normalise

Array = NDArray[np.float64]
FLOOR = 1e-4


def counts(dtype: str = "uint16") -> tuple[NDArray, NDArray, NDArray]:
    """(6, 3, 5) projections, 4 flats, 2 darks."""
    rng = np.random.default_rng(5)
    return (
        rng.integers(150, 4000, (6, 3, 5)).astype(dtype),
        rng.integers(3900, 4100, (4, 3, 5)).astype(dtype),
        rng.integers(90, 110, (2, 3, 5)).astype(dtype),
    )


def formula(projections: Array, flats: Array, darks: Array) -> Array:
    dark = darks.mean(axis=0)
    through = (projections - dark) / (flats.mean(axis=0) - dark)
    return -np.log(np.maximum(through, FLOOR)).swapaxes(0, 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "float32", "float64", ">u2"])
def test_it_is_the_formula_for_every_kind_of_counts(dtype: str) -> None:
    projections, flats, darks = (frames // 17 for frames in counts("uint16"))
    found = normalise(*(frames.astype(dtype) for frames in (projections, flats, darks)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, formula(projections, flats, darks), rtol=1e-5, atol=1e-6)


def test_no_darks_mean_a_dark_level_of_zero() -> None:
    projections, flats, darks = counts()
    np.testing.assert_allclose(
        normalise(projections, flats, darks[:0]), formula(projections, flats, 0.0 * darks), rtol=1e-5, atol=1e-6
    )


def test_a_pixel_that_no_flat_lit_gives_zero() -> None:
    projections, flats, darks = counts("float32")
    flats[:, 1, 2] = 0
    found = normalise(projections, flats, darks)
    assert not found[1, :, 2].any()
    assert np.isfinite(found).all()
    assert found[0].any()


def test_counts_that_are_not_numbers_give_zero() -> None:
    projections, flats, darks = counts("float32")
    projections[0, 0, :3] = np.nan, np.inf, -np.inf
    found = normalise(projections, flats, darks)
    assert found[0, 0].tolist()[:3] == [0, 0, 0]
    assert np.isfinite(found).all()


def test_no_transmission_is_believed_below_the_floor() -> None:
    projections, flats, darks = counts()
    projections[2] = 0
    np.testing.assert_allclose(normalise(projections, flats, darks)[:, 2], -np.log(FLOOR), rtol=1e-6)


def test_more_light_than_the_open_beam_is_a_negative_line_integral() -> None:
    projections, flats, darks = counts()
    projections[0, 0, 0] = 8000
    assert normalise(projections, flats, darks)[0, 0, 0] < 0


def test_a_selection_of_rows_and_an_output_in_place() -> None:
    projections, flats, darks = counts()
    out = np.empty((2, 6, 5), np.float32)
    assert normalise(projections[:, 1:], flats[:, 1:], darks[:, 1:], out=out) is out
    np.testing.assert_array_equal(out, normalise(projections, flats, darks)[1:])


def test_zero_flats_and_flats_without_beam_are_refused() -> None:
    projections, flats, darks = counts()
    with pytest.raises(ValueError, match="no flat"):
        normalise(projections, flats[:0], darks)
    with pytest.raises(ValueError, match="no beam"):
        normalise(projections, np.repeat(darks, 2, axis=0) // 2, darks)
    with pytest.raises(ValueError, match="pixels"):
        normalise(projections, flats[:, :2], darks)
    with pytest.raises(ValueError, match="angles, rows, columns"):
        normalise(projections[0], flats, darks)


def test_flats_taken_with_the_shutter_closed_are_told_from_the_others() -> None:
    _, flats, darks = counts()
    flats[1], flats[3] = darks[0], darks[1]
    np.testing.assert_array_equal(lit_flats(flats, darks), [True, False, True, False])
    assert not lit_flats(darks, darks).any()
    assert lit_flats(flats[:0], darks).shape == (0,)
    assert lit_flats(flats[:1], darks[:0]).all()


def test_flats_before_and_after_are_interpolated() -> None:
    projections, flats, darks = counts("float64")
    level, before, after = darks.mean(axis=0), flats[:2].mean(axis=0), 0.7 * flats[2:].mean(axis=0)
    flats[2:] *= 0.7
    found = normalise(projections, flats, darks, flats_at=[0, 0, 6, 6])
    for angle, share in enumerate(np.arange(6) / 6):
        beam = (1 - share) * before + share * after
        expected = -np.log((projections[angle] - level) / (beam - level))
        np.testing.assert_allclose(found[:, angle], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="3 numbers for 4 flats"):
        normalise(projections, flats, darks, flats_at=[0, 0, 6])


def test_stray_photons_go_and_nothing_else_does() -> None:
    rng = np.random.default_rng(8)
    clean = 1000.0 + 50 * np.sin(np.arange(64)) + rng.normal(0, 5, (6, 3, 64))
    flats, none = np.full((2, 3, 64), 2000.0), np.zeros((0, 3, 64))
    struck = clean.copy()
    for at in ((0, 0, 0), (1, 1, 20), (1, 1, 21), (2, 2, 63), (5, 0, 40)):
        struck[at] *= 4
    without, truth = normalise(struck, flats, none, zingers=0.5), normalise(clean, flats, none)
    np.testing.assert_array_equal(without == truth, (struck == clean).swapaxes(0, 1))
    np.testing.assert_allclose(without, truth, atol=0.15)
    np.testing.assert_array_equal(normalise(clean, flats, none, zingers=0.5), truth)


def test_air_at_the_edges_takes_out_the_beams_flicker() -> None:
    sample = np.exp(-np.exp(-((np.arange(64) - 31.5) ** 2) / 50))
    flicker = np.array([1.0, 0.8, 1.1])[:, None, None] * np.linspace(1, 1.1, 64)
    flats = np.full((2, 1, 64), 5000.0)
    found = normalise(5000 * flicker * sample, flats, flats[:0], air=8)
    np.testing.assert_allclose(found[0], np.tile(-np.log(sample), (3, 1)), atol=1e-3)
    with pytest.raises(ValueError, match="leave nothing of 64 columns"):
        normalise(5000 * flicker * sample, flats, flats[:0], air=32)


def test_the_transmission_is_what_the_logarithm_is_of() -> None:
    projections, flats, darks = counts()
    through = normalise(projections, flats, darks, log=False)
    np.testing.assert_allclose(-np.log(through), normalise(projections, flats, darks), atol=1e-6)


def test_any_number_of_threads_and_any_piece_give_the_same_bytes() -> None:
    projections, flats, darks = counts()
    options = {"flats_at": [0, 0, 6, 6], "zingers": 0.3, "air": 1}
    whole = normalise(projections, flats, darks, **options)
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(normalise(projections, flats, darks, **options), whole)
    finally:
        numba.set_num_threads(threads)
    piece = normalise(projections[:, 1:2], flats[:, 1:2], darks[:, 1:2], **options)
    np.testing.assert_array_equal(piece[0], whole[1])
