"""Two-time correlation of simulated speckle whose C(t1, t2) is known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightkeep.analysis import simulate
from lightkeep.analysis.xpcs import QMap, twotime

FRAMES, SHAPE = 120, (64, 64)
STATIC = np.kron(np.arange(1, 9).reshape(4, 2), np.ones((16, 32), np.int32))
QMAP = QMap.from_labels((STATIC + 3) // 4, STATIC)


def speckle(**options: Any) -> simulate.Speckle:
    """Two bins of full contrast that age: the rates fall to a quarter along the run."""
    return simulate.Speckle(
        labels=QMAP.dynamic,
        rates=np.array([0.1, 0.3]),
        mean=np.full(SHAPE, 2.0),
        n_frames=FRAMES,
        ageing=np.geomspace(1, 0.25, FRAMES),
        **options,
    )


@pytest.mark.parametrize("smooth", ["static", "average", None])
def test_c2_of_ageing_speckle_is_the_known_one_within_its_scatter(smooth: Any) -> None:
    found = [twotime(speckle(seed=seed), QMAP, smooth=smooth) for seed in range(6)]
    for number in (1, 2):
        maps = np.stack([one.corrected(number) for one in found]).astype(np.float64)
        truth = speckle().expected_c2(number)
        beside = np.triu(np.ones(truth.shape, bool), 1)
        deviation = (maps.mean(axis=0) - truth)[beside]
        error = maps.std(axis=0, ddof=1)[beside].mean() / np.sqrt(len(maps))
        # The largest of 7000 (correlated) deviations of 1 sigma; static partitions of 512 pixels take 1/512 away.
        assert np.abs(deviation).max() < 6 * error + 2 / 512
        assert abs(deviation.mean()) < error


def test_ageing_shows_in_cuts_at_an_age() -> None:
    found = [twotime(speckle(seed=seed), QMAP, smooth=None) for seed in range(4)]
    delay = np.arange(1, 6)
    factor = np.geomspace(1, 0.25, FRAMES)
    for age in (20, 100):
        g2 = np.mean([one.at_age(1, age, width=20) for one in found], axis=0)[delay]
        expected = 1 + np.exp(-2 * 0.1 * factor[age] * delay)
        # 20 ages x 2048 pixels x 4 runs; decays of some 5 to 20 frames: 1 % is five standard errors
        assert g2 == pytest.approx(expected, abs=0.05)
