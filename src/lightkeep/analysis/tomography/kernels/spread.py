"""Samples onto width x width cells, one or two as one operation: a call for each would cost half as much again.

Neighbours on a diameter share most of their cells. Both at once store two fifths less, and stores are what takes
time: a projection took 0.8 of what it took before (AVX2, 512 x 512 from 720 angles), with the same values.
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


def _spread_two(width: int, across: int, along: int) -> Any:
    """Two samples, the second `across` cells to the right and `along` further down."""
    starts = (max(0, -across), 0), (max(0, across), along)

    def emit(builder: Any, cell: Any, pitch: Any, weights: Any, values: Any) -> None:
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        fmuladd = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
        columns = [[_splat(builder, wx, i) for i in range(width)] for wx, _ in weights]
        for row in range(width + along):
            begin = builder.inttoptr(builder.add(cell, builder.mul(pitch, _LONG(row))), _VECTOR.as_pointer())
            here = [number for number in range(2) if 0 <= row - starts[number][1] < width]
            parts = {}
            for number in here:
                weight = _splat(builder, weights[number][1], row - starts[number][1])
                parts[number] = [builder.fmul(value, weight) for value in values[number]]
            for column in range(width + abs(across)):
                reached = [number for number in here if 0 <= column - starts[number][0] < width]
                for side in range(2 if reached else 0):
                    place = builder.gep(begin, [_LONG(2 * column + side)])
                    sum_ = builder.load(place, align=4)
                    for number in reached:
                        weight = columns[number][column - starts[number][0]]
                        sum_ = builder.call(fmuladd, [weight, parts[number][side], sum_])
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


spread_3: Any = _spread(3)
"""spread_3(cell, pitch, wx, wy, real, imaginary): add lanes to 3 x 3 elements, weighted; rows `pitch` bytes apart.

wx, wy: addresses of 3 float32.
"""
spread_4: Any = _spread(4)
"""The same with 4 x 4 elements."""
spread_5: Any = _spread(5)
"""The same with 5 x 5 elements."""

two_here: Any = _spread_two(4, 0, 0)
"""two_here(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi): two samples, each onto 4 x 4 elements, here the same.

v, of the weights w, comes first; z, of the weights u, is added to what that left.
"""
two_right: Any = _spread_two(4, 1, 0)
"""The second sample begins an element to the right."""
two_left: Any = _spread_two(4, -1, 0)
"""An element to the left: `cell` is its first."""
two_down: Any = _spread_two(4, 0, 1)
"""A row further down."""
two_right_down: Any = _spread_two(4, 1, 1)
two_left_down: Any = _spread_two(4, -1, 1)
"""`cell` is where the row of the first meets the column of the second."""
