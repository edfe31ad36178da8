"""Two neighbouring samples of a diameter onto the cells that either reaches.

They begin in the same cell or in the next one. Which, is not asked: where one does not reach, its weight is zero.
A branch for each of the ways in which they may lie took longer than all the arithmetic.
"""

# ruff: noqa: ARG001  (numba matches an intrinsic's arguments by their names, LLVM's generators by their places)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils as _untyped_cgutils
from numba.core import types
from numba.extending import intrinsic as _untyped_intrinsic

from lightkeep.analysis.simd.lanes import LANES_TYPE
from lightkeep.analysis.simd.width import LANES

intrinsic: Callable[[Callable[..., Any]], Any] = _untyped_intrinsic
cgutils: Any = _untyped_cgutils
_FLOAT, _LONG, _WORD = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)


def _splat(builder: Any, address: Any, index: int) -> Any:
    place = builder.gep(builder.inttoptr(address, _FLOAT.as_pointer()), [_LONG(index)])
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), builder.load(place, align=4), _WORD(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_WORD, LANES), [0] * LANES))


def _spread_two(width: int) -> Any:
    def emit(builder: Any, cell: Any, pitch: Any, weights: Any, values: Any) -> None:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        fmuladd = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        across = [[_splat(builder, wx, column) for wx, _ in weights] for column in range(width + 1)]
        for row in range(width + 1):
            start = builder.inttoptr(builder.add(cell, builder.mul(pitch, _LONG(row))), _VECTOR.as_pointer())
            along = [_splat(builder, wy, row) for _, wy in weights]
            parts = [[builder.fmul(value, along[i]) for value in values[i]] for i in range(2)]
            for column in range(width + 1):
                for side in range(2):
                    place = builder.gep(start, [_LONG(2 * column + side)])
                    sum_ = builder.load(place, align=4)
                    for i in range(2):
                        sum_ = builder.call(fmuladd, [across[column][i], parts[i][side], sum_])
                    builder.store(sum_, place, align=4)

    def typed(
        context: Any, cell: Any, pitch: Any, wx: Any, wy: Any, ux: Any, uy: Any, vr: Any, vi: Any, zr: Any, zi: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi = values
            emit(builder, cell, pitch, ((wx, wy), (ux, uy)), ((vr, vi), (zr, zi)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6, *[LANES_TYPE] * 4), generate

    return intrinsic(typed)


two_3: Any = _spread_two(3)
"""two_3(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi): add v, weighted by w, and z, by u, to 4 x 4 elements.

cell: address of the first; rows are `pitch` bytes apart. wx, wy, ux, uy: addresses of 4 float32.
"""
two_4: Any = _spread_two(4)
"""The same with 5 x 5 elements."""
two_5: Any = _spread_two(5)
"""The same with 6 x 6 elements."""
