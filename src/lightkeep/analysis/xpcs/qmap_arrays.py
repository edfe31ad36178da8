"""A qmap as named arrays and a few words: how it travels in files, between sources, and in the facts of a result.

The arrays have the names of pySimpleMask's files: `dynamic_roi_map`, `static_roi_map` and `mask` (H, W);
`{dynamic,static}_v_list_dim0` and `_dim1`, the centres along both coordinates; `{dynamic,static}_index_mapping`,
the place of each label in the grid of these centres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.qmap import Geometry, Grid, QMap

MAPS = ("dynamic_roi_map", "static_roi_map", "mask")
_KINDS = ("dynamic", "static")


def grids_of(qmap: QMap) -> dict[str, NDArray[Any]]:
    """The centres and the place of each label, by name. Without a grid: q of each label, one after the other."""
    arrays: dict[str, NDArray[Any]] = {}
    for kind in _KINDS:
        grid = getattr(qmap, f"{kind}_grid")
        if grid is None:
            q = getattr(qmap, f"{kind}_q")
            grid = Grid(q, np.zeros(1), np.arange(q.size))
        arrays[f"{kind}_v_list_dim0"] = grid.first
        arrays[f"{kind}_v_list_dim1"] = grid.second
        arrays[f"{kind}_index_mapping"] = grid.cell
    return arrays


def words_of(qmap: QMap) -> dict[str, Any]:
    """What is not an array: `names`, `map_units`, `geometry`. JSON-safe."""
    geometry = None if qmap.geometry is None else asdict(qmap.geometry)
    return {"names": list(qmap.names), "map_units": list(qmap.map_units), "geometry": geometry}


def describe(qmap: QMap) -> dict[str, Any]:
    """All but the maps, JSON-safe; not a number is None."""
    lists = {
        name: [_number(value) for value in values.tolist()]
        for kind in _KINDS
        if getattr(qmap, f"{kind}_grid") is not None
        for name, values in grids_of(qmap).items()
        if name.startswith(kind)
    }
    return {**words_of(qmap), **lists}


def qmap_of(arrays: Mapping[str, Any], words: Mapping[str, Any]) -> QMap:
    """The qmap of named arrays and words; what is repaired is what `QMap.from_labels` repairs.

    Parameters
    ----------
    arrays: the three maps, and the grids unless `words` has them; anything that slices to an array.
    words: as `words_of` or `describe` gives; may be empty.

    Raises
    ------
    ValueError: as `QMap`.
    KeyError: a map is absent.
    """
    given = {**words, **arrays}
    dynamic, static, mask = (np.asarray(given[name][...]) for name in MAPS)
    geometry = words.get("geometry")
    return QMap.from_labels(
        dynamic,
        static,
        mask=mask,
        dynamic_grid=_grid(given, "dynamic"),
        static_grid=_grid(given, "static"),
        names=_pair(words.get("names", ("q", "phi"))),
        map_units=_pair(words.get("map_units", ("1/angstrom", "degree"))),
        geometry=None if geometry is None else Geometry(**geometry),
    )


def for_frames(qmap: QMap, shape: tuple[int, int]) -> tuple[QMap, list[str]]:
    """The qmap that fits frames of (H, W), and one sentence when it had to be transposed for them.

    Some detectors are read out turned against the image in which the map was drawn.

    Raises
    ------
    ValueError: it fits neither way.
    """
    if qmap.shape != tuple(shape)[::-1] or qmap.shape == tuple(shape):
        qmap.require(shape)
        return qmap, []
    turned = replace(
        qmap,
        dynamic=qmap.dynamic.T,
        static=qmap.static.T,
        mask=qmap.mask.T,
        geometry=qmap.geometry and _turned(qmap.geometry),
    )
    return turned, ["the qmap was transposed: its rows are the columns of the frames"]


def _turned(there: Geometry) -> Geometry | None:
    """The same with rows and columns exchanged; None for an arm turned both ways, whose angles do not commute."""
    if there.arm_horizontal_deg and there.arm_vertical_deg:
        return None
    return replace(
        there,
        beam_center_x=there.beam_center_y,
        beam_center_y=there.beam_center_x,
        arm_horizontal_deg=-there.arm_vertical_deg,
        arm_vertical_deg=-there.arm_horizontal_deg,
    )


def _grid(given: Mapping[str, Any], kind: str) -> Grid | None:
    names = [f"{kind}_v_list_dim0", f"{kind}_v_list_dim1", f"{kind}_index_mapping"]
    if any(name not in given for name in names):
        return None
    first, second, cell = (_values(given[name]) for name in names)
    return Grid(first.astype(float), second.astype(float), cell.astype(np.int64))


def _values(given: Any) -> NDArray[Any]:
    if isinstance(given, list | tuple):
        return np.array(given, float)  # None becomes not a number
    return np.asarray(given[...]).ravel()


def _pair(given: Any) -> tuple[str, str]:
    first, second = given
    return str(first), str(second)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
