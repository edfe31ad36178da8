"""Parallel-beam tomography: line integrals, stripes, phase, rotation centre, reconstruction, rings.

The geometry is written down once, in `lightkeep.analysis.simulate.phantoms`.
"""

from lightkeep.analysis.tomography.angles import angular_weights
from lightkeep.analysis.tomography.center import CenterResult, center_sweep, find_center
from lightkeep.analysis.tomography.normalise import lit_flats, normalise
from lightkeep.analysis.tomography.nufft import Accuracy
from lightkeep.analysis.tomography.phase import paganin, paganin_halo, paganin_length
from lightkeep.analysis.tomography.quality import RingCorrelation, ring_correlation
from lightkeep.analysis.tomography.reconstruction import Method, reconstruct, working_memory
from lightkeep.analysis.tomography.rings import remove_rings
from lightkeep.analysis.tomography.scale import percentile_range, to_integers
from lightkeep.analysis.tomography.stitch import Overlap, Stitched, find_overlap, stitch_360
from lightkeep.analysis.tomography.stop_rule import Check, StopRule, Verdict, decide
from lightkeep.analysis.tomography.streaming import Quality, StreamingReconstruction
from lightkeep.analysis.tomography.stripes import remove_stripes_vo
from lightkeep.analysis.tomography.stripes_wavelet import remove_stripes_wavelet
from lightkeep.analysis.tomography.tilt import Tilt, find_tilt, tilt_halo, upright

__all__ = [
    "Accuracy",
    "CenterResult",
    "Check",
    "Method",
    "Overlap",
    "Quality",
    "RingCorrelation",
    "Stitched",
    "StopRule",
    "StreamingReconstruction",
    "Tilt",
    "Verdict",
    "angular_weights",
    "center_sweep",
    "decide",
    "find_center",
    "find_overlap",
    "find_tilt",
    "lit_flats",
    "normalise",
    "paganin",
    "paganin_halo",
    "paganin_length",
    "percentile_range",
    "reconstruct",
    "remove_rings",
    "remove_stripes_vo",
    "remove_stripes_wavelet",
    "ring_correlation",
    "stitch_360",
    "tilt_halo",
    "to_integers",
    "upright",
    "working_memory",
]
