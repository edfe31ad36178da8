"""Pictures of a dataset's main array. Runs in the killable process: it opens files that came from outside."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightkeep import formats
from lightkeep.formats import hdf5, nexus
from lightkeep.model.errors import BadFile, NotFound
from lightkeep.model.formats import Array, Source

_SCATTERING = "saxs_2d"
"""The mean image of a correlation: drawn by its logarithm, as counts span decades."""
_ROLES = ("frames", "projections", _SCATTERING)
_SAMPLES = 5
_SAMPLE_PIXELS = 40_000
_PERCENTILES = (0.5, 99.5)
_REFERENCES = 8
_FLAT = 16
"""A projection this much wider than high is a line: its sinogram shows more."""
_DARKEST = 1e-3
"""Transmission below this is noise."""
_LARGEST = 64_000_000
"""Pixels of one image: more is no picture but a bomb."""
# Ten anchors each of matplotlib's maps (CC0), perceptually even.
PALETTES = {
    "grey": ("000000", "ffffff"),
    "viridis": [
        "440154",
        "482878",
        "3e4989",
        "31688e",
        "26828e",
        "1f9e89",
        "35b779",
        "6ece58",
        "b5de2b",
        "fde725",
    ],
    "magma": (
        *("000004", "180f3d", "440f76", "721f81", "9e2f7f"),
        *("cd4071", "f1605d", "fd9668", "feca8d", "fcfdbf"),
    ),
}


def describe(path: Path, format_name: str) -> dict[str, Any]:
    """Return the fields of `preview.Stack`: what there is to look at.

    Raises
    ------
    NotFound: nothing in the file is an image. BadFile, UnsafeFile: as the format says.
    """
    with _opened(path, format_name) as images:
        indices = np.unique(np.linspace(0, images.count - 1, _SAMPLES + 2).round().astype(int)[1:-1])
        sample = np.concatenate([_thinned(images.image(int(index))) for index in indices])
        sample = sample[np.isfinite(sample)]
        low, high = np.percentile(sample, _PERCENTILES) if sample.size else (0.0, 1.0)
        return {
            "role": images.role,
            "count": images.count,
            "height": images.shape[0],
            "width": images.shape[1],
            "dtype": images.dtype,
            "label": images.label,
            "unit": images.unit,
            "steps": tuple(step.value for step in images.steps),
            "step_unit": images.steps[0].unit,
            "low": float(low),
            "high": float(high if high > low else low + 1.0),
        }


def render(
    path: Path, format_name: str, *, index: int, low: float, high: float, palette: str, longest: int
) -> bytes:
    """Return one image as PNG.

    Parameters
    ----------
    index: 0 to count - 1.
    low, high: values drawn as the first and the last colour.
    longest: pixels of the longer side; a larger image is reduced by means over boxes.

    Raises
    ------
    NotFound: there is no such image.
    """
    with _opened(path, format_name) as images:
        if not 0 <= index < images.count:
            raise NotFound(f"image {index} does not exist: there are {images.count}")
        values = images.image(index)
    scaled = np.nan_to_num((values - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    grey = Image.fromarray((np.clip(scaled, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
    ratio = longest / max(grey.size)
    if ratio < 1.0:
        size = (max(1, round(grey.width * ratio)), max(1, round(grey.height * ratio)))
        grey = grey.resize(size, Image.Resampling.BOX)
    if palette != "grey":
        grey = grey.convert("P")
        grey.putpalette(colours(palette).tobytes())
    out = io.BytesIO()
    grey.save(out, "PNG", compress_level=4)
    return out.getvalue()


def colours(palette: str) -> NDArray[np.uint8]:
    """Return (256, 3) sRGB colours of a palette.

    >>> colours("grey")[255].tolist()
    [255, 255, 255]
    """
    anchors = np.array([list(bytes.fromhex(each)) for each in PALETTES[palette]], float)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


class _Images:
    """The images of a source: frames; projections as absorption where flats are there; sinograms of a few rows."""

    def __init__(self, source: Source) -> None:
        self.role, self._array = _main(source)
        shape = self._array.shape
        self._is_sinogram = self.role == "projections" and len(shape) == 3 and shape[1] * _FLAT < shape[2]
        if self._is_sinogram:
            self.role, shape = "sinogram", (shape[1], shape[0], shape[2])
        *stack, height, width = shape
        self.shape = (height, width)
        self.steps = nexus.steps(None if self._is_sinogram else self._array)
        self._stack = tuple(stack)
        self.count = int(np.prod(stack, dtype=np.int64))
        self.dtype = str(self._array.dtype)
        attributes = getattr(self._array, "attrs", {})
        self.unit = _text(attributes.get("units"))
        self.label = _text(attributes.get("long_name")).removesuffix(f"({self.unit})").strip() or self.role
        if self.role == _SCATTERING:
            self.unit, self.label = "", "log\u2081\u2080 of mean counts"
        self._gain: NDArray[np.float32] | None = None
        self._dark: NDArray[np.float32] | float = 0.0
        flats, darks = source.arrays.get("flats"), source.arrays.get("darks")
        if self.role in ("projections", "sinogram") and flats is not None and flats.shape[0]:
            if darks is not None and darks.shape[0]:
                self._dark = np.asarray(darks[:_REFERENCES], np.float32).mean(axis=0)
            flat = np.median(np.asarray(flats[:_REFERENCES], np.float32), axis=0) - self._dark
            self._gain = 1.0 / np.maximum(flat, 1.0)
            self.unit, self.label = "", "\u2212ln(I / I\u2080)"

    def image(self, index: int) -> NDArray[np.float32]:
        where = np.unravel_index(index, self._stack) if self._stack else ()
        at = tuple(int(each) for each in where)
        values = np.asarray(self._array[:, at[0]] if self._is_sinogram else self._array[at], np.float32)
        if self.role == _SCATTERING:
            lit = values[values > 0]
            least = lit.min() if lit.size else np.float32(1.0)
            return np.asarray(np.log10(np.maximum(values, least)), np.float32)
        if self._gain is None:
            return values
        dark, gain = self._dark, self._gain
        if self._is_sinogram:
            dark, gain = (dark[at[0]] if isinstance(dark, np.ndarray) else dark), gain[at[0]]
        transmission = np.maximum((values - dark) * gain, _DARKEST)
        absorption: NDArray[np.float32] = -np.log(transmission, dtype=np.float32)
        return absorption


@contextmanager
def _opened(path: Path, format_name: str) -> Iterator[_Images]:
    with formats.get(format_name).open(path) as source, hdf5.reading(path):
        yield _Images(source)


def _main(source: Source) -> tuple[str, Array]:
    names = [*_ROLES, *sorted(source.arrays)]
    for name in names:
        array = source.arrays.get(name)
        if (
            array is not None
            and len(array.shape) >= 2
            and min(array.shape) > 0
            and np.dtype(array.dtype).kind in "fiub"
        ):
            if array.shape[-1] * array.shape[-2] > _LARGEST:
                raise BadFile(f"an image of {array.shape[-2]} x {array.shape[-1]} pixels is too large to draw")
            return name, array
    raise NotFound("this dataset holds no images")


def _thinned(image: NDArray[np.float32]) -> NDArray[np.float32]:
    step = max(1, int(np.ceil(np.sqrt(image.size / _SAMPLE_PIXELS))))
    return image[::step, ::step].ravel()


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
