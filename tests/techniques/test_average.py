"""The technique to copy: the mean of a stack of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lightkeep.model.formats import Source
from lightkeep.techniques import average
from lightkeep.testing.suites.technique import TechniqueSuite, source_of

FRAMES = np.random.default_rng(3).poisson(40.0, (7, 4, 5)).astype(np.uint16)


class TestAverage(TechniqueSuite):
    name = "average"

    def example(self, folder: Path) -> Source:
        return source_of(folder, frames=FRAMES)

    def unusable(self, folder: Path) -> Sequence[Source]:
        return [
            source_of(folder, projections=FRAMES),
            source_of(folder, frames=FRAMES[:0]),
            source_of(folder, frames=FRAMES[0]),
        ]

    def test_it_is_the_mean_and_the_standard_deviation(self, tmp_path: Path) -> None:
        source = self.example(tmp_path)
        outputs = self.compute(source, self.preflight(source), [(0, 3), (3, 7)])
        np.testing.assert_allclose(outputs["mean"], FRAMES.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(outputs["deviation"], FRAMES.std(axis=0), rtol=1e-12)


def test_a_small_scatter_on_a_large_mean_survives(tmp_path: Path) -> None:
    suite = TestAverage()
    frames = 1e9 + np.arange(6.0)[:, None, None] * np.ones((1, 2, 2))
    source = source_of(tmp_path, frames=frames)
    outputs = suite.compute(source, suite.preflight(source), [(0, 2), (2, 6)])
    np.testing.assert_allclose(outputs["deviation"], np.arange(6.0).std(), rtol=1e-6)


def test_saturated_pixels_are_counted(tmp_path: Path) -> None:
    source = source_of(tmp_path, frames=FRAMES)
    (warning,) = average.preflight(source, average.Params(saturation=1)).warnings
    assert warning == "20 pixels of the first frame are saturated"
    with pytest.raises(ValueError, match="saturation"):
        average.Params(saturation=0)
