"""Products of frames summed over pixels: by bytes, by BLAS, and by numpy's whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import twotime_dot as dot
from lightkeep.analysis.xpcs.twotime_gram import Groups
from lightkeep.analysis.xpcs.twotime_series import ROWS

COLUMNS = np.array([[0, 32], [32, 4352], [4352, 4416]])
WEIGHTS = np.array([1.0, 0.5, 2.0])


def counts(highest: int, frames: int) -> NDArray[np.uint8]:
    values = np.random.default_rng(highest).integers(0, highest + 1, (-(-frames // ROWS) * ROWS, 4416), np.uint8)
    values[frames:] = 0
    values[0] = highest  # the largest sum that can occur
    return values


def products(groups: Groups, frames: int, *, bytes_too: bool, threads: int) -> NDArray[np.float64]:
    sums = np.zeros((frames, frames))
    groups.add_products(sums, threads=threads, bytes_too=bytes_too)
    return sums


@pytest.mark.parametrize("highest", [1, 15, 16, 127, 128, 255])
@pytest.mark.parametrize("frames", [1, 95, 200])
def test_every_way_gives_the_sums_of_whole_numbers(frames: int, highest: int) -> None:
    values = counts(highest, frames)
    groups = Groups(values, COLUMNS, np.repeat(WEIGHTS[:, None], frames, axis=1), is_integer=True)
    exact = values[:frames].astype(np.int64)
    parts = [exact[:, begin:end] @ exact[:, begin:end].T for begin, end in COLUMNS]
    truth = np.triu(np.tensordot(WEIGHTS**2, np.stack(parts).astype(np.float64), 1))
    for bytes_too in (True, False):
        for threads in (1, 3):
            found = products(groups, frames, bytes_too=bytes_too, threads=threads)
            assert found.tobytes() == truth.tobytes()


@pytest.mark.parametrize("highest", [1, 2, 15, 90, 127])
def test_16_bit_sums_are_carried_before_they_overflow(highest: int) -> None:
    steps = dot.burst_of(highest)
    assert 0 < 2 * steps * highest**2 < 2**15 <= 2 * (steps + 1) * highest**2
