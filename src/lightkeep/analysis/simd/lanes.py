"""A vector of float32 lanes as a value of compiled functions.

numba's own vectoriser decides by itself, loop by loop, and cannot keep a window of samples and their accumulators
in registers. Here a function says what it wants: a `Lanes` value is one LLVM vector, its operations are one
instruction each where the machine has it, and LLVM splits or emulates them where it has not (any x86, ARM, without
a compiler).

    @compiled
    def saxpy(a, x, y, n):              # x, y: addresses of float32 (`array.ctypes.data`), n: a multiple of LANES
        factor = splat(a)
        for i in range(n // LANES):
            at = i * LANES * 4
            store(y + at, fmuladd(factor, load(x + at), load(y + at)))

Memory is addressed in bytes by integers, without bounds, and the arrays behind must be kept alive by the caller.
+ - * / work lane by lane. LANES is 16 with AVX-512, else 8; read it, never assume it.
"""

# ruff: noqa: ARG001  (numba matches an intrinsic's arguments by their names, LLVM's generators by their places)

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils as _untyped_cgutils
from numba.core import types
from numba.extending import intrinsic as _untyped_intrinsic
from numba.extending import models, overload, register_model

from lightkeep.analysis.simd.width import LANES

intrinsic: Callable[[Callable[..., Any]], Any] = _untyped_intrinsic
cgutils: Any = _untyped_cgutils
_MODELS: Any = models


class LanesType(types.Type):
    """numba's type of a vector of LANES float32."""

    def __init__(self) -> None:
        super().__init__(name=f"Lanes({LANES})")


class DoublesType(types.Type):
    """numba's type of a vector of LANES float64."""

    def __init__(self) -> None:
        super().__init__(name=f"Doubles({LANES})")


LANES_TYPE: Final = LanesType()
DOUBLES_TYPE: Final = DoublesType()
_FLOAT, _DOUBLE, _WORD = ir.FloatType(), ir.DoubleType(), ir.IntType(32)
_VECTOR, _WIDE = ir.VectorType(_FLOAT, LANES), ir.VectorType(_DOUBLE, LANES)


@register_model(LanesType)
class _LanesModel(_MODELS.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes_type: Any) -> None:
        super().__init__(manager, lanes_type, _VECTOR)


@register_model(DoublesType)
class _DoublesModel(_MODELS.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, doubles_type: Any) -> None:
        super().__init__(manager, doubles_type, _WIDE)


Emit = Callable[..., Any]


def _operation(result: Any, arguments: Sequence[Any], emit: Emit) -> Any:
    """An intrinsic with fixed types; emit(builder, *values) -> value."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _or_none(context, emit(builder, *values))

    return result(*arguments), generate


def _or_none(context: Any, value: Any) -> Any:
    return context.get_dummy_value() if value is None else value


def _pointer(builder: Any, address: Any, to: Any) -> Any:
    return builder.inttoptr(address, to.as_pointer())


def _load(builder: Any, address: Any, kind: Any, lanes: int = LANES) -> Any:
    return builder.load(_pointer(builder, address, ir.VectorType(kind, lanes)), align=1)


def _mask(values: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(_WORD, len(values)), list(values))


def _shuffle(builder: Any, one: Any, other: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(one, other, _mask(order))


def _all_lanes(builder: Any, number: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _WORD(0))
    return _shuffle(builder, one, one, [0] * LANES)


def _loader(bits: int) -> Any:
    """load of unsigned integers, as float32."""

    def emit(builder: Any, address: Any) -> Any:
        return builder.uitofp(_load(builder, address, ir.IntType(bits)), _VECTOR)

    def typed(context: Any, address: Any) -> Any:
        return _operation(LANES_TYPE, (types.int64,), emit)

    return intrinsic(typed)


load_u8: Any = _loader(8)
"""load_u8(address) -> LANES uint8, as float32."""
load_u16: Any = _loader(16)
"""load_u16(address) -> LANES uint16, as float32."""
load_u32: Any = _loader(32)
"""load_u32(address) -> LANES uint32, as the nearest float32."""


@intrinsic
def load(context: Any, address: Any) -> Any:
    """load(address) -> LANES float32."""
    return _operation(LANES_TYPE, (types.int64,), lambda builder, at: _load(builder, at, _FLOAT))


@intrinsic
def store(context: Any, address: Any, value: Any) -> Any:
    """store(address, lanes): write LANES float32."""

    def emit(builder: Any, at: Any, lanes: Any) -> None:
        builder.store(lanes, _pointer(builder, at, _VECTOR), align=1)

    return _operation(types.void, (types.int64, LANES_TYPE), emit)


@intrinsic
def store_far(context: Any, address: Any, value: Any) -> Any:
    """store_far(address, lanes): write LANES float32 past the cache, where nobody reads them soon.

    The address is a multiple of their bytes. Call `fence` before another thread is told of them.
    """

    def emit(builder: Any, at: Any, lanes: Any) -> None:
        stored = builder.store(lanes, _pointer(builder, at, _VECTOR), align=4 * LANES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([_WORD(1)]))

    return _operation(types.void, (types.int64, LANES_TYPE), emit)


@intrinsic
def fence(context: Any) -> Any:
    """fence(): what was stored before is in memory."""

    def emit(builder: Any) -> None:
        builder.fence("seq_cst")

    return _operation(types.void, (), emit)


@intrinsic
def splat(context: Any, number: Any) -> Any:
    """splat(number) -> the number, as float32, in all lanes."""

    def emit(builder: Any, value: Any) -> Any:
        return _all_lanes(builder, builder.fptrunc(value, _FLOAT), _VECTOR)

    return _operation(LANES_TYPE, (types.float64,), emit)


@intrinsic
def zero(context: Any) -> Any:
    """zero() -> 0 in all lanes."""
    return _operation(LANES_TYPE, (), lambda _: ir.Constant(_VECTOR, [0.0] * LANES))


@intrinsic
def fmuladd(context: Any, a: Any, b: Any, c: Any) -> Any:
    """fmuladd(a, b, c) -> a * b + c, rounded once where the machine can."""

    def emit(builder: Any, *values: Any) -> Any:
        # fmuladd, not fma: without such an instruction fma is a call of a library for each lane.
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_VECTOR, [_VECTOR] * 3),
            f"llvm.fmuladd.v{LANES}f32",
        )
        return builder.call(function, values)

    return _operation(LANES_TYPE, (LANES_TYPE,) * 3, emit)


def _binary(instruction: str) -> Any:
    def typed(context: Any, a: Any, b: Any) -> Any:
        def emit(builder: Any, x: Any, y: Any) -> Any:
            return getattr(builder, instruction)(x, y)

        return _operation(LANES_TYPE, (LANES_TYPE, LANES_TYPE), emit)

    return intrinsic(typed)


add: Any = _binary("fadd")
"""add(a, b), also a + b."""
sub: Any = _binary("fsub")
"""sub(a, b), also a - b."""
mul: Any = _binary("fmul")
"""mul(a, b), also a * b."""
div: Any = _binary("fdiv")
"""div(a, b), also a / b: inf or NaN where b is 0."""


def _as_operator(symbol: Any, function: Any) -> None:
    @overload(symbol, strict=False)
    def _(a: Any, b: Any) -> Any:
        if isinstance(a, LanesType) and isinstance(b, LanesType):
            return lambda a, b: function(a, b)  # noqa: PLW0108  (an implementation has to be Python)
        return None


for _symbol, _function in ((operator.add, add), (operator.sub, sub), (operator.mul, mul), (operator.truediv, div)):
    _as_operator(_symbol, _function)


@intrinsic
def select_less(context: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """select_less(a, b, yes, no) -> lane by lane yes where a < b, else no (also where either is NaN)."""

    def emit(builder: Any, x: Any, y: Any, then: Any, other: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", x, y), then, other)

    return _operation(LANES_TYPE, (LANES_TYPE,) * 4, emit)


def _zip(first: int) -> Any:
    order = [lane for i in range(LANES // 2) for lane in (first + i, first + i + LANES)]

    def typed(context: Any, a: Any, b: Any) -> Any:
        return _operation(
            LANES_TYPE, (LANES_TYPE, LANES_TYPE), lambda builder, x, y: _shuffle(builder, x, y, order)
        )

    return intrinsic(typed)


zip_low: Any = _zip(0)
"""zip_low(a, b) -> a0 b0 a1 b1 ... of their lower halves."""
zip_high: Any = _zip(LANES // 2)
"""zip_high(a, b) -> the same of their upper halves."""


@intrinsic
def transpose(context: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
    """transpose(source, source_step, target, target_step): LANES rows of LANES float32 become columns; steps in
    bytes.

    Source and target may be the same memory.
    """

    def emit(builder: Any, at: Any, step: Any, to: Any, to_step: Any) -> None:
        rows = [_load(builder, _row(builder, at, step, i), _FLOAT) for i in range(LANES)]
        half = LANES // 2
        low = [lane for i in range(half) for lane in (i, i + LANES)]
        high = [lane + half for lane in low]
        # Zipping row i with row i + LANES / 2, log2(LANES) times, is a transposition.
        for _ in range(LANES.bit_length() - 1):
            pairs = [(rows[i], rows[i + half]) for i in range(half)]
            rows = [_shuffle(builder, x, y, order) for x, y in pairs for order in (low, high)]
        for i, row in enumerate(rows):
            builder.store(row, _pointer(builder, _row(builder, to, to_step, i), _VECTOR), align=1)

    return _operation(types.void, (types.int64,) * 4, emit)


def _row(builder: Any, address: Any, step: Any, index: int) -> Any:
    return builder.add(address, builder.mul(step, ir.Constant(ir.IntType(64), index)))


@intrinsic
def copy64(context: Any, source: Any, target: Any) -> Any:
    """copy64(source, target): 64 bytes."""

    def emit(builder: Any, at: Any, to: Any) -> None:
        line = ir.VectorType(ir.IntType(8), 64)
        builder.store(builder.load(_pointer(builder, at, line), align=1), _pointer(builder, to, line), align=1)

    return _operation(types.void, (types.int64, types.int64), emit)


@intrinsic
def add_to_f64(context: Any, address: Any, value: Any) -> Any:
    """add_to_f64(address, lanes): add LANES float32 to as many float64 in memory."""

    def emit(builder: Any, at: Any, lanes: Any) -> None:
        wide = ir.VectorType(_DOUBLE, LANES)
        place = _pointer(builder, at, wide)
        builder.store(builder.fadd(builder.load(place, align=1), builder.fpext(lanes, wide)), place, align=1)

    return _operation(types.void, (types.int64, LANES_TYPE), emit)


def _four_sums(builder: Any, rows: list[Any]) -> Any:
    """The sums over the lanes of four vectors, as a vector of four."""
    width = rows[0].type.count
    while width > 4:
        low, high = list(range(width // 2)), list(range(width // 2, width))
        halves = [(_shuffle(builder, v, v, low), _shuffle(builder, v, v, high)) for v in rows]
        rows = [builder.fadd(x, y) for x, y in halves]
        width //= 2
    pairs = [
        builder.fadd(_shuffle(builder, a, b, [0, 4, 2, 6]), _shuffle(builder, a, b, [1, 5, 3, 7]))
        for a, b in (rows[:2], rows[2:])
    ]
    first, last = pairs
    return builder.fadd(_shuffle(builder, first, last, [0, 1, 4, 5]), _shuffle(builder, first, last, [2, 3, 6, 7]))


def _add_in_memory(builder: Any, address: Any, four: Any) -> None:
    place = _pointer(builder, address, ir.VectorType(_DOUBLE, 4))
    builder.store(builder.fadd(builder.load(place, align=1), four), place, align=1)


@intrinsic
def add_row_sums(context: Any, rows: Any, weights: Any, target: Any) -> Any:
    """add_row_sums(rows, weights, target): to 4 float64 at target add the sums of 4 rows of LANES float32,
    weighted.

    weights: address of LANES float32.
    """

    def emit(builder: Any, at: Any, weigh: Any, to: Any) -> None:
        weight = _load(builder, weigh, _FLOAT)
        step = ir.Constant(ir.IntType(64), 4 * LANES)
        found = [builder.fmul(_load(builder, _row(builder, at, step, i), _FLOAT), weight) for i in range(4)]
        _add_in_memory(builder, to, builder.fpext(_four_sums(builder, found), ir.VectorType(_DOUBLE, 4)))

    return _operation(types.void, (types.int64,) * 3, emit)


@intrinsic
def add_row_sums_f64(context: Any, rows: Any, weights: Any, target: Any) -> Any:
    """The same of 4 rows of LANES float64, with float64 weights."""

    def emit(builder: Any, at: Any, weigh: Any, to: Any) -> None:
        weight = _load(builder, weigh, _DOUBLE)
        step = ir.Constant(ir.IntType(64), 8 * LANES)
        found = [builder.fmul(_load(builder, _row(builder, at, step, i), _DOUBLE), weight) for i in range(4)]
        _add_in_memory(builder, to, _four_sums(builder, found))

    return _operation(types.void, (types.int64,) * 3, emit)


@intrinsic
def no_doubles(context: Any) -> Any:
    """no_doubles() -> LANES float64 of 0."""
    return _operation(DOUBLES_TYPE, (), lambda _: ir.Constant(_WIDE, [0.0] * LANES))


@intrinsic
def load_f64(context: Any, address: Any) -> Any:
    """load_f64(address) -> LANES float64."""
    return _operation(DOUBLES_TYPE, (types.int64,), lambda builder, at: _load(builder, at, _DOUBLE))


def _widened(instruction: str) -> Any:
    def typed(context: Any, a: Any, b: Any) -> Any:
        def emit(builder: Any, x: Any, y: Any) -> Any:
            return getattr(builder, instruction)(x, builder.fpext(y, _WIDE))

        return _operation(DOUBLES_TYPE, (DOUBLES_TYPE, LANES_TYPE), emit)

    return intrinsic(typed)


add_wide: Any = _widened("fadd")
"""add_wide(doubles, lanes) -> their sum, float64."""
sub_wide: Any = _widened("fsub")
"""sub_wide(doubles, lanes) -> their difference."""


@intrinsic
def finish_pixels(
    context: Any, acc: Any, total: Any, tail: Any, head: Any, pairs: Any, noise: Any, out: Any, step: Any
) -> Any:
    """finish_pixels(acc, total, tail, head, pairs, noise, out, step): G2, IP, IF, g, g^2 and 1 or 0 of LANES
    pixels.

    acc: address of LANES sums of products, float64. total, tail, head: of samples. out: six rows of LANES float64,
    `step` bytes apart; g = G2 pairs / (IP IF) where IP IF > 0. An IP or IF that is not above `noise` times the
    total is 0.
    """

    def emit(
        builder: Any, at: Any, total: Any, tail: Any, head: Any, number: Any, noise: Any, to: Any, to_step: Any
    ) -> None:
        product = _load(builder, at, _DOUBLE)
        zeros, ones = ir.Constant(_WIDE, [0.0] * LANES), ir.Constant(_WIDE, [1.0] * LANES)
        least = builder.fmul(total, _all_lanes(builder, noise, _WIDE))
        early, late = (
            builder.select(builder.fcmp_ordered(">", each, least), each, zeros)
            for each in (builder.fsub(total, tail), builder.fsub(total, head))
        )
        below = builder.fmul(early, late)
        counts = builder.fcmp_ordered(">", below, zeros)
        scaled = builder.fmul(product, _all_lanes(builder, number, _WIDE))
        ratio = builder.select(counts, builder.fdiv(scaled, builder.select(counts, below, ones)), zeros)
        square = builder.fmul(ratio, ratio)
        rows = (product, early, late, ratio, square, builder.select(counts, ones, zeros))
        for i, row in enumerate(rows):
            builder.store(row, _pointer(builder, _row(builder, to, to_step, i), _WIDE), align=1)

    taken = (types.int64, *[DOUBLES_TYPE] * 3, types.float64, types.float64, types.int64, types.int64)
    return _operation(types.void, taken, emit)
