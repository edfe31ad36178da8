"""Two-time correlation against what boost-corr gave; references/make_xpcs_twotime.py made the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeep.analysis.xpcs import QMap, twotime


@pytest.fixture(scope="module")
def boost() -> Mapping[str, Any]:
    return dict(np.load(Path(__file__).parent / "references" / "xpcs_twotime.npz"))


@pytest.mark.parametrize("method", ["gemm", "events"])
@pytest.mark.parametrize(("smooth", "name"), [("static", "sqmap"), ("dynamic", "dqmap"), (None, "dqmap")])
def test_two_time_is_that_of_boost_corr(boost: Mapping[str, Any], smooth: Any, name: str, method: Any) -> None:
    qmap = QMap.from_labels(boost["dynamic"], boost["static"])
    result = twotime(boost["frames"], qmap, smooth=smooth, method=method)
    for place, number in enumerate(result.bins):
        # boost-corr works in float32: 1e-6 of the values' size
        assert np.triu(result.c2[number]) == pytest.approx(boost[f"{name}_c2"][place], rel=2e-6)
    assert result.g2 == pytest.approx(boost[f"{name}_g2"], rel=1e-6)
    assert result.g2_segments == pytest.approx(boost[f"{name}_g2_segments"], rel=1e-6)
