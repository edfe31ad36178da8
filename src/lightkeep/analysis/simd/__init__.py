"""SIMD from Python: vectors as numba values, compiled functions whose cache can be trusted, and units whose
machine code runs without numba.

`compiled` is here when first asked for: numba takes longer to import than everything else together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightkeep.analysis.simd.compile import compiled

__all__ = ["compiled"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lightkeep.analysis.simd.compile import compiled

    globals()["compiled"] = compiled
    return compiled
