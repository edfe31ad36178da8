"""Measurements with exactly known truth."""

from lightkeep.analysis.simulate.phantoms import Phantom, materials_sample, shepp_logan, shepp_logan_3d
from lightkeep.analysis.simulate.speckle import Speckle
from lightkeep.analysis.simulate.tomography import (
    Flaws,
    TomographyScan,
    golden_angles,
    interlaced_angles,
    tomography_scan,
)

__all__ = [
    "Flaws",
    "Phantom",
    "Speckle",
    "TomographyScan",
    "golden_angles",
    "interlaced_angles",
    "materials_sample",
    "shepp_logan",
    "shepp_logan_3d",
    "tomography_scan",
]
