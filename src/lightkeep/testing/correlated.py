"""Correlation results of simulated runs in a populated facility: for tests of what shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightkeep import formats
from lightkeep.analysis.simulate import Speckle
from lightkeep.analysis.xpcs import Geometry, QMap, describe, multitau, twotime
from lightkeep.lifecycle import set_up
from lightkeep.lifecycle.ingest import ingest
from lightkeep.model.datasets import Dataset, DatasetKind, Metadata
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.formats import Output, Result
from lightkeep.model.people import SERVICE, Grant, Principal, Role, Scope
from lightkeep.model.quantity import Quantity
from lightkeep.testing.populated import ROLES, Populated

STATION = "8-ID-I"
EXPERIMENT = "2026-11-chen-90210"
FRAME_TIME_S = 1e-3
COUNTS = "counts/pixel/frame"
FLAG = "3 saturated pixels were left out"


@dataclass(frozen=True)
class Correlated:
    """Results of XPCS in an experiment of their own, in which everybody has the same role as in the other one."""

    runs: tuple[Dataset, ...]
    """Results of runs of the same sample; the last of another, ten times faster."""
    qmap: QMap
    diffusion: float
    """angstrom^2/s, of the sample of all but the last."""


def add_correlation(
    house: Populated, folder: Path, *, size: int = 64, frames: int = 480, runs: int = 4, ageing: bool = False
) -> Correlated:
    """Reduce simulated runs of `frames` frames of size x size pixels, and take the results in.

    Parameters
    ----------
    folder: an empty folder to write into.
    ageing: the samples slow down by a factor of 3 while they are measured.
    """
    admin = Principal("facility-admin")
    set_up.add_station(house.facility, Station(STATION, "Small-angle XPCS", ("xpcs",)), principal=admin)
    set_up.create_experiment(house.facility, Experiment(EXPERIMENT, STATION, "Colloids"), principal=admin)
    for role in ROLES[2:-1]:
        scope, where = (Scope.STATION, STATION) if role.startswith("station") else (Scope.EXPERIMENT, EXPERIMENT)
        set_up.grant(house.facility, Grant(role, Role(role), scope, where), principal=admin)
    qmap = _qmap(size)
    diffusion = 0.015 / FRAME_TIME_S / float(np.median(qmap.dynamic_q)) ** 2
    made = []
    for number in range(runs):
        faster = 10.0 if number == runs - 1 else 1.0
        speckle = _speckle(qmap, frames, diffusion * faster, seed=number, ageing=ageing)
        here = folder / f"silica-{number + 1}"
        here.mkdir(parents=True)
        formats.get("aps-8id").write(here, _result(speckle, qmap, here.name))
        taken = ingest(
            house.facility,
            here,
            experiment_id=EXPERIMENT,
            principal=SERVICE,
            name=f"{here.name}-xpcs",
            kind=DatasetKind.DERIVED,
            technique="xpcs",
            quiet_s=0.0,
        )
        made.append(taken.dataset)
    return Correlated(tuple(made), qmap, diffusion)


def _qmap(size: int) -> QMap:
    """Rings about a beam near a corner, with a beam stop, a gap between modules and a dead corner."""
    geometry = Geometry(0.2 * size, 0.3 * size, 75e-6 * 128 / size, 5.0, 10.0)
    row, column = np.mgrid[:size, :size]
    mask = np.hypot(row - geometry.beam_center_y, column - geometry.beam_center_x) > 0.08 * size
    mask[:, size // 2 : size // 2 + max(1, size // 64)] = False
    mask[: size // 8, -size // 8 :] = False
    return QMap.from_geometry((size, size), geometry, dynamic=(8, 1), static=(32, 1), mask=mask)


def _speckle(qmap: QMap, frames: int, diffusion: float, *, seed: int, ageing: bool) -> Speckle:
    t = np.arange(frames)
    falling = np.where(qmap.static > 0, qmap.static, 1)
    q = qmap.static_q[falling - 1]
    return Speckle(
        labels=np.asarray(qmap.dynamic, np.int32),
        rates=diffusion * qmap.dynamic_q**2 * FRAME_TIME_S,
        mean=2.0 * (q / qmap.static_q.min()) ** -1.5,
        n_frames=frames,
        modes=4,
        ageing=(1.0 / (1.0 + 2.0 * t / frames)) if ageing else None,
        beam=1.0 + 0.02 * np.sin(2 * np.pi * 0.12 * t),
        seed=seed,
    )


def _result(speckle: Speckle, qmap: QMap, name: str) -> Result:
    blocks: Any = speckle
    one = multitau(blocks, qmap, frame_time_s=FRAME_TIME_S, threads=1)
    bins = (2, 5, 8)
    two = twotime(blocks, qmap, bins=bins, frame_time_s=FRAME_TIME_S, threads=1)
    tau, q = {"tau": one.tau}, {"q": one.q}
    time = {"t1": two.time, "t2": two.time}
    numbers = {"bin": np.array(bins)}
    outputs = {
        "g2": _output(one.g2, "tau q", **tau, **q),
        "g2_err": _output(one.g2_err, "tau q", **tau, **q),
        "saxs_2d": _output(np.where(qmap.mask, one.saxs_2d, 0.0), "row column"),
        "saxs_1d": _output(one.saxs_1d, "static", static=one.static_q),
        "saxs_1d_segments": _output(one.saxs_1d_segments, "segment static", static=one.static_q),
        "intensity": _output(one.intensity, "frame", frame=np.arange(one.frames) * FRAME_TIME_S),
        "dynamic_roi_map": _output(qmap.dynamic, "row column"),
        "static_roi_map": _output(qmap.static, "row column"),
        "mask": _output(qmap.mask, "row column"),
        "c2": _output(np.stack([two.c2[each] for each in bins]), "bin t1 t2", **numbers, **time),
        "g2_twotime": _output(two.g2, "delay bin", **numbers, delay=two.tau),
        "g2_twotime_segments": _output(two.g2_segments, "segment delay bin", **numbers),
    }
    measured = {"frame_time": (FRAME_TIME_S, "s"), "exposure_time": (0.9, "ms"), "energy": (10.0, "keV")}
    return Result(
        technique="xpcs",
        title=f"xpcs of {name}",
        outputs=outputs,
        default="g2",
        params={"begin": 0, "end": one.frames, "stride": 1, "average": 1, "frame_time_s": FRAME_TIME_S},
        software="lightkeep test",
        inputs={"ds_1": name},
        facts={"qmap": describe(qmap), "flags": [FLAG]},
        metadata=Metadata({key: Quantity.of(*value) for key, value in measured.items()}, {"sample": "silica"}),
    )


def _output(data: Any, axes: str, **scales: Any) -> Output:
    units = {"tau": "s", "delay": "s", "t1": "s", "t2": "s", "frame": "s", "q": "1/angstrom"}
    used = {name: units.get(name, "") for name in scales}
    return Output(data, tuple(axes.split()), COUNTS if "saxs" in axes else "", "", scales, used)
