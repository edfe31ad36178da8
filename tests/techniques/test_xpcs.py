"""XPCS as a technique: the same bytes however it is cut, and nothing wrong without a word."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeep.analysis import xpcs as analysis
from lightkeep.lifecycle.pieces import blocks
from lightkeep.model.datasets import Dataset, DatasetKind, Metadata
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity
from lightkeep.techniques import xpcs
from lightkeep.testing.suites.technique import TechniqueSuite, source_of
from lightkeep.testing.xpcs_oracle import brute_force

SHAPE = (96, 224)
"""Five blocks of pixels and a bit."""
FRAMES = np.random.default_rng(5).poisson(0.3, (37, *SHAPE)).astype(np.uint8)
GEOMETRY = {
    "frame_time": Quantity.of(2.0, "ms"),
    "energy": Quantity.of(10.9, "keV"),
    "distance": Quantity.of(8.0, "m"),
    "pixel_size": Quantity.of(76.0, "um"),
    "beam_center_x": Quantity.of(20.0, "pixel"),
    "beam_center_y": Quantity.of(50.0, "pixel"),
}
STATIC_ONLY = {"g2", "g2_err", "g2_partial", "pairs"}


def run_of(folder: Path, frames: Any = FRAMES, **quantities: Quantity) -> Source:
    """Return a run in memory with its metadata."""
    return replace(source_of(folder, frames=frames), metadata=Metadata(quantities={**GEOMETRY, **quantities}))


def bins(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return (H, W) labels: columns cut into seven static partitions, two to a dynamic bin."""
    return np.broadcast_to(1 + np.arange(shape[1]) * 7 // shape[1], shape).copy()


def with_qmap(source: Source, static: np.ndarray, dynamic: np.ndarray | None = None) -> Source:
    """Return the source with a q map as the file of one gives it."""
    dynamic = (static + 1) // 2 if dynamic is None else dynamic
    arrays = {"dynamic_roi_map": dynamic, "static_roi_map": static, "mask": static > 0}
    return replace(source, inputs={"qmap": Source(source.path.with_name("qmap.h5"), "qmap", "", arrays)})


class XpcsSuite(TechniqueSuite):
    """What holds for both kinds of correlation: equal to the last bit, not to rounding."""

    name = "xpcs"

    def example(self, folder: Path) -> Source:
        return run_of(folder)

    def unusable(self, folder: Path) -> Sequence[Source]:
        good = run_of(folder)
        static = bins()
        return [
            source_of(folder, projections=FRAMES),
            source_of(folder, frames=FRAMES),  # no geometry, no q map
            run_of(folder, FRAMES[:1]),
            run_of(folder, FRAMES[0]),
            with_qmap(good, bins((64, 64))),
            with_qmap(good, static, np.where(np.arange(SHAPE[1]) < 40, 1, 2) * np.ones(SHAPE, int)),
            with_qmap(good, np.zeros(SHAPE, int)),
        ]

    def test_any_cut_gives_the_same_bytes(self, tmp_path: Path) -> None:
        source = self.example(tmp_path)
        found = self.preflight(source)
        whole = self.compute(source, found, [(0, found.length)])
        for cuts in ([(0, 1), (1, 6)], [(3, 6), (0, 3)], [(at, at + 1) for at in range(found.length)]):
            pieces = self.compute(source, found, cuts)
            assert {name: each.tobytes() for name, each in pieces.items()} == {
                name: each.tobytes() for name, each in whole.items()
            }


class TestMultiTau(XpcsSuite):
    pass


class TestBoth(XpcsSuite):
    params = {"mode": "both", "preset": "wa-xpcs"}


class TestTwoTimeOfSomeBins(XpcsSuite):
    params = {"mode": "twotime", "bins": "2, 5-6", "average": 2}

    def test_it_makes_no_multi_tau_outputs(self, tmp_path: Path) -> None:
        shapes = self.preflight(self.example(tmp_path)).shapes
        assert not STATIC_ONLY & set(shapes)
        assert shapes["c2"] == (3, 18, 18)


def compute(source: Source, **given: Any) -> tuple[dict[str, Any], list[str], xpcs.Params]:
    """Return (outputs, flags, parameters in force) of a run in one piece."""
    found = xpcs.preflight(source, xpcs.Params(**given))
    params = xpcs.Params(**json.loads(json.dumps(dict(found.params))))
    state = xpcs.start(source, params, 0, found.length)
    for block, begin, _ in blocks(xpcs, source, params, 0, found.length):
        state = xpcs.push(state, block, begin)
    return xpcs.finish(state, params), xpcs.flags(state, params), params
