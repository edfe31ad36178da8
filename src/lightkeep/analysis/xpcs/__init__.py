"""X-ray photon correlation spectroscopy: from frames or events to g2, and to what its decay says.

The definitions, and how they differ between programs, are in the documentation under "Correlation".
"""

from lightkeep.analysis.xpcs.blocks import Block, Blocks, EventBlock, FrameBlock, iterate
from lightkeep.analysis.xpcs.fit import G2Fit, PowerLaw, fit_g2, fit_power_law
from lightkeep.analysis.xpcs.layout import shards
from lightkeep.analysis.xpcs.multitau import MultiTau, multitau
from lightkeep.analysis.xpcs.normalise import result_of
from lightkeep.analysis.xpcs.qmap import PRESETS, Geometry, Grid, QMap, compacted, coordinates
from lightkeep.analysis.xpcs.qmap_arrays import describe, for_frames, qmap_of
from lightkeep.analysis.xpcs.result import UNITS, MultiTauResult
from lightkeep.analysis.xpcs.schemes import levels
from lightkeep.analysis.xpcs.sums import ExactSum, MultiTauSums, segment_length
from lightkeep.analysis.xpcs.twotime import TwoTime, twotime
from lightkeep.analysis.xpcs.twotime_result import TwoTimeResult, correct_diagonal, cut_at_age
from lightkeep.analysis.xpcs.twotime_sums import TwoTimeSums

__all__ = [
    "PRESETS",
    "UNITS",
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
    "PowerLaw",
    "QMap",
    "TwoTime",
    "TwoTimeResult",
    "TwoTimeSums",
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
]
