"""aps-8id: result files of XPCS as beamline 8-ID of the Advanced Photon Source writes and shows them.

Files of Lightkeep and of boost-corr are read; both open in xpcs-viewer. See `aps_8id_layout` for what is where,
and `aps_8id_writer` for how a result is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from lightkeep.formats import aps_8id_layout as layout
from lightkeep.formats import aps_8id_writer as writer
from lightkeep.formats import hdf5, metadata_8id, nexus
from lightkeep.formats.hdf5_format import Hdf5Format
from lightkeep.formats.metadata import Gathered, held, units_of, value_of
from lightkeep.formats.qmap import words_in
from lightkeep.formats.text import one_line
from lightkeep.formats.xpcs_views import CorrelationMaps, Inner, Swapped
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Array, Result, Source

if TYPE_CHECKING:
    from lightkeep.analysis.xpcs import MultiTauResult, TwoTimeResult

_AGAIN = "reduce the run again"
_PROCESS = {name: nexus.TEXTS[name] for name in ("command", "software")}
_SHOWN_APART = ("process/parameters/", "process/facts/")
_PLACE_LISTS = {"dynamic": "", "static": "static_"}


class Aps8id(Hdf5Format):
    """Reader and writer of XPCS results."""

    name: ClassVar[str] = "aps-8id"
    can_write: ClassVar[bool] = True

    def holds(self, file: h5py.File) -> bool:
        """True when it has a qmap, and a g2 or a two-time correlation, where the beamline has them."""
        return hdf5.has(file, layout.QMAP) and any(
            hdf5.has(file, place) for place in (layout.PLACES["g2"], layout.MAPS)
        )

    def source(self, path: Path, file: h5py.File) -> Source:
        """Return every output under its name, the qmap, and the coordinates `tau`, `tau_frames`, `q`, `phi`,
        `static_q`, `static_phi`, `bin` and `time`; BadFile also for arrays that do not fit each other.
        """
        return _source(path, file)

    def write(self, folder: Path, result: Result) -> list[Path]:
        """Write `<input>_results.hdf`.

        Raises
        ------
        InvalidInput: it is not a result of XPCS. StoreFull: no room. StorageError: it cannot be written.
        """
        path = folder / writer.file_name(result)
        writer.write_result(path, result)
        return [path]


FORMAT = Aps8id()


def read_result(source: Path | Source) -> tuple[MultiTauResult | None, TwoTimeResult | None]:
    """Return the multi-tau and the two-time result of a file, or of a source of this format; None: it has none.

    Raises
    ------
    SourceError, UnsafeFile: as `Hdf5Format.open`. BadFile: as there, and where an array is missing.
    """
    from lightkeep.analysis.xpcs.result_arrays import multitau_result_of, twotime_result_of

    if not isinstance(source, Source):
        with FORMAT.open(source) as opened:
            return read_result(opened)
    arrays, words = source.arrays, source.metadata.rest
    with hdf5.reading(source.path):
        try:
            return (
                multitau_result_of(arrays, words) if "g2" in arrays else None,
                twotime_result_of(arrays, words) if "c2" in arrays else None,
            )
        except KeyError as error:
            raise BadFile(f"{source.path}: {error.args[0]} is missing in the result", remedy=_AGAIN) from error


def _source(path: Path, file: h5py.File) -> Source:
    if not isinstance(file.get(layout.QMAP), h5py.Group):
        raise BadFile(f"{path}: no group /{layout.QMAP} (it holds: {held(file)})", remedy=_AGAIN)
    found = _found(file)
    words = words_in(file[layout.QMAP])
    arrays = _outputs(path, file)
    if "g2" not in arrays and "c2" not in arrays:
        raise BadFile(
            f"{path}: neither g2 nor a two-time correlation (it holds: {held(file['xpcs'])})", remedy=_AGAIN
        )
    arrays.update(_qmap_arrays(file[layout.QMAP]))
    arrays.update(_coordinates(arrays, words))
    reduction = _reduction(file, found)
    units = {name: units_of(_node(file, name)) for name in arrays if _node(file, name) is not None}
    arrays.update(_times(path, file, arrays, reduction))
    unit = "frames" if reduction["step_s"] is None else "s"
    units.update({name: unit for name in ("tau", "time") if name in arrays})
    _check(path, arrays)
    found.rest.update(
        qmap=words,
        units={name: text for name, text in units.items() if text},
        params=_values(file, "entry/process/parameters"),
        facts=_values(file, "entry/process/facts"),
        reduction=reduction,
    )
    flags = found.rest["facts"].pop("flags", [])
    found.rest["flags"] = flags if isinstance(flags, list) else [flags]
    return Source(path, FORMAT.name, "xpcs", arrays, found.metadata(), file)


def _found(file: h5py.File) -> Gathered:
    """What was measured how; a frame time in frames is none."""
    entry = hdf5.own(file, "entry")
    if not isinstance(entry, h5py.Group):
        return Gathered(notes=["the file does not say what was measured: it has no /entry"])
    found = metadata_8id.gather_8id(entry, more=_PROCESS)
    found.rest = {name: value for name, value in found.rest.items() if not name.startswith(_SHOWN_APART)}
    if "frame_time" in found.quantities and found.quantities["frame_time"].unit_si != "s":
        del found.quantities["frame_time"]
    return found


def _outputs(path: Path, file: h5py.File) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name in layout.PLACES:
        node = _node(file, name)
        if node is None:
            continue
        if name == "intensity":
            arrays[name] = Inner(node, 1)
        elif name in layout.LED and node.shape[:1] == (1,):
            arrays[name] = Inner(node, 0)
        else:
            arrays[name] = Swapped(node) if name in layout.SWAPPED else node
    maps = file.get(layout.MAPS)
    if isinstance(maps, h5py.Group):
        arrays.update(_two_time(path, file, maps))
    entry = hdf5.own(file, "entry")
    for group in hdf5.groups_in(entry) if isinstance(entry, h5py.Group) else []:
        data = hdf5.own(group, "data")
        if isinstance(data, h5py.Dataset) and data.shape:
            arrays.setdefault(group.name.rpartition("/")[2], data)
    return arrays


def _node(file: h5py.File, name: str) -> h5py.Dataset | None:
    """The dataset of an output; None where it is absent or of another kind."""
    node = file.get(layout.PLACES[name]) if name in layout.PLACES else None
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "iuf" or not node.shape:
        return None
    if name == "intensity":
        return node if len(node.shape) == 2 and node.shape[0] == 2 else None
    return node if name not in layout.SWAPPED or len(node.shape) == 3 else None


def _two_time(path: Path, file: h5py.File, group: h5py.Group) -> dict[str, Array]:
    names = sorted(group)
    maps = [group[name] for name in names]
    shapes = {node.shape for node in maps if isinstance(node, h5py.Dataset)}
    is_square = len(shapes) == 1 and all(len(shape) == 2 and shape[0] == shape[1] > 0 for shape in shapes)
    if not maps or not is_square or not all(isinstance(node, h5py.Dataset) for node in maps):
        raise BadFile(f"{path}: /{layout.MAPS} does not hold square maps of one size", remedy=_AGAIN)
    bins = _whole(file.get(layout.BINS))
    if bins is None:
        bins = np.array([int("".join(filter(str.isdigit, name)) or 0) for name in names])
    if bins.size != len(maps):
        raise BadFile(f"{path}: {len(maps)} two-time correlations for {bins.size} bins", remedy=_AGAIN)
    return {"c2": CorrelationMaps(maps), "bin": bins}


def _qmap_arrays(group: h5py.Group) -> dict[str, Array]:
    """The maps as they are stored, and the grids in memory: small."""
    found: dict[str, Array] = {}
    for name in layout.ROI_MAPS:
        node = group.get("blemish" if name == "mask" and "blemish" in group else name)
        if isinstance(node, h5py.Dataset) and len(node.shape) == 2:
            found[name] = node
    for kind in _PLACE_LISTS:
        for name in (f"{kind}_v_list_dim0", f"{kind}_v_list_dim1", f"{kind}_index_mapping"):
            node = group.get(name)
            if isinstance(node, h5py.Dataset) and node.dtype.kind in "iuf" and node.shape:
                found[name] = np.asarray(node[()]).ravel()
    return found


def _coordinates(arrays: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """q and phi of each dynamic bin and each static partition as the grids say; NaN where they do not."""
    found: dict[str, NDArray[np.float64]] = {}
    for kind, prefix in _PLACE_LISTS.items():
        names = [f"{kind}_v_list_dim0", f"{kind}_v_list_dim1", f"{kind}_index_mapping"]
        if not all(name in arrays for name in names):
            continue
        first, second, places = (np.asarray(arrays[name]) for name in names)
        places = places.astype(np.int64)
        if not places.size or places.min() < 0 or places.max() >= first.size * second.size:
            continue
        values = {words["names"][0]: first[places // second.size], words["names"][1]: second[places % second.size]}
        for name in ("q", "phi"):
            found[prefix + name] = np.asarray(values.get(name, np.full(places.size, np.nan)), float)
    return found


def _reduction(file: h5py.File, found: Gathered) -> dict[str, Any]:
    """How frames were put together, and the time from one to the next in s; None where it is not known."""
    part = "multitau" if layout.CONFIGS["multitau"] in file else "twotime"
    begin, end = _count(file, part, "begin"), _count(file, part, "end")
    stride = _count(file, part, "stride") or 1
    average = _count(file, part, "avg") or 1
    other = _count(file, "twotime", "avg") or average
    given = found.quantities.get("frame_time")
    time = None if given is None else given.value_si * stride
    return {
        "begin": begin or 0,
        "end": end,
        "stride": stride,
        "average": average,
        "step_s": None if time is None else time * average,
        "twotime_average": other,
        "twotime_step_s": None if time is None else time * other,
    }


def _count(file: h5py.File, part: str, name: str) -> int | None:
    value = value_of(file.get(f"{layout.CONFIGS[part]}/{name}_frame"))
    return value if isinstance(value, int) and value >= 0 else None


def _times(
    path: Path, file: h5py.File, arrays: Mapping[str, Any], reduction: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Delays, and times of the two-time correlation: as written with the result, or frames times step."""
    found: dict[str, NDArray[Any]] = {}
    if "g2" in arrays:
        delays = _whole(file.get(layout.DELAYS))
        if delays is None:
            raise BadFile(f"{path}: no /{layout.DELAYS}: the delays of g2 are missing", remedy=_AGAIN)
        found["tau_frames"] = delays
        found["tau"] = _stored(file, "entry/data/tau", delays.size, delays * (reduction["step_s"] or 1.0))
    if "c2" in arrays:
        size = arrays["c2"].shape[1]
        found["time"] = _stored(file, layout.TIME, size, np.arange(size) * (reduction["twotime_step_s"] or 1.0))
    return found


def _stored(file: h5py.File, name: str, size: int, otherwise: NDArray[np.float64]) -> NDArray[np.float64]:
    node = file.get(name)
    is_it = isinstance(node, h5py.Dataset) and node.shape == (size,) and node.dtype.kind == "f"
    return np.asarray(node[()], np.float64) if is_it else otherwise


def _whole(node: Any) -> NDArray[np.int64] | None:
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "iuf" or not node.size:
        return None
    values = np.asarray(node[()]).ravel()
    return np.rint(values).astype(np.int64) if np.isfinite(values).all() else None


def _check(path: Path, arrays: Mapping[str, Any]) -> None:
    """Raise BadFile for the first arrays that do not fit each other."""
    sizes: dict[str, tuple[int, str]] = {}
    axes = {
        "g2": ("delay", "bin of the qmap"),
        "g2_err": ("delay", "bin of the qmap"),
        "tau": ("delay",),
        "q": ("bin of the qmap",),
        "saxs_2d": ("row", "column"),
        "dynamic_roi_map": ("row", "column"),
        "static_roi_map": ("row", "column"),
        "mask": ("row", "column"),
        "saxs_1d": ("static partition",),
        "saxs_1d_segments": ("part of the run", "static partition"),
        "static_q": ("static partition",),
        "c2": ("two-time bin", "frame of the two-time correlation", "frame of the two-time correlation"),
        "g2_twotime": ("frame of the two-time correlation", "two-time bin"),
    }
    for name, names in axes.items():
        if name not in arrays:
            continue
        shape = tuple(arrays[name].shape)
        if len(shape) != len(names):
            raise BadFile(f"{path}: {name} has shape {shape}, not ({', '.join(names)})", remedy=_AGAIN)
        for axis, size in zip(names, shape, strict=True):
            other, first = sizes.setdefault(axis, (size, name))
            if other != size:
                raise BadFile(
                    f"{path}: {name} has {size} values per {axis}, {first} has {other}", remedy=_AGAIN, role=name
                )


def _values(file: h5py.File, name: str) -> dict[str, Any]:
    """Small values of a group as they were written: lists and None as JSON."""
    group = file.get(name)
    found: dict[str, Any] = {}
    for key in group if isinstance(group, h5py.Group) else ():
        node = hdf5.own(group, key)
        value = value_of(node)
        if isinstance(value, str):
            value = _unpacked(node[()])
        found[one_line(key)] = value
    return found


def _unpacked(text: Any) -> Any:
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    if text[:1] in ("[", "{") or text == "null":
        with suppress(ValueError, RecursionError):
            return _cleaned(json.loads(text, parse_constant=str))
    return one_line(text)


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {one_line(key): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_cleaned(each) for each in value]
    return one_line(value) if isinstance(value, str) else value
