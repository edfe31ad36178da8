"""A scan stops when its data suffice, and never because of what was not measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.analysis.tomography.stop_rule import Check, StopRule, decide, open_wedge

RULE = StopRule()
GOOD = [Check(count, 1 - 12 / count, 0.01) for count in range(64, 257, 16)]
GOLDEN = simulate.golden_angles(256)


def bit_reversed(count: int) -> NDArray[np.float64]:
    return np.array([int(f"{number:010b}"[::-1], 2) for number in range(count)]) * 180 / 1024


def test_a_scan_whose_quality_is_reached_and_stays_stops() -> None:
    verdict = decide(RULE, GOOD, theta_deg=GOLDEN, planned=600)
    assert verdict.stop
    assert (verdict.used, verdict.planned) == (256, 600)
    assert verdict.predicted == pytest.approx(1 - 12 / 600, abs=1e-6)
    assert "quality 0.953 is reached" in verdict.reason


@pytest.mark.parametrize(
    ("checks", "why"),
    [
        ([Check(240, 0.88, 0.01), Check(256, 0.89, 0.01)], "0.9 is wanted"),
        ([*GOOD[:-1], replace(GOOD[-1], change=0.03)], "still change by 3.0%"),
        ([*GOOD[:-2], replace(GOOD[-2], change=0.03), GOOD[-1]], "has to stay for 2 checks"),
        ([Check(32, 0.99, 0.001), Check(48, 0.99, 0.001)], "48 of at least 60"),
        ([*GOOD[:-1], Check(256, 0.85, 0.01)], "the sample moves"),
        (GOOD[:1], "wanted"),
    ],
)
def test_each_condition_alone_keeps_a_scan_going(checks: list[Check], why: str) -> None:
    verdict = decide(RULE, checks, theta_deg=GOLDEN[: checks[-1].projections], planned=600)
    assert not verdict.stop
    assert why in verdict.reason


def test_a_sequential_scan_is_never_stopped_and_is_told_why() -> None:
    theta = np.arange(600) * 180 / 600
    verdict = decide(RULE, GOOD, theta_deg=theta[:256], planned=600)
    assert not verdict.stop
    assert "come in sequence, and 104 degrees have not been seen yet" in verdict.reason
    assert not open_wedge(theta), "a whole one has no wedge"


@settings(max_examples=30, deadline=None)
@given(count=st.integers(8, 1000))
def test_golden_and_bit_reversed_angles_leave_no_wedge_at_any_time(count: int) -> None:
    assert not open_wedge(simulate.golden_angles(count))
    assert not open_wedge(bit_reversed(count))
    assert not open_wedge(simulate.golden_angles(count)[::-1] + 180)


def test_an_interlaced_scan_may_stop_once_its_first_turn_is_done() -> None:
    interlaced = np.arange(96) % 24 * 7.5 + np.arange(96) // 24 * 7.5 / 4
    assert "degrees have not been seen" in open_wedge(interlaced[:8])
    assert not open_wedge(interlaced[:24])
    assert not open_wedge(interlaced[:40])


@pytest.mark.parametrize("wrong", [{"quality": 1.0}, {"resolution_px": 1.0}, {"change": 0}, {"step": 0}])
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        StopRule(**wrong)  # type: ignore[arg-type]
