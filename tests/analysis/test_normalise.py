"""Counts become line integrals as the formula says, whatever the detector did."""

from __future__ import annotations

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
