"""Beamlines that do not exist: measurements with exactly known truth, written as real ones write them."""

from lightkeep.testing.beamline.pace import paced
from lightkeep.testing.beamline.tomography import Truth, simulate_tomography
from lightkeep.testing.beamline.xpcs import XPCS_FORMATS, Colloid, XpcsTruth, simulate_xpcs

__all__ = ["XPCS_FORMATS", "Colloid", "Truth", "XpcsTruth", "paced", "simulate_tomography", "simulate_xpcs"]
