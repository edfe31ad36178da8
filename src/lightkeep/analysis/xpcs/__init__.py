"""X-ray photon correlation spectroscopy: from frames or events to g2, and to what its decay says.

The definitions, and how they differ between programs, are in the documentation under "Correlation".

Maps, blocks and results load at once. What brings compiled kernels or scipy with it (seconds) loads when its name
is first used: a process that only looks into a file, where nothing may be compiled, does without.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lightkeep.analysis.xpcs.average import Average, Rejection, average_results
from lightkeep.analysis.xpcs.blocks import Block, Blocks, EventBlock, FrameBlock, iterate
from lightkeep.analysis.xpcs.kernels.layout import shards
from lightkeep.analysis.xpcs.normalise import result_of
from lightkeep.analysis.xpcs.qmap import PRESETS, Geometry, Grid, QMap, compacted, coordinates
from lightkeep.analysis.xpcs.qmap_arrays import describe, for_frames, qmap_of
from lightkeep.analysis.xpcs.result import UNITS, MultiTauResult
from lightkeep.analysis.xpcs.schemes import levels
from lightkeep.analysis.xpcs.sums import ExactSum, MultiTauSums, segment_length

if TYPE_CHECKING:
    from lightkeep.analysis.xpcs.fit import G2Fit, PowerLaw, fit_g2, fit_power_law
    from lightkeep.analysis.xpcs.multitau import MultiTau, multitau
    from lightkeep.analysis.xpcs.twotime import TwoTime, twotime
    from lightkeep.analysis.xpcs.twotime_multitau import MultiTauTwoTime, twotime_multitau
    from lightkeep.analysis.xpcs.twotime_result import TwoTimeResult, correct_diagonal, cut_at_age
    from lightkeep.analysis.xpcs.twotime_sums import TwoTimeSums

__all__ = [
    "PRESETS",
    "UNITS",
    "Average",
    "Block",
    "Blocks",
    "EventBlock",
    "ExactSum",
    "FrameBlock",
    "G2Fit",
    "Geometry",
    "Grid",
    "MultiTau",
    "MultiTauResult",
    "MultiTauSums",
    "MultiTauTwoTime",
    "PowerLaw",
    "QMap",
    "Rejection",
    "TwoTime",
    "TwoTimeResult",
    "TwoTimeSums",
    "average_results",
    "compacted",
    "coordinates",
    "correct_diagonal",
    "cut_at_age",
    "describe",
    "fit_g2",
    "fit_power_law",
    "for_frames",
    "iterate",
    "levels",
    "multitau",
    "qmap_of",
    "result_of",
    "segment_length",
    "shards",
    "twotime",
    "twotime_multitau",
]

_LATER = {
    "fit": ("G2Fit", "PowerLaw", "fit_g2", "fit_power_law"),
    "multitau": ("MultiTau", "multitau"),
    "twotime": ("TwoTime", "twotime"),
    "twotime_multitau": ("MultiTauTwoTime", "twotime_multitau"),
    "twotime_result": ("TwoTimeResult", "correct_diagonal", "cut_at_age"),
    "twotime_sums": ("TwoTimeSums",),
}
_HOMES = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


class _Package(ModuleType):
    """`multitau` and `twotime` are functions here, also after the modules of the same name were loaded."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
