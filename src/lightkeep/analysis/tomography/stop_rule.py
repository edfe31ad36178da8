"""When a scan has enough projections: the quality that its user wants is reached, and stays.

    a check, every `step` projections:
        a wedge is open ─────────────> go on: nothing is known about what was not measured (0 to 180 in sequence)
        fewer than `least` ──────────> go on
        mean ring correlation < q ───> go on
        still changing ──────────────> go on
        all of that holds `checks` times in a row ──> stop

The ring correlation is that of two halves of the angles, so the truth need not be known (see `streaming`). The
change guards against halves that agree on the same mistake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from lightkeep.analysis.tomography.quality import predicted

_WEDGE: Final = 4.0
"""A gap of this many mean gaps is a wedge. The widest of golden angles and of bit-reversed ones is below 2.7."""
_IN_ORDER: Final = 0.9
"""Share of steps in one direction above which angles come in sequence."""
_FALLING: Final = 0.05
"""Loss of mean ring correlation that a growing scan has no other reason for than a sample that moves."""


@dataclass(frozen=True)
class StopRule:
    """What is enough."""

    quality: float = 0.9
    """Mean ring correlation from the mean to the wanted resolution, 0 to 1."""
    resolution_px: float = 3.0
    """What the user wants to resolve: a period in pixels, at least 2."""
    change: float = 0.02
    """Relative change of the images between two checks that is still at rest."""
    checks: int = 2
    """Checks in a row that must agree."""
    least: int = 60
    """Projections before which no scan ends."""
    step: int = 16
    """Projections between two checks."""

    def __post_init__(self) -> None:
        if not (0 < self.quality < 1 and self.resolution_px >= 2 and self.change > 0):
            raise ValueError(
                f"quality {self.quality:g} must be between 0 and 1, resolution_px {self.resolution_px:g} >= 2, "
                f"change {self.change:g} above 0"
            )
        if min(self.checks, self.least, self.step) < 1:
            raise ValueError("checks, least and step must be 1 or more")


@dataclass(frozen=True)
class Check:
    """What one look at the images said."""

    projections: int
    quality: float
    """Mean ring correlation down to the wanted resolution."""
    change: float
    """Relative change since the look before."""
    resolution_px: float = float("nan")
    """Where the ring correlation falls below one half."""


@dataclass(frozen=True)
class Verdict:
    """Whether a scan is to stop, and why."""

    stop: bool
    reason: str
    used: int
    """Projections so far."""
    planned: int
    quality: float
    """Of the newest check."""
    predicted: float
    """What it would be after all planned projections."""
    is_drifting: bool = False
    """The quality fell: the sample may move."""


def open_wedge(theta_deg: ArrayLike) -> str:
    """Return why these angles leave a part of the half circle unseen; empty where they do not.

    Parameters
    ----------
    theta_deg: (n,) degrees, in the order in which they were measured.
    """
    theta = np.asarray(theta_deg, float).ravel()
    if theta.size < 2:
        return "one projection is no scan"
    folded = np.sort(np.mod(theta, 180.0))
    widest = float(np.diff(folded, append=folded[0] + 180.0).max())
    if widest <= _WEDGE * 180.0 / theta.size:
        return ""
    steps = np.diff(theta)
    in_order = max(np.mean(steps > 0), np.mean(steps < 0)) > _IN_ORDER
    how = "the angles come in sequence, and " if in_order else ""
    return f"{how}{widest:.0f} degrees have not been seen yet: measure at golden angles, or interlaced"


def decide(rule: StopRule, checks: Sequence[Check], *, theta_deg: ArrayLike, planned: int) -> Verdict:
    """Return whether a scan is to stop after these checks.

    Parameters
    ----------
    checks: all so far, oldest first; at least one.
    theta_deg: (n,) angles so far, degrees, in the order in which they were measured.
    planned: projections of the whole scan.

    Raises
    ------
    ValueError: there was no check.
    """
    if not checks:
        raise ValueError("no check was made: ask for the quality first")
    newest = checks[-1]
    counts, values = [each.projections for each in checks], [each.quality for each in checks]
    expected = max(newest.quality, predicted(counts, values, max(planned, newest.projections)))
    is_drifting = max(values) - newest.quality > _FALLING

    def verdict(stop: bool, reason: str) -> Verdict:
        return Verdict(stop, reason, newest.projections, planned, newest.quality, expected, is_drifting)

    if wedge := open_wedge(theta_deg):
        return verdict(False, wedge)
    if newest.projections < rule.least:
        return verdict(False, f"{newest.projections} of at least {rule.least} projections")
    if is_drifting:
        return verdict(
            False, f"the quality fell from {max(values):.3f} to {newest.quality:.3f}: the sample moves?"
        )
    if newest.quality < rule.quality:
        return verdict(False, f"quality {newest.quality:.3f}, {rule.quality:g} is wanted")
    if newest.change > rule.change:
        return verdict(False, f"the images still change by {newest.change:.1%}, {rule.change:.1%} is at rest")
    good = [each.quality >= rule.quality and each.change <= rule.change for each in checks[-rule.checks :]]
    if len(good) < rule.checks or not all(good):
        return verdict(False, f"quality {newest.quality:.3f} is reached; it has to stay for {rule.checks} checks")
    return verdict(
        True,
        f"quality {newest.quality:.3f} is reached at {rule.resolution_px:g} pixels, and the images are at rest",
    )
