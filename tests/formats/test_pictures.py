"""TIFF stacks and thumbnails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lightkeep.formats import thumbnail, tiff_stack
from lightkeep.formats.thumbnail import picture
from lightkeep.model.errors import StorageError
from lightkeep.model.formats import Output, Result


def result_of(data: np.ndarray, **previews: np.ndarray) -> Result:
    return Result(
        "tomography",
        "T",
        {"slices": Output(data, ("row", "y", "x"))},
        "slices",
        {},
        "lightkeep 0",
        previews=previews,
    )


def test_each_slice_is_a_float32_file_in_order(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(3, 6, 5))
    paths = tiff_stack.FORMAT.write(tmp_path, result_of(data))
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        f"slices/slices_{n:05d}.tiff" for n in range(3)
    ]
    for path, expected in zip(paths, data, strict=True):
        image = tifffile.imread(path)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, expected.astype(np.float32))


def test_an_image_is_one_tiff_and_a_curve_none(tmp_path: Path) -> None:
    assert len(tiff_stack.FORMAT.write(tmp_path, result_of(np.ones((4, 4))))) == 1
    assert tiff_stack.FORMAT.write(tmp_path, result_of(np.ones(4))) == []


def test_a_stack_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices" / "slices_00000.tiff").mkdir()
    with pytest.raises(StorageError, match="slices_00000"):
        tiff_stack.FORMAT.write(tmp_path, result_of(np.ones((1, 4, 4))))


def test_the_default_preview_is_the_thumbnail(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    paths = thumbnail.FORMAT.write(tmp_path, result_of(np.ones((1, 4, 4)), centre=ramp, slices=ramp.T))
    assert [path.name for path in paths] == ["thumbnail.png", "thumbnail-centre.png"]
    with Image.open(paths[0]) as image:
        assert image.mode == "L"
        assert image.size == (512, 512)
        assert np.asarray(image)[0, 0] < np.asarray(image)[0, -1]


def test_without_previews_the_middle_slice_is_shown(tmp_path: Path) -> None:
    data = np.zeros((3, 8, 8))
    data[1, :4] = 1
    (path,) = thumbnail.FORMAT.write(tmp_path, result_of(data))
    with Image.open(path) as image:
        assert np.asarray(image)[0, 0] != np.asarray(image)[-1, 0]


@pytest.mark.parametrize("shape", [(2000, 1000), (100, 300), (3000, 500)])
def test_a_picture_keeps_its_proportions_and_its_size(shape: tuple[int, int]) -> None:
    image = picture(np.random.default_rng(1).normal(size=shape))
    assert 256 < max(image.size) <= 512
    assert image.width / image.height == pytest.approx(shape[1] / shape[0], rel=0.02)


def test_hot_pixels_and_holes_do_not_take_the_contrast() -> None:
    values = np.random.default_rng(2).normal(0, 1, (256, 256))
    values[5, 5], values[9, 9], values[7] = 1e9, -1e9, np.nan
    grey = np.asarray(picture(values, size=256))
    assert 40 < np.delete(grey, 7, axis=0).std() < 90
    assert (grey[7] == 0).all()


def test_a_constant_or_empty_picture_is_grey() -> None:
    for values in (np.zeros((8, 8)), np.full((8, 8), np.nan)):
        assert np.asarray(picture(values)).std() == 0
