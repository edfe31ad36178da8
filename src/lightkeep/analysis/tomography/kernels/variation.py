"""Steps of a primal-dual method for total variation, in lanes; Condat (2013), J. Optim. Theory Appl. 158, 460."""

# ruff: noqa: ARG001  (numba matches an intrinsic's arguments by their names, LLVM's generators by their places)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils as _untyped_cgutils
from numba.extending import intrinsic as _untyped_intrinsic

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import LANES_TYPE, fmuladd, load, select_less, splat, store, zero
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.kernels.fft import ELEMENT, IMAGINARY

intrinsic: Callable[[Callable[..., Any]], Any] = _untyped_intrinsic
cgutils: Any = _untyped_cgutils
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@intrinsic
def root(context: Any, value: Any) -> Any:
    """root(lanes) -> their square roots."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32")
        return builder.call(function, values)

    return LANES_TYPE(LANES_TYPE), generate


@part
def fields_into(right: int, down: int, at: int, x: int, y: int, columns: int):  # type: ignore[no-untyped-def]
    """What the dual fields bring to an element: the negative divergence."""
    row = columns * ELEMENT
    found = zero() - load(right + at) - load(down + at)
    if x > 0:
        found = found + load(right + at - ELEMENT)
    if y > 0:
        found = found + load(down + at - row)
    return found


@compiled
def primal(x: int, hx: int, b: int, fields: int, ahead: int, step: float, columns: int) -> int:
    """One step down the gradient, none below zero; `ahead` gets the point as far beyond.

    fields: the dual ones, to the right and then down, (2, columns, columns) elements; zero at the far edges.
    """
    right, down = fields, fields + columns * columns * ELEMENT
    length = splat(-step)
    for y in range(columns):
        for i in range(columns):
            for side in range(2):
                at = (y * columns + i) * ELEMENT + side * IMAGINARY
                slope = load(hx + at) - load(b + at) + fields_into(right, down, at, i, y, columns)
                old = load(x + at)
                new = fmuladd(length, slope, old)
                new = select_less(new, zero(), zero(), new)
                store(x + at, new)
                store(ahead + at, new + new - old)
    return 0


@compiled
def dual(ahead: int, fields: int, step: float, weight: float, columns: int) -> int:
    """Move the dual fields along the point's differences; none longer than the weight."""
    right, down = fields, fields + columns * columns * ELEMENT
    row = columns * ELEMENT
    length, most, least = splat(step), splat(weight), splat(1e-30)
    for y in range(columns):
        for i in range(columns):
            for side in range(2):
                at = (y * columns + i) * ELEMENT + side * IMAGINARY
                here, u, v = load(ahead + at), load(right + at), load(down + at)
                if i < columns - 1:
                    u = fmuladd(length, load(ahead + at + ELEMENT) - here, u)
                if y < columns - 1:
                    v = fmuladd(length, load(ahead + at + row) - here, v)
                norm = root(u * u + v * v)
                scale = select_less(norm, most, splat(1.0), most / select_less(norm, least, least, norm))
                store(right + at, u * scale)
                store(down + at, v * scale)
    return 0
