"""XPCS: how fast a sample's speckles move, from the correlation of each pixel with itself at a later time.

Multi-tau correlation (g2 of every q bin, with errors) and two-time correlation, by `analysis.xpcs`, with the
static curves that belong to them. Work may be cut along the detector's pixels: the same frames give the same bytes
in one piece or in many, from a finished file or while it grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Output, Source
from lightkeep.model.quantity import Quantity
from lightkeep.model.techniques import OutputSpec, Preflight
from lightkeep.techniques.xpcs_params import Params

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lightkeep.analysis.xpcs import Block, MultiTauResult, QMap, TwoTimeResult

_FORMATS = ("imm", "rigaku", "eiger", "events")
_PIECE_BYTES = 2 << 30
_TWO_TIME_FRAMES = 20_000
_PRESETS = {"sa-xpcs": "SA-XPCS", "sa-xpcs-wedges": "SA-XPCS wedges", "wa-xpcs": "WA-XPCS"}
_GEOMETRY = ("beam_center_x", "beam_center_y", "pixel_size_um", "distance_m", "energy_kev")
_CURVE = "curve"
_COUNTS = "counts/pixel/frame"
OUTPUTS = {
    "g2": OutputSpec(("tau", "q"), "", "Intensity autocorrelation g2", _CURVE),
    "g2_err": OutputSpec(("tau", "q"), "", "Standard error of g2", _CURVE),
    "g2_partial": OutputSpec(("tau", "static"), "", "g2 of each static partition", _CURVE),
    "pairs": OutputSpec(("tau",), "", "Pairs of frames behind each delay", _CURVE),
    "c2": OutputSpec(("bin", "t1", "t2"), "", "Two-time correlation", "stack"),
    "g2_twotime": OutputSpec(("delay", "bin"), "", "g2 from the two-time correlation", _CURVE),
    "g2_twotime_segments": OutputSpec(("segment", "delay", "bin"), "", "The same in parts of the run", _CURVE),
    "saxs_2d": OutputSpec(("row", "column"), _COUNTS, "Mean of the frames"),
    "saxs_1d": OutputSpec(("static",), _COUNTS, "Mean of each static partition", _CURVE),
    "saxs_1d_segments": OutputSpec(("segment", "static"), _COUNTS, "The same in parts of the run", _CURVE),
    "intensity": OutputSpec(("frame",), _COUNTS, "Mean over the used pixels", _CURVE),
    "intensity_q": OutputSpec(("frame", "q"), _COUNTS, "Mean over each bin", _CURVE),
    "dynamic_roi_map": OutputSpec(("row", "column"), "", "Dynamic bin of each pixel"),
    "static_roi_map": OutputSpec(("row", "column"), "", "Static partition of each pixel"),
    "mask": OutputSpec(("row", "column"), "", "Pixels that work"),
}
RESULTS = ["aps-8id", "thumbnail"]
SPLIT = "pixels"
"""In blocks of `analysis.xpcs.layout.BLOCK` pixels."""


def accepts(dataset: Dataset) -> bool:
    """Frames or events of an XPCS detector."""
    return dataset.kind is DatasetKind.RAW and dataset.format in _FORMATS


def preflight(source: Source, params: Params) -> Preflight:
    """Say which bins, delays and sizes there will be; refuse frames, q maps and bins that do not fit together."""
    from lightkeep.analysis.xpcs.kernels.layout import BLOCK

    frames = _frames(source)
    known = _resolved(source, params)
    qmap, warnings = _qmap(source, known)
    count = _count(known)
    shapes, dtypes = _sizes(qmap, known, count)
    warnings = [*source.metadata.rest.get("notes", ()), *warnings, *_saturated(frames, qmap)]
    if known.frame_time_s is None:
        warnings.append("the frame time is not known: delays are in frames")
    used = int((qmap.dynamic > 0).sum())
    per_pixel = 200 * _levels(known, count)
    pairs = math.prod(shapes.get("c2", (0,)))
    return Preflight(
        params=known.model_dump(),
        shapes=shapes,
        dtypes=dtypes,
        length=-(-qmap.dynamic.size // BLOCK),
        memory_bytes=min(_PIECE_BYTES, per_pixel * used) + (256 << 20) + 12 * pairs,
        seconds=1e-9 * count * qmap.dynamic.size + 2e-11 * pairs * used / qmap.n_dynamic,
        warnings=warnings,
        piece=max(1, _PIECE_BYTES // (BLOCK * per_pixel)),
        facts=_facts(qmap, known, count),
    )


@dataclass(frozen=True)
class State:
    """What a piece knows: sums over its pixels; while it is being pushed, what makes them."""

    qmap: Any
    multitau: Any
    """`MultiTau`, or the `MultiTauSums` that it made."""
    twotime: Any
    """`TwoTime`, `TwoTimeSums`, or None: not asked for, or no bin fell to this piece."""

    def sums(self) -> State:
        """Return the same with sums only: what adds up, and travels between processes."""
        both = (self.multitau, self.twotime)
        return State(self.qmap, *(each.sums() if hasattr(each, "sums") else each for each in both))

    def __reduce__(self) -> tuple[Any, ...]:
        done = self.sums()
        return State, (done.qmap, done.multitau, done.twotime)


def start(source: Source, params: Params, begin: int, end: int) -> State:
    """Nothing was seen yet, of the pixel blocks begin to end; and a like share of the two-time bins."""
    from lightkeep.analysis.xpcs import MultiTau, TwoTime
    from lightkeep.analysis.xpcs.kernels.layout import BLOCK

    known = _resolved(source, params)
    qmap, _ = _qmap(source, known)
    options: dict[str, Any] = {
        "begin": params.begin,
        "end": params.end,
        "stride": params.stride,
        "average": params.average,
        "bad_frames": params.bad_frames or (),
        "frame_time_s": known.frame_time_s,
    }
    length = -(-qmap.dynamic.size // BLOCK)
    bins = [] if params.mode == "multitau" else _share(_bins(qmap, params), begin, end, length)
    smooth = None if params.smooth == "none" else params.smooth
    with _told(source):
        multitau = MultiTau(
            qmap,
            dpl=params.delays_per_level,
            scheme=params.scheme,
            normalise=params.normalise,
            pixels=(begin * BLOCK, min(end * BLOCK, qmap.dynamic.size)),
            **options,
        )
        twotime = TwoTime(qmap, bins=bins, smooth=smooth, method=params.method, **options) if bins else None
    return State(qmap, multitau, twotime)


def blocks(source: Source, params: Params) -> Iterator[Block]:
    """Yield the frames that are asked for, dense or as events."""
    from lightkeep.analysis.xpcs import iterate

    with _told(source):
        yield from iterate(_frames(source), begin=params.begin, end=params.end)


def push(state: State, block: Any, begin: int) -> State:
    """Add the frames of a block."""
    try:
        state.multitau.push(block)
        if state.twotime is not None:
            state.twotime.push(block)
    except ValueError as error:
        raise InvalidInput(
            f"frames from {begin} on: {error}", remedy="leave them out with begin and end"
        ) from error
    return state


def idle(state: State) -> State:
    """Work off what waits, while no frame comes."""
    state.multitau.idle()
    return state


def merge(a: State, b: State) -> State:
    """Put the pixels of two pieces together; exact, so that the order does not matter."""
    a, b = a.sums(), b.sums()
    twotime = a.twotime + b.twotime if a.twotime and b.twotime else a.twotime or b.twotime
    return State(a.qmap, a.multitau + b.multitau, twotime)


def finish(state: State, params: Params) -> dict[str, Output]:
    """Return the outputs."""
    done = state.sums()
    outputs = multi_tau_outputs(done.qmap, _result(done, params))
    if done.twotime is not None:
        outputs |= _two_time_outputs(done.twotime.result())
    left_out = ("g2", "g2_err", "g2_partial", "pairs") if params.mode == "twotime" else ()
    return {name: outputs[name] for name in OUTPUTS if name in outputs and name not in left_out}


def flags(state: State, params: Params) -> list[str]:
    """Return what the reader of the curves has to know about the data."""
    done = state.sums()
    found = list(_result(done, params).flags)
    if done.twotime is not None:
        found += [flag for flag in done.twotime.flags if flag not in found]
    return found


def snapshot(state: State, params: Params) -> dict[str, Any]:
    """Return the curves of what was seen so far, small and JSON-safe; empty before the second frame."""
    from lightkeep.analysis.xpcs.glance import glance

    return glance(state.multitau.snapshot()) if state.multitau.frames >= 2 else {}


def previews(outputs: Mapping[str, Output]) -> dict[str, NDArray[np.float64]]:
    """Return the mean of the frames, in logarithms: what is weak stays visible."""
    import numpy as np

    image = np.asarray(outputs["saxs_2d"].data)
    lit = image[image > 0]
    least = float(lit.min()) if lit.size else 1.0
    return {"saxs_2d": np.log10(np.maximum(image, least))}


@contextmanager
def _told(source: Source) -> Iterator[None]:
    """Make what the numerics refuse an error for a person."""
    try:
        yield
    except ValueError as error:
        raise InvalidInput(
            f"{source.path.name}: {error}", remedy="choose a q map and parameters that fit the frames"
        ) from error


def _frames(source: Source) -> Any:
    frames = source.arrays.get("frames")
    if frames is None and source.format == "events":
        raise InvalidInput(
            f"{source.path.name} has times of events and does not say how long a frame is",
            remedy="give bin_time_s",
            field="bin_time_s",
        )
    if frames is None or len(frames.shape) != 3:
        raise InvalidInput(
            f"{source.path.name} holds no frames (frame, row, column)", remedy="choose a run of an area detector"
        )
    return frames


def _resolved(source: Source, params: Params) -> Params:
    """Return the parameters with what the file knows, and the frames that there are."""
    total = _frames(source).shape[0]
    end = total if params.end is None else params.end
    if not params.begin < end <= total:
        raise InvalidInput(
            f"frames {params.begin} to {end} are not inside the run's {total} frames",
            remedy="choose begin < end, both within the run",
        )
    known = {
        "end": end,
        "frame_time_s": _known(source, "frame_time", "s", 1.0),
        "beam_center_x": _known(source, "beam_center_x", "pixel", 1.0),
        "beam_center_y": _known(source, "beam_center_y", "pixel", 1.0),
        "pixel_size_um": _known(source, "pixel_size", "m", 1e6),
        "distance_m": _known(source, "distance", "m", 1.0),
        "energy_kev": _known(source, "energy", "J", 1 / Quantity.of(1.0, "keV").value_si),
    }
    if params.bin_time_s is not None and params.frame_time_s not in (None, params.bin_time_s):
        raise InvalidInput(
            f"frame_time_s {params.frame_time_s:g}, bin_time_s {params.bin_time_s:g}: a frame is as long as a bin",
            remedy="leave frame_time_s out",
            field="frame_time_s",
        )
    missing = {name: value for name, value in known.items() if getattr(params, name) is None}
    return params.model_copy(update=missing)


def _known(source: Source, name: str, unit_si: str, factor: float) -> float | None:
    found = source.metadata.quantities.get(name)
    if found is None or found.unit_si != unit_si:
        return None
    value = float(f"{found.value_si * factor:.9g}")
    return value if value > 0 or name.startswith("beam") else None


def _count(known: Params) -> int:
    """Return the number of frames that are correlated, after stride and average."""
    count = len(range(known.begin, known.end or 0, known.stride)) // known.average
    if count < 2:
        raise InvalidInput(
            f"{count} frames are left after stride and average: a correlation needs 2",
            remedy="choose a longer run, or a smaller stride and average",
        )
    return count


def _qmap(source: Source, known: Params) -> tuple[QMap, list[str]]:
    """Return the q map that was given or is made about the beam; and sentences on what was done to it."""
    from lightkeep.analysis import xpcs

    shape = (_frames(source).shape[1], _frames(source).shape[2])
    given = source.inputs.get("qmap")
    if given is None:
        return _map_about_the_beam(source, known, shape), []
    try:
        qmap = xpcs.qmap_of(given.arrays, given.metadata.rest.get("qmap", {}))
        return xpcs.for_frames(qmap, shape)
    except ValueError as error:
        raise InvalidInput(
            f"{given.path.name}: {error}", remedy="choose a q map that was made for this detector", field="qmap"
        ) from error


def _map_about_the_beam(source: Source, known: Params, shape: tuple[int, int]) -> QMap:
    from lightkeep.analysis import xpcs

    missing = [name for name in _GEOMETRY if getattr(known, name) is None]
    if missing:
        raise InvalidInput(
            f"{source.path.name} has no q map, and does not say its {', '.join(missing)}",
            remedy="give a q map as `qmap`, or these values",
        )
    geometry = xpcs.Geometry(
        beam_center_x=known.beam_center_x or 0.0,
        beam_center_y=known.beam_center_y or 0.0,
        pixel_size_m=(known.pixel_size_um or 0.0) * 1e-6,
        detector_distance_m=known.distance_m or 0.0,
        energy_keV=known.energy_kev or 0.0,
        arm_horizontal_deg=known.arm_horizontal_deg,
        arm_vertical_deg=known.arm_vertical_deg,
    )
    preset = xpcs.PRESETS[_PRESETS[known.preset]]
    with _told(source):
        q, _ = xpcs.coordinates(shape, geometry)
        inside = (q >= (known.q_min or 0.0)) & (q <= (known.q_max or q.max()))
        return xpcs.QMap.from_geometry(shape, geometry, mask=inside, **preset)


def _bins(qmap: QMap, params: Params) -> list[int]:
    bins = list(params.bins or range(1, qmap.n_dynamic + 1))
    if not all(1 <= each <= qmap.n_dynamic for each in bins):
        raise InvalidInput(
            f"bins {bins} are not all among 1 to {qmap.n_dynamic}", remedy="choose bins of the q map"
        )
    return sorted(set(bins))


def _share(bins: list[int], begin: int, end: int, length: int) -> list[int]:
    """Return the bins of the piece begin..end of length: each bin falls to one piece, however they are cut."""
    return [each for at, each in enumerate(bins) if begin <= at * length // len(bins) < end]


def _levels(known: Params, count: int) -> int:
    from lightkeep.analysis.xpcs import levels

    return 1 + levels(count, dpl=known.delays_per_level, scheme=known.scheme)[-1][0]


def _sizes(qmap: QMap, known: Params, count: int) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Return shape and dtype of each output that will be made."""
    from lightkeep.analysis.xpcs import levels, segment_length

    delays = len(levels(count, dpl=known.delays_per_level, scheme=known.scheme))
    shapes: dict[str, tuple[int, ...]] = {}
    if known.mode != "twotime":
        shapes = dict.fromkeys(("g2", "g2_err"), (delays, qmap.n_dynamic))
        shapes |= {"g2_partial": (delays, qmap.n_static), "pairs": (delays,)}
    if known.mode != "multitau":
        if count > _TWO_TIME_FRAMES:
            raise InvalidInput(
                f"a two-time correlation of {count} frames is too large; {_TWO_TIME_FRAMES} are possible",
                remedy=f"choose average {-(-count // _TWO_TIME_FRAMES) * known.average}, or begin and end",
            )
        bins = len(_bins(qmap, known))
        shapes |= {"c2": (bins, count, count), "g2_twotime": (count, bins)}
        shapes |= {"g2_twotime_segments": (5, count // 5, bins)}
    shapes |= {
        "saxs_2d": qmap.shape,
        "saxs_1d": (qmap.n_static,),
        "saxs_1d_segments": (count // segment_length(count), qmap.n_static),
        "intensity": (count,),
        "intensity_q": (count, qmap.n_dynamic),
        **dict.fromkeys(("dynamic_roi_map", "static_roi_map", "mask"), qmap.shape),
    }
    kinds = {"pairs": "int64", "c2": "float32", "mask": "bool"}
    kinds |= dict.fromkeys(("dynamic_roi_map", "static_roi_map"), "int32")
    return shapes, {name: kinds.get(name, "float64") for name in shapes}


def _saturated(frames: Any, qmap: QMap) -> list[str]:
    """Warn of used pixels that show the largest value of their type in the first frame: dead or saturated."""
    import numpy as np

    if frames.dtype.kind not in "iu":
        return []
    count = int((np.asarray(frames[0]) == np.iinfo(frames.dtype).max)[qmap.dynamic > 0].sum())
    return [f"{count} used pixels are saturated or dead in the first frame"] if count else []


def _facts(qmap: QMap, known: Params, count: int) -> dict[str, Any]:
    import numpy as np

    from lightkeep.analysis import xpcs

    q = qmap.dynamic_q[np.isfinite(qmap.dynamic_q)]
    step = known.stride * known.average
    return {
        "frames": count,
        "q_bins": qmap.n_dynamic,
        "static_partitions": qmap.n_static,
        "used_pixels": int((qmap.dynamic > 0).sum()),
        "q_range": [float(q.min()), float(q.max())] if q.size else None,
        "duration_s": count * step * known.frame_time_s if known.frame_time_s else None,
        "qmap": xpcs.describe(qmap),
    }


def _result(done: State, params: Params) -> MultiTauResult:
    from lightkeep.analysis.xpcs import result_of

    how: dict[str, Any] = {"normalise": params.normalise, "scheme": params.scheme, "dpl": params.delays_per_level}
    return result_of(done.multitau, done.qmap, frame_time_s=params.frame_time_s, **how)


def _output(name: str, data: Any, scales: Mapping[str, tuple[Any, str]]) -> Output:
    spec = OUTPUTS[name]
    values = {axis: scales[axis][0] for axis in spec.axes if axis in scales}
    return Output(data, spec.axes, spec.unit, spec.label, values, {axis: scales[axis][1] for axis in values})


def multi_tau_outputs(qmap: QMap, found: MultiTauResult) -> dict[str, Output]:
    """Return the outputs of a multi-tau correlation, and those of its map, as writers take them."""
    import numpy as np

    time = np.arange(found.frames) * (found.frame_time_s or 1.0)
    scales = {
        "tau": (found.tau, found.units["tau"]),
        "q": (found.q, "1/angstrom"),
        "static": (found.static_q, "1/angstrom"),
        "frame": (time, "s" if found.frame_time_s else "frames"),
    }
    maps = {"dynamic_roi_map": qmap.dynamic, "static_roi_map": qmap.static, "mask": qmap.mask}
    values = {name: getattr(found, name) for name in OUTPUTS if hasattr(found, name)}
    return {name: _output(name, each, scales) for name, each in {**values, **maps}.items()}


def _two_time_outputs(found: TwoTimeResult) -> dict[str, Output]:
    import numpy as np

    unit = found.units["tau"]
    time = (found.time, unit)
    scales = {"bin": (found.bins, ""), "delay": (found.tau, unit), "t1": time, "t2": time}
    return {
        "c2": _output("c2", np.stack([found.c2[int(each)] for each in found.bins]), scales),
        "g2_twotime": _output("g2_twotime", found.g2, scales),
        "g2_twotime_segments": _output("g2_twotime_segments", found.g2_segments, {"bin": scales["bin"]}),
    }
