"""Which pixels belong to which bin of momentum transfer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]
Kind = Literal["q-phi", "x-y"]
Spacing = Literal["linear", "log"]

HC_KEV_ANGSTROM = 12.398419843320026
"""Planck's constant times the speed of light, keV angstrom; exact since the SI of 2019."""

_FEW_NUMBERS = 2**24
"""Labels up to here are found by counting, which is faster than sorting."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "SA-XPCS": {"kind": "q-phi", "dynamic": (10, 1), "static": (100, 1)},
        "SA-XPCS wedges": {"kind": "q-phi", "dynamic": (10, 12), "static": (50, 36)},
        "WA-XPCS": {"kind": "x-y", "dynamic": (3, 3), "static": (9, 9)},
    }
)
"""Arguments of `QMap.from_geometry` as they are usual at 8-ID: rings about the beam for small angles, boxes for a
detector on an arm."""


@dataclass(frozen=True)
class Geometry:
    """Where a flat detector stands: its normal through the sample meets it at the beam centre.

    With the arm at 0 the direct beam arrives there.
    """

    beam_center_x: float
    """Column of the beam centre, pixels; 0 is the middle of the first column."""
    beam_center_y: float
    """Row of the beam centre, pixels."""
    pixel_size_m: float
    """Edge of a square pixel, m."""
    detector_distance_m: float
    """From the sample to the beam centre, m."""
    energy_keV: float  # noqa: N815
    """Photon energy, keV."""
    arm_horizontal_deg: float = 0.0
    """Angle of the detector arm about the vertical axis, towards larger columns, degrees."""
    arm_vertical_deg: float = 0.0
    """Angle of the detector arm above the horizontal plane, towards smaller rows, degrees."""

    def __post_init__(self) -> None:
        for name in ("pixel_size_m", "detector_distance_m", "energy_keV"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid of bins that labels were numbered from, in the order of pySimpleMask's files."""

    first: Float64
    """(n0,) centres along the first coordinate."""
    second: Float64
    """(n1,) centres along the second coordinate."""
    cell: NDArray[np.int64]
    """(n,) place of label 1 .. n in the (n0, n1) grid, flattened: empty cells have no label."""

    @property
    def values(self) -> tuple[Float64, Float64]:
        """(n,), (n,): first and second coordinate of each label."""
        return self.first[self.cell // self.second.size], self.second[self.cell % self.second.size]


@dataclass(frozen=True, eq=False)
class QMap:
    """Dynamic bins (one g2 curve each) and static partitions (normalised each by itself) of a detector's pixels.

    Raises
    ------
    ValueError: the reason, when no pixel is used, arrays differ in shape, labels are not 1 .. n without a gap, a
      static partition spans two dynamic bins, a pixel has only one of its labels, or a masked pixel has any.
      `from_labels` repairs what can be repaired.
    """

    dynamic: NDArray[np.int32]
    """(H, W) number of the dynamic bin from 1; 0: the pixel is not used."""
    static: NDArray[np.int32]
    """(H, W) number of the static partition from 1; 0: the pixel is not used."""
    mask: NDArray[np.bool_]
    """(H, W) True where the pixel works; there may be working pixels that no bin uses."""
    dynamic_grid: Grid | None = None
    """Coordinates of the dynamic bins."""
    static_grid: Grid | None = None
    """Coordinates of the static partitions."""
    names: tuple[str, str] = ("q", "phi")
    """What the coordinates are."""
    map_units: tuple[str, str] = ("1/angstrom", "degree")
    """Their units."""
    geometry: Geometry | None = None
    """Where the detector stood, if known."""
    static_to_dynamic: NDArray[np.int64] = field(init=False)
    """(n_static,) dynamic bin (from 1) of each static partition."""

    def __post_init__(self) -> None:
        if np.ndim(self.dynamic) != 2:
            raise ValueError(f"a qmap must be (H, W), not {np.shape(self.dynamic)}")
        dynamic, static = _labels(self.dynamic, "dynamic"), _labels(self.static, "static")
        mask = np.ascontiguousarray(self.mask, dtype=bool)
        if not dynamic.shape == static.shape == mask.shape:
            raise ValueError(
                f"dynamic {dynamic.shape}, static {static.shape} and mask {mask.shape} differ in shape"
            )
        if ((dynamic > 0) != (static > 0)).any():
            lone = int(((dynamic > 0) != (static > 0)).sum())
            raise ValueError(f"{lone} pixels have a dynamic bin or a static partition, but not both")
        if (dynamic[~mask] > 0).any():
            raise ValueError(f"{int((dynamic[~mask] > 0).sum())} masked pixels have a bin")
        for name, value in (("dynamic", dynamic), ("static", static), ("mask", mask)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "static_to_dynamic", _owners(dynamic, static))
        for grid, n, what in (
            (self.dynamic_grid, self.n_dynamic, "dynamic"),
            (self.static_grid, self.n_static, "static"),
        ):
            if grid is not None and grid.cell.shape != (n,):
                raise ValueError(f"there are {n} {what} labels, their grid has {grid.cell.size}")

    @classmethod
    def from_labels(
        cls, dynamic: ArrayLike, static: ArrayLike | None = None, *, mask: ArrayLike | None = None, **more: Any
    ) -> QMap:
        """A qmap from any labels: pixels that are masked or have one label only are left out, gaps closed.

        Parameters
        ----------
        dynamic: (H, W) numbers of the dynamic bins; 0 and below: not used.
        static: (H, W) same of the static partitions; by default each dynamic bin is one partition.
        mask: (H, W) True where the pixel works; by default where both labels are.
        more: further fields of the class; a grid's `cell` is that of the labels as given (one per number from 1).

        Raises
        ------
        ValueError: as the class; a static partition that spans two dynamic bins stays an error.
        """
        dynamic = np.array(dynamic, np.int64)
        static = dynamic.copy() if static is None else np.array(static, np.int64)
        if dynamic.shape != static.shape or (mask is not None and np.shape(mask) != dynamic.shape):
            raise ValueError(f"dynamic {dynamic.shape}, static {static.shape} and mask differ in shape")
        works = (dynamic > 0) & (static > 0) if mask is None else np.asarray(mask, bool)
        unused = ~works | (dynamic <= 0) | (static <= 0)
        dynamic[unused] = static[unused] = 0
        dynamic, kept_dynamic = compacted(dynamic)
        static, kept_static = compacted(static)
        for name, kept in (("dynamic_grid", kept_dynamic), ("static_grid", kept_static)):
            grid = more.get(name)
            if grid is not None:
                if kept.max(initial=0) > grid.cell.size:
                    raise ValueError(f"labels go up to {kept[-1]}, their grid has {grid.cell.size} places")
                more[name] = Grid(grid.first, grid.second, grid.cell[kept - 1])
        return cls(dynamic.astype(np.int32), static.astype(np.int32), works, **more)

    @classmethod
    def from_geometry(
        cls,
        shape: tuple[int, int],
        geometry: Geometry,
        *,
        kind: Kind = "q-phi",
        dynamic: tuple[int, int] = (10, 1),
        static: tuple[int, int] = (100, 1),
        mask: ArrayLike | None = None,
        first_range: tuple[float, float] | None = None,
        second_range: tuple[float, float] | None = None,
        spacing: Spacing = "linear",
    ) -> QMap:
        """A qmap of rings and wedges about the beam ("q-phi"), or of boxes on the detector ("x-y").

        Parameters
        ----------
        shape: (H, W) pixels.
        geometry: where the detector stands.
        kind: coordinates: q (1/angstrom) and azimuth (degrees), or column and row (pixels).
        dynamic: number of dynamic bins along the first and the second coordinate.
        static: same of static partitions; multiples of the dynamic numbers, so that each lies inside one bin.
        mask: (H, W) True where the pixel works; default: everywhere.
        first_range: lowest and highest first coordinate; default: all of the unmasked pixels.
        second_range: same of the second coordinate; the default azimuth is the full circle.
        spacing: of the first coordinate; "log" needs a range above 0.

        Raises
        ------
        ValueError: numbers that are not multiples, an empty range, or a map without any pixel.
        """
        works = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
        if works.shape != tuple(shape):
            raise ValueError(f"the mask is {works.shape}, the detector {tuple(shape)}")
        if not works.any():
            raise ValueError("the mask leaves no pixel")
        if min(dynamic) < 1 or static[0] % dynamic[0] or static[1] % dynamic[1]:
            raise ValueError(f"static numbers {static} must be multiples of the dynamic ones {dynamic}")
        first, second = coordinates(shape, geometry, kind=kind)
        if kind == "q-phi" and second_range is None:
            second_range = (-180.0, 180.0)
        where0, edges0 = _bins(first, works, static[0], first_range, spacing)
        where1, edges1 = _bins(second, works, static[1], second_range, "linear")
        inside = works & (where0 >= 0) & (where1 >= 0)
        steps = static[0] // dynamic[0], static[1] // dynamic[1]
        fine = where0 * static[1] + where1 + 1
        coarse = (where0 // steps[0]) * dynamic[1] + where1 // steps[1] + 1
        return cls.from_labels(
            np.where(inside, coarse, 0),
            np.where(inside, fine, 0),
            mask=works,
            dynamic_grid=_grid(edges0[:: steps[0]], edges1[:: steps[1]], spacing),
            static_grid=_grid(edges0, edges1, spacing),
            names=("q", "phi") if kind == "q-phi" else ("x", "y"),
            map_units=("1/angstrom", "degree") if kind == "q-phi" else ("pixel", "pixel"),
            geometry=geometry,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) pixels."""
        return self.dynamic.shape[0], self.dynamic.shape[1]

    @cached_property
    def n_dynamic(self) -> int:
        """Number of dynamic bins."""
        return int(self.dynamic.max())

    @cached_property
    def n_static(self) -> int:
        """Number of static partitions."""
        return int(self.static.max())

    @cached_property
    def static_pixels(self) -> NDArray[np.int64]:
        """(n_static,) pixels of each static partition."""
        return np.bincount(self.static.ravel())[1:]

    @cached_property
    def dynamic_q(self) -> Float64:
        """(n_dynamic,) q in 1/angstrom; NaN where not known."""
        return self._coordinate("q", self.dynamic, self.dynamic_grid)

    @cached_property
    def dynamic_phi(self) -> Float64:
        """(n_dynamic,) azimuth in degrees; NaN where not known."""
        return self._coordinate("phi", self.dynamic, self.dynamic_grid)

    @cached_property
    def static_q(self) -> Float64:
        """(n_static,) q in 1/angstrom; NaN where not known."""
        return self._coordinate("q", self.static, self.static_grid)

    @cached_property
    def static_phi(self) -> Float64:
        """(n_static,) azimuth in degrees; NaN where not known."""
        return self._coordinate("phi", self.static, self.static_grid)

    def require(self, shape: tuple[int, int]) -> None:
        """Raises ValueError unless frames of (H, W) pixels fit this map."""
        if tuple(shape) != self.shape:
            turned = "; its transpose would fit" if tuple(shape) == self.shape[::-1] else ""
            raise ValueError(f"the qmap is for {self.shape} pixels, the frames have {tuple(shape)}{turned}")

    def _coordinate(self, name: str, labels: NDArray[np.int32], grid: Grid | None) -> Float64:
        """The grid's value where it has that coordinate, else the mean over the pixels."""
        n = int(labels.max())
        if grid is not None and name in self.names:
            return grid.values[self.names.index(name)]
        if self.geometry is None:
            return np.full(n, np.nan)
        q, phi = coordinates(self.shape, self.geometry)
        flat = labels.ravel()
        if name == "q":
            return _mean(flat, q.ravel(), n)
        turns = np.deg2rad(phi.ravel())
        return np.rad2deg(np.arctan2(_mean(flat, np.sin(turns), n), _mean(flat, np.cos(turns), n)))


def compacted(labels: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The same labels numbered 1 .. n without a gap, and (n,) which number each had; 0 stays 0.

    >>> compacted([[0, 7], [3, 7]])
    (array([[0, 2],
           [1, 2]], dtype=int32), array([3, 7]))
    """
    given = np.maximum(np.asarray(labels, np.int64), 0)
    kept = _present(given)
    if kept.max(initial=0) > _FEW_NUMBERS:
        return np.where(given > 0, np.searchsorted(kept, given) + 1, 0).astype(np.int32), kept
    number = np.zeros(int(kept.max(initial=0)) + 1, np.int32)
    number[kept] = np.arange(1, kept.size + 1)
    return number[given], kept


def coordinates(shape: tuple[int, int], geometry: Geometry, *, kind: Kind = "q-phi") -> tuple[Float64, Float64]:
    """q and azimuth, or column and row, of every pixel.

    q = 4 pi / lambda sin(theta), 2 theta the angle between the pixel's direction and the beam: exact for a flat
    detector, at wide angles too. The azimuth is counted from the direction of larger columns towards smaller rows
    (counter-clockwise with row 0 on top), -180 <= phi < 180.

    Parameters
    ----------
    shape: (H, W) pixels.
    geometry: where the detector stands.
    kind: "q-phi" or "x-y".

    Returns
    -------
    : (H, W), (H, W) float64: 1/angstrom and degrees, or pixels and pixels.

    Raises
    ------
    ValueError: unknown kind.
    """
    row, column = np.mgrid[: shape[0], : shape[1]].astype(float)
    if kind == "x-y":
        return column, row
    if kind != "q-phi":
        raise ValueError(f"a map is q-phi or x-y, not {kind!r}")
    x = (column - geometry.beam_center_x) * geometry.pixel_size_m
    y = (geometry.beam_center_y - row) * geometry.pixel_size_m
    z = geometry.detector_distance_m
    up, side = np.deg2rad(geometry.arm_vertical_deg), np.deg2rad(geometry.arm_horizontal_deg)
    y, z = y * np.cos(up) + z * np.sin(up), z * np.cos(up) - y * np.sin(up)
    x, z = x * np.cos(side) + z * np.sin(side), z * np.cos(side) - x * np.sin(side)
    two_theta = np.arctan2(np.hypot(x, y), z)
    q: Float64 = 4 * np.pi / HC_KEV_ANGSTROM * geometry.energy_keV * np.sin(two_theta / 2)
    phi: Float64 = np.mod(np.rad2deg(np.arctan2(y, x)) + 180.0, 360.0) - 180.0
    return q, phi


def _labels(labels: ArrayLike, what: str) -> NDArray[np.int32]:
    given = np.asarray(labels)
    if given.dtype.kind not in "iu" or given.min(initial=0) < 0:
        raise ValueError(f"{what} labels must be whole numbers from 0")
    present = _present(given)
    if present.size == 0:
        raise ValueError(f"no pixel has a {what} label: the map is empty")
    if present[-1] != present.size:
        raise ValueError(f"{what} labels have gaps: {present.size} numbers up to {present[-1]}")
    return np.ascontiguousarray(given, dtype=np.int32)


def _present(labels: NDArray[Any]) -> NDArray[np.int64]:
    """The numbers above 0 that occur, ascending."""
    if labels.max(initial=0) > _FEW_NUMBERS:
        numbers = np.unique(labels)
        return numbers[numbers > 0].astype(np.int64)
    return np.flatnonzero(np.bincount(labels.ravel())[1:]) + 1


def _owners(dynamic: NDArray[np.int32], static: NDArray[np.int32]) -> NDArray[np.int64]:
    owner = np.zeros(int(static.max()) + 1, np.int64)
    owner[static.ravel()] = dynamic.ravel()
    spans = _present(np.where(owner[static] != dynamic, static, 0))
    if spans.size:
        bins = _present(np.where(static == spans[0], dynamic, 0))
        raise ValueError(
            f"static partition {spans[0]} spans dynamic bins {' and '.join(map(str, bins))}"
            + (f" ({spans.size - 1} others do too)" if spans.size > 1 else "")
        )
    return owner[1:]


def _bins(
    values: Float64, works: NDArray[np.bool_], n: int, wanted: tuple[float, float] | None, spacing: Spacing
) -> tuple[NDArray[np.int64], Float64]:
    """(H, W) index of the bin, -1 outside, and the (n + 1,) edges."""
    seen = values[works]
    low, high = (float(seen.min()), float(seen.max())) if wanted is None else wanted
    if spacing == "log" and wanted is None:
        low = float(seen[seen > 0].min(initial=np.inf))
    if not low < high or (spacing == "log" and low <= 0):
        raise ValueError(f"the range {low:g} to {high:g} cannot be cut into {spacing} bins")
    edges = np.geomspace(low, high, n + 1) if spacing == "log" else np.linspace(low, high, n + 1)
    index = np.searchsorted(edges, values, side="right") - 1
    index[values == high] = n - 1
    index[(values < low) | (values > high)] = -1
    return index, edges


def _grid(first: Float64, second: Float64, spacing: Spacing) -> Grid:
    middle = np.sqrt(first[1:] * first[:-1]) if spacing == "log" else (first[1:] + first[:-1]) / 2
    across = (second[1:] + second[:-1]) / 2
    return Grid(middle, across, np.arange(middle.size * across.size))


def _mean(labels: NDArray[np.int32], values: Float64, n: int) -> Float64:
    mean: Float64 = np.bincount(labels, values, n + 1)[1:] / np.bincount(labels, minlength=n + 1)[1:]
    return mean
