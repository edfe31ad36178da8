"""Results of XPCS with known curves, as the technique hands them to a writer: for tests of formats and pages."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import Geometry, QMap, describe, levels
from lightkeep.model.datasets import Metadata
from lightkeep.model.formats import Output, Result
from lightkeep.model.quantity import Quantity

GEOMETRY = Geometry(20.5, 11.0, 75e-6, 5.0, 10.0)
SHAPE = (24, 32)
FRAMES = 48
FRAME_TIME_S = 1e-3
STRIDE, AVERAGE = 2, 3
DIFFUSION = 2e7
"""angstrom^2/s: g2 = 1 + 0.2 exp(-2 DIFFUSION q^2 tau)."""
MEASURED = Metadata(
    {
        "frame_time": Quantity.of(FRAME_TIME_S, "s"),
        "exposure_time": Quantity.of(0.9, "ms"),
        "energy": Quantity.of(10.0, "keV"),
        "distance": Quantity.of(5.0, "m"),
        "pixel_size": Quantity.of(75, "um"),
        "beam_center_x": Quantity.of(20.5, "pixel"),
        "beam_center_y": Quantity.of(11.0, "pixel"),
        "temperature": Quantity.of(295.0, "K"),
    },
    {"sample": "silica 100 nm", "detector": "eiger4M", "start_time": "2026-11-22 09:00:00", "title": "Silica"},
)
COUNTS = "counts/pixel/frame"


def sample_qmap(dynamic: tuple[int, int] = (3, 2), static: tuple[int, int] = (12, 8)) -> QMap:
    """Rings about the beam, cut into wedges, with a dead corner."""
    mask = np.ones(SHAPE, bool)
    mask[:4, :5] = False
    return QMap.from_geometry(SHAPE, GEOMETRY, dynamic=dynamic, static=static, mask=mask)


def sample_result(
    qmap: QMap | None = None, *, mode: str = "both", bins: tuple[int, ...] = (1, 3), seed: int = 8, **changes: Any
) -> Result:
    """A result of `FRAMES` frames, every second of which was taken and three put together.

    Parameters
    ----------
    mode: `multitau`, `twotime` or `both`.
    bins: of the two-time correlation.
    seed: of the static curves, which are noise.
    changes: other fields of the result.
    """
    qmap = sample_qmap() if qmap is None else qmap
    rng = np.random.default_rng(seed)
    outputs = _static(qmap, rng)
    if mode != "twotime":
        outputs |= _multi_tau(qmap, rng)
    if mode != "multitau":
        outputs |= _two_time(qmap, bins)
    given: dict[str, Any] = {
        "technique": "xpcs",
        "title": "xpcs of silica-7",
        "outputs": outputs,
        "default": next(iter(outputs)),
        "params": {
            "mode": mode,
            "begin": 0,
            "end": FRAMES * STRIDE * AVERAGE,
            "stride": STRIDE,
            "average": AVERAGE,
            "bad_frames": [17, 200],
            "delays_per_level": 4,
            "scheme": "aps",
            "normalise": "partition",
            "smooth": "static",
            "frame_time_s": None,
        },
        "software": "lightkeep 0.1.0",
        "inputs": {"ds_1": "silica-7", "ds_2": "rings"},
        "command": "lightkeep run xpcs ds_1",
        "facts": {"qmap": describe(qmap), "flags": ["2 frames were left out"], "q_bins": qmap.n_dynamic},
        "metadata": MEASURED,
    }
    return Result(**{**given, **changes})


def _static(qmap: QMap, rng: np.random.Generator) -> dict[str, Output]:
    q = {"static": (qmap.static_q, "1/angstrom")}
    time = {"frame": (np.arange(FRAMES) * FRAME_TIME_S * STRIDE * AVERAGE, "s")}
    curve = 100 * np.exp(-50 * qmap.static_q)
    segments = curve * rng.uniform(0.9, 1.1, (4, 1))
    values: dict[str, tuple[NDArray[Any], tuple[str, ...], str, dict[str, Any]]] = {
        "saxs_2d": (rng.uniform(1, 100, SHAPE) * qmap.mask, ("row", "column"), COUNTS, {}),
        "saxs_1d": (curve, ("static",), COUNTS, q),
        "saxs_1d_segments": (segments, ("segment", "static"), COUNTS, q),
        "intensity": (rng.uniform(9, 11, FRAMES), ("frame",), COUNTS, time),
        "intensity_q": (rng.uniform(9, 11, (FRAMES, qmap.n_dynamic)), ("frame", "q"), COUNTS, time),
        "dynamic_roi_map": (qmap.dynamic, ("row", "column"), "", {}),
        "static_roi_map": (qmap.static, ("row", "column"), "", {}),
        "mask": (qmap.mask, ("row", "column"), "", {}),
    }
    return {name: output(*parts) for name, parts in values.items()}


def _multi_tau(qmap: QMap, rng: np.random.Generator) -> dict[str, Output]:
    steps = levels(FRAMES)
    tau_frames = np.array([lag * 2**level for level, lag in steps])
    pairs = np.array([FRAMES // 2**level - lag for level, lag in steps])
    tau = tau_frames * FRAME_TIME_S * STRIDE * AVERAGE
    q = {"tau": (tau, "s"), "q": (qmap.dynamic_q, "1/angstrom")}
    g2 = decay(tau[:, None], qmap.dynamic_q)
    return {
        "g2": output(g2, ("tau", "q"), "", q),
        "g2_err": output(rng.uniform(1e-3, 2e-3, g2.shape), ("tau", "q"), "", q),
        "g2_partial": output(decay(tau[:, None], qmap.static_q), ("tau", "static"), "", {"tau": q["tau"]}),
        "pairs": output(pairs, ("tau",), "", {"tau": q["tau"]}),
    }


def _two_time(qmap: QMap, bins: tuple[int, ...]) -> dict[str, Output]:
    time = np.arange(FRAMES) * FRAME_TIME_S * STRIDE * AVERAGE
    between = np.abs(time[:, None] - time)
    c2 = np.stack([decay(between, qmap.dynamic_q[number - 1]) for number in bins]).astype(np.float32)
    c2[:, np.arange(FRAMES), np.arange(FRAMES)] += 0.5  # shot noise
    g2 = np.stack([[np.diagonal(each, k).mean() for k in range(FRAMES)] for each in c2], axis=1).astype(float)
    piece = FRAMES // 5
    segments = np.stack([g2[:piece] * (1 + 0.01 * part) for part in range(5)])
    numbers = {"bin": (np.array(bins), "")}
    times = {"t1": (time, "s"), "t2": (time, "s")}
    return {
        "c2": output(c2, ("bin", "t1", "t2"), "", {**numbers, **times}),
        "g2_twotime": output(g2, ("delay", "bin"), "", {**numbers, "delay": (time, "s")}),
        "g2_twotime_segments": output(segments, ("segment", "delay", "bin"), "", numbers),
    }


def decay(tau: NDArray[np.float64], q: Any) -> NDArray[np.float64]:
    """The g2 of the samples."""
    found: NDArray[np.float64] = 1 + 0.2 * np.exp(-2 * DIFFUSION * np.square(q) * tau)
    return found


def output(data: Any, axes: tuple[str, ...], unit: str, scales: dict[str, Any]) -> Output:
    """An output with its scales as name -> (values, unit)."""
    used = {name: scale for name, scale in scales.items() if name in axes}
    return Output(
        data,
        axes,
        unit,
        "",
        {name: v for name, (v, _) in used.items()},
        {name: u for name, (_, u) in used.items()},
    )
