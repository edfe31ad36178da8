"""How wide vectors are on this machine; known without numba."""

from __future__ import annotations

from typing import Final

import llvmlite.binding

FEATURES: Final[dict[str, bool]] = dict(llvmlite.binding.get_host_cpu_features())
"""Instruction sets of this machine, as LLVM names them."""
LANES: Final = 16 if FEATURES.get("avx512f") else 8
"""float32 numbers in a vector: one register with AVX-512 and AVX, else two."""
