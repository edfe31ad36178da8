"""SIMD from Python: a vector of lanes as a numba value, and compiled functions whose cache can be trusted."""

from lightkeep.analysis.simd.compile import compiled

__all__ = ["compiled"]
