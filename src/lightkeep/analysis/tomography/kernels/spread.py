"""One sample onto width x width cells, as one operation: a call for each sample would cost half as much again."""

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


def _spread(width: int) -> Any:
    def emit(builder: Any, cell: Any, pitch: Any, across: Any, along: Any, real: Any, imaginary: Any) -> None:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        fmuladd = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        weights = [_splat(builder, across, i) for i in range(width)]
        for row in range(width):
            weight = _splat(builder, along, row)
            parts = builder.fmul(real, weight), builder.fmul(imaginary, weight)
            start = builder.inttoptr(builder.add(cell, builder.mul(pitch, _LONG(row))), _VECTOR.as_pointer())
            for column in range(width):
                for number, part in enumerate(parts):
                    place = builder.gep(start, [_LONG(2 * column + number)])
                    sum_ = builder.call(fmuladd, [weights[column], part, builder.load(place, align=4)])
                    builder.store(sum_, place, align=4)

    def typed(context: Any, cell: Any, pitch: Any, wx: Any, wy: Any, real: Any, imaginary: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit(builder, *values)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4, LANES_TYPE, LANES_TYPE), generate

    return intrinsic(typed)


spread_3: Any = _spread(3)
"""spread_3(cell, pitch, wx, wy, real, imaginary): add lanes to 3 x 3 elements, weighted; rows `pitch` bytes apart.

wx, wy: addresses of 3 float32.
"""
spread_4: Any = _spread(4)
"""The same with 4 x 4 elements."""
spread_5: Any = _spread(5)
"""The same with 5 x 5 elements."""
