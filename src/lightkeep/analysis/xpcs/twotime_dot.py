"""Matrix products of small whole numbers, several times faster than BLAS has them in float32.

One instruction of AVX2 (vpmaddubsw) multiplies 32 pairs of bytes and adds neighbours to 16-bit sums, where a
float32 multiply-add does 8. 3 frames are multiplied with 3 others at a time, so that 6 loads feed 9
multiplications and all sums stay in registers; before 16 bits can overflow they are added to 32-bit sums.
Everything is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.xpcs.twotime_kernels import add_gram
from lightkeep.analysis.xpcs.twotime_series import LANES

HIGHEST: Final = 127
"""Largest count: one operand of the instruction is signed, and two products must stay below 2**15."""
EDGE: Final = 3
"""Frames at a time, on each side; tiles have a whole multiple of it."""
SPAN: Final = 4096
"""Columns worked on before the next frames. Fewer would fit the first cache, but sums at their ends cost more."""
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES, _WORDS, _SUMS = ir.VectorType(_I8, 32), ir.VectorType(_I16, 16), ir.VectorType(_I32, 8)


def is_available() -> bool:
    """Whether this processor has the instruction."""
    return bool(llvmlite.binding.get_host_cpu_features().get("avx2", False))


@intrinsic
def _dot(  # the arguments after the first are numba's types of the caller's
    typing: Any,  # noqa: ARG001
    one: Any,
    two: Any,
    stride: Any,
    steps: Any,
    burst: Any,
    sums: Any,
    width: Any,
) -> Any:
    """Add products of rows: sums[i, j] += sum over k of one[i, k] * two[j, k], 3 x 3 rows of bytes.

    one, two: addresses of first rows; stride: bytes from row to row; steps: number of 32-byte steps; burst: steps
    after which 16-bit sums may overflow; sums: address of the first of 3 x 3 int32, rows `width` int32 apart.
    """
    return types.void(one, two, stride, steps, burst, sums, width), _emit_dot


def _emit_dot(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    one, two, stride, steps, burst, sums, width = arguments
    places = [(i, j) for i in range(EDGE) for j in range(EDGE)]
    module = builder.module
    multiply = _declared(module, "llvm.x86.avx2.pmadd.ub.sw", _WORDS, (_BYTES, _BYTES))
    widen = _declared(module, "llvm.x86.avx2.pmadd.wd", _SUMS, (_WORDS, _WORDS))
    total = _declared(module, "llvm.vector.reduce.add.v8i32", _I32, (_SUMS,))
    rows = [[builder.add(base, builder.mul(stride, _I64(row))) for row in range(EDGE)] for base in (one, two)]

    def step(at: Any, held: list[Any]) -> list[Any]:
        offset = builder.mul(at, _I64(LANES))
        lanes = [[_load(builder, builder.add(row, offset)) for row in side] for side in rows]
        return [
            builder.add(acc, builder.call(multiply, (lanes[0][i], lanes[1][j])))
            for acc, (i, j) in zip(held, places, strict=True)
        ]

    def several(first: Any, held: list[Any]) -> list[Any]:
        begin = builder.mul(first, burst)
        left = builder.sub(steps, begin)
        number = builder.select(builder.icmp_signed("<", left, burst), left, burst)
        words = _loop(builder, number, [_WORDS(None)] * 9, lambda at, acc: step(builder.add(begin, at), acc))
        ones = _WORDS([1] * 16)
        return [builder.add(acc, builder.call(widen, (word, ones))) for acc, word in zip(held, words, strict=True)]

    bursts = builder.sdiv(builder.add(steps, builder.sub(burst, _I64(1))), burst)
    found = _loop(builder, bursts, [_SUMS(None)] * 9, several)
    to = builder.inttoptr(sums, _I32.as_pointer())
    for acc, (i, j) in zip(found, places, strict=True):
        here = builder.gep(to, [builder.add(builder.mul(width, _I64(i)), _I64(j))])
        builder.store(builder.add(builder.load(here, typ=_I32), builder.call(total, (acc,))), here)
    return context.get_dummy_value()


def _declared(module: Any, name: str, result: Any, arguments: Any) -> Any:
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(result, arguments), name)


def _load(builder: Any, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, _BYTES.as_pointer()), align=1, typ=_BYTES)


def _loop(builder: Any, number: Any, begin: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Call body(index, values) `number` times, at least once; its values go round in registers."""
    before = builder.block
    inside = builder.append_basic_block("inside")
    after = builder.append_basic_block("after")
    builder.branch(inside)
    builder.position_at_end(inside)
    index = builder.phi(_I64)
    held = [builder.phi(value.type) for value in begin]
    values = body(index, held)
    following = builder.add(index, _I64(1))
    end = builder.block
    index.add_incoming(_I64(0), before)
    index.add_incoming(following, end)
    for phi, first, value in zip(held, begin, values, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(value, end)
    builder.cbranch(builder.icmp_signed("<", following, number), inside, after)
    builder.position_at_end(after)
    return values


@compiled
def gram(counts: Any, top: int, left: int, begin: int, end: int, burst: int, out: Any) -> None:
    """Fill out[i, j] with the sum over columns begin .. end of counts[top + i] * counts[left + j].

    Parameters
    ----------
    counts: (N, P) uint8 up to `HIGHEST`, contiguous.
    begin, end: a multiple of `LANES` apart. burst: steps before 16 bits may overflow, see `burst_of`.
    out: (rows, columns) int32, contiguous, each a multiple of `EDGE`; where top is left only columns >= rows are
      filled.
    """
    stride = counts.shape[1]
    address, to = counts.ctypes.data, out.ctypes.data
    out[:] = 0
    for first in range(begin, end, SPAN):
        steps = (min(first + SPAN, end) - first) // LANES
        for i in range(0, out.shape[0], EDGE):
            one = address + (top + i) * stride + first
            for j in range(i if top == left else 0, out.shape[1], EDGE):
                two = address + (left + j) * stride + first
                here = to + 4 * (i * out.shape[1] + j)
                _dot(one, two, stride, steps, burst, here, out.shape[1])  # type: ignore[call-arg]


@compiled
def add_tile(
    counts: Any, columns: Any, weights: Any, burst: int, top: int, left: int, edge: int, sums: Any
) -> None:
    """Add the weighted products of edge x edge frames, summed over all groups, to sums.

    Parameters
    ----------
    counts, burst, top, left: see `gram`; columns: (n_groups, 2) begin and end of each group's columns.
    weights: (n_groups, N). sums: (rows, columns) at most edge; smaller at the end of the run.
    """
    out = np.empty((edge, edge), np.int32)
    for group in range(columns.shape[0]):
        gram(counts, top, left, columns[group, 0], columns[group, 1], burst, out)
        one = weights[group, top : top + sums.shape[0]]
        two = weights[group, left : left + sums.shape[1]]
        add_gram(out[: sums.shape[0], : sums.shape[1]], one, two, top == left, sums)


def burst_of(highest: int) -> int:
    """Number of steps whose 16-bit sums cannot overflow for counts up to `highest`."""
    return (2**15 - 1) // (2 * max(1, highest) ** 2)
