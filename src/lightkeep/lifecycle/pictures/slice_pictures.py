"""Pictures of the planes of a scan or of a volume. Runs in the killable process, as `picture` does.

Only what is drawn is read: one projection, one row of all projections, one plane of a volume; large ones thinned.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightkeep import formats
from lightkeep.formats import hdf5, nexus
from lightkeep.lifecycle.pictures.picture import PALETTES, colours
from lightkeep.model.errors import BadFile, InvalidInput, NotFound
from lightkeep.model.formats import Array, Source

Float32 = NDArray[np.float32]
Packed = tuple[tuple[int, ...], bytes]
"""An array of float32: shape and little-endian bytes."""

_LARGEST = 64_000_000
"""Values of one plane: more is no picture but a bomb."""
_SAMPLES = 5
_SAMPLE_VALUES = 40_000
_BARS = 64
_PERCENTILES = (0.5, 99.5)
_REFERENCES = 8
_DARKEST = 1e-3
"""Transmission below this is noise."""
_DIVERGING = ("2166ac", "67a9cf", "d1e5f0", "f7f7f7", "fddbc7", "ef8a62", "b2182b")
"""ColorBrewer's RdBu, reversed: blue below, white at, red above zero."""


def describe(path: Path, format_name: str) -> dict[str, Any]:
    """Return the fields of `slices.Volume`.

    Raises
    ------
    NotFound: there are neither projections nor slices. BadFile, UnsafeFile: as the format says.
    """
    with _opened(path, format_name) as volume:
        indices = np.unique(np.linspace(0, volume.shape[0] - 1, _SAMPLES + 2).round().astype(int)[1:-1])
        names = next(iter(volume.planes))
        sample = np.concatenate([_thinned(volume.planes[names](int(index), 512)) for index in indices])
        sample = sample[np.isfinite(sample)]
        sample = sample if sample.size else np.zeros(1, np.float32)
        low, high = np.percentile(sample, _PERCENTILES)
        least, most = np.percentile(sample, (0.02, 99.98))
        most = most if most > least else least + 1.0
        bars, _ = np.histogram(sample, _BARS, (least, most))
        return {
            "kind": "scan" if volume.is_scan else "volume",
            "shape": volume.shape,
            "label": volume.label,
            "unit": volume.unit,
            "step": volume.step.value,
            "step_unit": volume.step.unit,
            "low": float(low),
            "high": float(high if high > low else low + 1.0),
            "least": float(least),
            "most": float(most),
            "histogram": bars.tolist(),
            "theta": volume.theta,
        }


def render(
    path: Path, format_name: str, *, plane: str, index: int, low: float, high: float, palette: str, longest: int
) -> bytes:
    """Return a plane as PNG.

    Parameters
    ----------
    plane: of a scan `projection` or `sinogram` (angles down, columns right); of a volume `xy`, `xz`, or `zy`.
    index: of the axis that the plane is cut across.
    low, high: values drawn as the first and the last colour.
    longest: about the pixels of the longer side.

    Raises
    ------
    NotFound: there is no such plane.
    """
    with _opened(path, format_name) as volume:
        values = volume.plane(plane, index, longest)
    return painted(values, low=low, high=high, palette=palette, longest=longest)


def difference(
    path: Path,
    format_name: str,
    *,
    other: Path,
    other_format: str,
    plane: str,
    index: int,
    span: float,
    longest: int,
) -> bytes:
    """Return a plane of the one minus that of the other as PNG: -span is blue, 0 white, span red.

    Raises
    ------
    InvalidInput: they are not of the same size. NotFound: there is no such plane.
    """
    with _opened(path, format_name) as volume, _opened(other, other_format) as second:
        if volume.shape != second.shape or volume.is_scan != second.is_scan:
            raise InvalidInput(
                f"{volume.shape} and {second.shape} values have no difference",
                remedy="compare reconstructions of the same rows and columns",
            )
        values = volume.plane(plane, index, longest) - second.plane(plane, index, longest)
    return painted(values, low=-span, high=span, palette="", longest=longest)


def sinogram(path: Path, format_name: str, *, row: int) -> tuple[Packed, list[float]]:
    """Return line integrals (angles, columns) of one detector row, and the angles in degrees.

    Raises
    ------
    NotFound: it is no scan with angles, or there is no such row.
    """
    with _opened(path, format_name) as volume:
        if not volume.is_scan or len(volume.theta) != volume.shape[0]:
            raise NotFound("this dataset holds no projections with angles", remedy="choose the raw scan")
        values = volume.plane("sinogram", row, 0)
        return (values.shape, np.ascontiguousarray(values, "<f4").tobytes()), volume.theta


def painted(values: Float32, *, low: float, high: float, palette: str, longest: int) -> bytes:
    """Return values as PNG; an empty palette is the diverging one."""
    scaled = np.nan_to_num((values - low) / max(high - low, 1e-30), nan=0.0, posinf=1.0, neginf=0.0)
    grey = Image.fromarray((np.clip(scaled, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8))
    ratio = longest / max(grey.size)
    if ratio < 1.0:
        size = (max(1, round(grey.width * ratio)), max(1, round(grey.height * ratio)))
        grey = grey.resize(size, Image.Resampling.BOX)
    if palette != "grey":
        grey = grey.convert("P")
        grey.putpalette((colours(palette) if palette in PALETTES else _diverging()).tobytes())
    out = io.BytesIO()
    grey.save(out, "PNG", compress_level=4)
    return out.getvalue()


def _diverging() -> NDArray[np.uint8]:
    anchors = np.array([list(bytes.fromhex(each)) for each in _DIVERGING], float)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


class _Volume:
    """A scan (angles, rows, columns) as absorption, or reconstructed slices (rows, y, x)."""

    def __init__(self, source: Source) -> None:
        arrays = source.arrays
        self.is_scan = "projections" in arrays
        self._array = arrays["projections"] if self.is_scan else _slices(arrays)
        if len(self._array.shape) != 3 or min(self._array.shape) < 1:
            raise NotFound("this dataset holds no stack of images")
        self.shape = tuple(int(each) for each in self._array.shape)
        self.step = nexus.steps(self._array)[0]
        self.theta: list[float] = []
        attributes = getattr(self._array, "attrs", {})
        self.unit, name = (_text(attributes.get(key)) for key in ("units", "long_name"))
        self.label = name.removesuffix(f"({self.unit})").strip() or "value"
        self.planes: dict[str, Callable[[int, int], Float32]]
        self._dark: Float32 | None = None
        self._gain: Float32 | None = None
        if self.is_scan:
            self._take_references(arrays)
            self.planes = {"projection": lambda index, _: self._projection(index), "sinogram": self._sinogram}
        else:
            self.planes = {"xy": lambda index, _: self._xy(index), "xz": self._xz, "zy": self._zy}

    def plane(self, name: str, index: int, longest: int) -> Float32:
        """Return one plane, at most about twice as fine as `longest` needs; 0 means whole."""
        across = {"projection": 0, "sinogram": 1, "xy": 0, "xz": 1, "zy": 2}
        if name not in self.planes:
            raise NotFound(f"there is no {name} here", remedy=f"choose one of: {', '.join(self.planes)}")
        count = self.shape[across[name]]
        if not 0 <= index < count:
            raise NotFound(f"{name} {index} does not exist: there are {count}")
        if int(np.prod(self.shape)) // count > _LARGEST:
            raise BadFile(f"a plane of {int(np.prod(self.shape)) // count} values is too large to draw")
        return self.planes[name](index, longest)

    def _take_references(self, arrays: Any) -> None:
        theta, flats, darks = (arrays.get(name) for name in ("theta_deg", "flats", "darks"))
        if theta is not None and theta.shape == self.shape[:1]:
            values = np.asarray(theta[:], float)
            self.theta = values.tolist() if np.isfinite(values).all() else []
        self.unit, self.label = "", "counts"
        if flats is not None and flats.shape[0] and flats.shape[1:] == self.shape[1:]:
            self._dark = np.zeros(self.shape[1:], np.float32)
            if darks is not None and darks.shape[0] and darks.shape[1:] == self.shape[1:]:
                self._dark = np.asarray(darks[:_REFERENCES], np.float32).mean(axis=0)
            flat = np.median(np.asarray(flats[:_REFERENCES], np.float32), axis=0) - self._dark
            self._gain = np.asarray(1.0 / np.maximum(flat, 1.0), np.float32)
            self.label = "\u2212ln(I / I\u2080)"

    def _projection(self, index: int) -> Float32:
        return self._absorbed(np.asarray(self._array[index], np.float32), slice(None))

    def _sinogram(self, index: int, longest: int) -> Float32:
        every = _every(self.shape[0], longest)
        return self._absorbed(np.asarray(self._array[::every, index], np.float32), index)

    def _absorbed(self, values: Float32, rows: Any) -> Float32:
        if self._gain is None or self._dark is None:
            return values
        transmission = np.maximum((values - self._dark[rows]) * self._gain[rows], _DARKEST)
        absorption: Float32 = -np.log(transmission, dtype=np.float32)
        return absorption

    def _xy(self, index: int) -> Float32:
        return np.asarray(self._array[index], np.float32)

    def _xz(self, index: int, longest: int) -> Float32:
        return np.asarray(self._array[:: _every(self.shape[0], longest), index], np.float32)

    def _zy(self, index: int, longest: int) -> Float32:
        rows, height, _ = self.shape
        cut = self._array[:: _every(rows, longest), :: _every(height, longest), index]
        return np.asarray(cut, np.float32).T


def _every(length: int, longest: int) -> int:
    """Return the stride that leaves at least `longest` of `length`; 1 where the whole is wanted."""
    return max(1, length // longest) if longest else 1


def _slices(arrays: Any) -> Array:
    names = ["slices", "frames", *sorted(arrays)]
    for name in names:
        array = arrays.get(name)
        if array is not None and len(array.shape) == 3 and np.dtype(array.dtype).kind in "fiu":
            found: Array = array
            return found
    raise NotFound("this dataset holds neither projections nor slices")


@contextmanager
def _opened(path: Path, format_name: str) -> Iterator[_Volume]:
    with formats.get(format_name).open(path) as source, hdf5.reading(path):
        yield _Volume(source)


def _thinned(image: Float32) -> Float32:
    step = max(1, int(np.ceil(np.sqrt(image.size / _SAMPLE_VALUES))))
    return image[::step, ::step].ravel()


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
