"""Parallel-beam tomography: line integrals, rotation centre, reconstruction.

The geometry is written down once, in `lightkeep.analysis.simulate.phantoms`.
"""

from lightkeep.analysis.tomography.angles import angular_weights
from lightkeep.analysis.tomography.center import CenterResult, find_center
from lightkeep.analysis.tomography.normalise import lit_flats, normalise
from lightkeep.analysis.tomography.nufft import Accuracy
from lightkeep.analysis.tomography.reconstruction import Method, reconstruct, working_memory

__all__ = [
    "Accuracy",
    "CenterResult",
    "Method",
    "angular_weights",
    "find_center",
    "lit_flats",
    "normalise",
    "reconstruct",
    "working_memory",
]
