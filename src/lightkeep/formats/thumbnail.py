"""Small pictures of a result, for pages and lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Output, Result, Source

SIZE = 512
"""Pixels of the longer side; a smaller picture keeps its pixels, enlarged by a whole number."""
_CLIPPED = 0.3
"""Per cent of the values that may be black, and white: noise and hot pixels do not decide the contrast."""


class Thumbnail:
    """Writer of PNG files."""

    name: ClassVar[str] = "thumbnail"
    can_read: ClassVar[bool] = False
    can_write: ClassVar[bool] = True

    def matches(self, path: Path) -> bool:  # noqa: ARG002 -- the protocol's
        """False: pictures are only written."""
        return False

    def open(self, path: Path) -> Source:
        """Not offered."""
        raise InvalidInput(f"{path}: thumbnails are only written", remedy="open the NeXus file beside it")

    def write(self, folder: Path, result: Result) -> list[Path]:
        """Write `thumbnail.png`, and `thumbnail-<name>.png` for each further preview.

        Without previews, the middle of the default output is shown.
        """
        previews = dict(result.previews) or {result.default: middle(result.outputs[result.default])}
        first = result.default if result.default in previews else next(iter(previews))
        paths = []
        for name in sorted(previews, key=lambda name: name != first):
            paths.append(folder / ("thumbnail.png" if name == first else f"thumbnail-{name}.png"))
            picture(np.asarray(previews[name])).save(paths[-1], optimize=True)
        return paths


FORMAT = Thumbnail()


def middle(output: Output) -> NDArray[Any]:
    """Return the 2-D image in the middle of an output; a curve becomes one row."""
    data: Any = output.data
    while len(data.shape) > 2:
        data = data[data.shape[0] // 2]
    return np.atleast_2d(np.asarray(data[...]))


def picture(image: NDArray[Any], *, size: int = SIZE) -> Image.Image:
    """Return an 8-bit grey picture of a 2-D array, its longer side `size` pixels or a little less.

    Black and white are percentiles of what is inside the field of view: pixels of exactly the corner's value,
    which a reconstruction leaves around its disc, do not count. Not-a-number is black.
    """
    values = np.asarray(image, np.float32)
    inside = np.isfinite(values) & (values != values[0, 0])
    if not inside.any():
        return Image.new("L", (size, size), 128)
    low, high = np.percentile(values[inside], [_CLIPPED, 100 - _CLIPPED])
    span = float(high - low) or 1.0
    grey = np.clip((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / span, 0, 1)
    longest = max(values.shape)
    if longest > size:
        scale = size / longest
        shape = (max(1, round(values.shape[1] * scale)), max(1, round(values.shape[0] * scale)))
        scaled = Image.fromarray(grey).resize(shape, Image.Resampling.LANCZOS)
        grey = np.clip(np.asarray(scaled), 0, 1)
    else:
        grey = np.kron(grey, np.ones((size // longest,) * 2, np.float32))
    return Image.fromarray(np.rint(grey * 255).astype(np.uint8))
