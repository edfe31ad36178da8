"""Vectors of whole numbers as values of compiled functions: exact products of counts, many to an instruction.

`Bytes` are 32 uint8, `Shorts` 16 int16, `Words` 8 int32. The numbers of a vector are consecutive samples of one
pixel, so a vector times the one that is loaded k samples earlier gives 32 products of lag k, and neighbours add up
on the way. With AVX2 each operation is one or two instructions, elsewhere LLVM spells it out.
"""

# ruff: noqa: ARG001, ARG005  (numba matches an intrinsic's arguments by their names, LLVM's generators by their places)

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from lightkeep.analysis.simd.lanes import _load as _load_vector
from lightkeep.analysis.simd.lanes import _or_none, _pointer, _row, _shuffle, cgutils, intrinsic
from lightkeep.analysis.simd.width import FEATURES

_MODELS: Any = models
_HAS_PAIRS: Final = bool(FEATURES.get("avx2"))
_LONG = ir.IntType(64)


class WholeType(types.Type):
    """numba's type of a vector of integers."""

    def __init__(self, name: str, bits: int, count: int) -> None:
        self.vector = ir.VectorType(ir.IntType(bits), count)
        super().__init__(name=name)


@register_model(WholeType)
class _WholeModel(_MODELS.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, whole_type: Any) -> None:
        super().__init__(manager, whole_type, whole_type.vector)


BYTES: Final = WholeType("Bytes", 8, 32)
SHORTS: Final = WholeType("Shorts", 16, 16)
WORDS: Final = WholeType("Words", 32, 8)


def _intrinsic(result: Any, arguments: tuple[Any, ...], emit: Any) -> Any:
    """An intrinsic of fixed types; emit(builder, *values) -> value."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _or_none(context, emit(builder, *values))

    made = (result(*arguments), generate)
    if len(arguments) == 0:
        return intrinsic(lambda context: made)
    if len(arguments) == 1:
        return intrinsic(lambda context, a: made)
    if len(arguments) == 2:
        return intrinsic(lambda context, a, b: made)
    if len(arguments) == 3:
        return intrinsic(lambda context, a, b, c: made)
    return intrinsic(lambda context, a, b, c, d: made)


def _constant(kind: WholeType, number: int) -> Any:
    return ir.Constant(kind.vector, [number] * kind.vector.count)


def _at(builder: Any, address: Any, offset: int) -> Any:
    return builder.add(address, _LONG(offset))


def _loaded(builder: Any, address: Any, kind: WholeType) -> Any:
    return _load_vector(builder, address, kind.vector.element, kind.vector.count)


def _stored(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, _pointer(builder, address, value.type), align=1)


def _paired(builder: Any, a: Any, b: Any, wide: WholeType, name: str, widen: tuple[str, str]) -> Any:
    """Sums of the products of neighbours, of twice the bits."""
    if _HAS_PAIRS:
        kind = ir.FunctionType(wide.vector, [a.type, b.type])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b])
    both = ir.VectorType(wide.vector.element, a.type.count)
    x, y = (getattr(builder, how)(each, both) for how, each in zip(widen, (a, b), strict=True))
    product = builder.mul(x, y)
    even = list(range(0, a.type.count, 2))
    return builder.add(
        _shuffle(builder, product, product, even), _shuffle(builder, product, product, [i + 1 for i in even])
    )


def _byte_pairs(builder: Any, a: Any, b: Any) -> Any:
    """uint8 times int8, to int16."""
    return _paired(builder, a, b, SHORTS, "llvm.x86.avx2.pmadd.ub.sw", ("zext", "sext"))


def _short_pairs(builder: Any, a: Any, b: Any) -> Any:
    return _paired(builder, a, b, WORDS, "llvm.x86.avx2.pmadd.wd", ("sext", "sext"))


def _sum_of_shorts(builder: Any, a: Any) -> Any:
    return _short_pairs(builder, a, _constant(SHORTS, 1))


load_bytes: Any = _intrinsic(BYTES, (types.int64,), lambda b, at: _loaded(b, at, BYTES))
"""load_bytes(address) -> 32 uint8."""
no_bytes: Any = _intrinsic(BYTES, (), lambda b: _constant(BYTES, 0))
no_shorts: Any = _intrinsic(SHORTS, (), lambda b: _constant(SHORTS, 0))
no_words: Any = _intrinsic(WORDS, (), lambda b: _constant(WORDS, 0))
"""no_words() -> zeros."""
store_bytes: Any = _intrinsic(types.void, (types.int64, BYTES), _stored)
"""store_bytes(address, bytes)."""
store_shorts: Any = _intrinsic(types.void, (types.int64, SHORTS), _stored)
"""store_shorts(address, shorts)."""
store_words: Any = _intrinsic(types.void, (types.int64, WORDS), _stored)
"""store_words(address, words)."""
load_shorts: Any = _intrinsic(SHORTS, (types.int64,), lambda b, at: _loaded(b, at, SHORTS))
"""load_shorts(address) -> 16 int16."""
add_shorts: Any = _intrinsic(SHORTS, (SHORTS, SHORTS), lambda b, x, y: b.add(x, y))
"""add_shorts(a, b), modulo 2**16."""

add_bytes: Any = _intrinsic(BYTES, (BYTES, BYTES), lambda b, x, y: b.add(x, y))
"""add_bytes(a, b), modulo 2**8."""


def _greater(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_unsigned(">", a, b), a, b)


most_bytes: Any = _intrinsic(BYTES, (BYTES, BYTES), _greater)
"""most_bytes(a, b) -> the larger of each two."""


def _most(builder: Any, a: Any) -> Any:
    count = a.type.count
    while count > 1:
        count //= 2
        halves = [list(range(count)), list(range(count, 2 * count))]
        a = _greater(builder, *(_shuffle(builder, a, a, half) for half in halves))
    return builder.zext(builder.extract_element(a, ir.IntType(32)(0)), _LONG)


most_byte: Any = _intrinsic(types.int64, (BYTES,), _most)
"""most_byte(a) -> the largest."""


def _widened(builder: Any, address: Any) -> Any:
    return builder.zext(_load_vector(builder, address, ir.IntType(8), 16), SHORTS.vector)


widen_bytes: Any = _intrinsic(SHORTS, (types.int64,), _widened)
"""widen_bytes(address) -> 16 uint8 as int16."""


def _add_sum(builder: Any, words: Any, a: Any) -> Any:
    return builder.add(words, _sum_of_shorts(builder, _byte_pairs(builder, a, _constant(BYTES, 1))))


add_sum_of_bytes: Any = _intrinsic(WORDS, (WORDS, BYTES), _add_sum)
"""add_sum_of_bytes(words, a) -> words + sums of 4 neighbours of a."""


def _byte_products(builder: Any, words: Any, at: Any, lag: Any) -> Any:
    found = None
    for i in range(4):
        now = _loaded(builder, _at(builder, at, 32 * i), BYTES)
        earlier = _loaded(builder, builder.sub(_at(builder, at, 32 * i), lag), BYTES)
        each = _byte_pairs(builder, now, earlier)
        found = each if found is None else builder.add(found, each)
    return builder.add(words, _sum_of_shorts(builder, found))


add_byte_products: Any = _intrinsic(WORDS, (WORDS, types.int64, types.int64), _byte_products)
"""add_byte_products(words, address, lag) -> words + products of 128 uint8 below 64 with those `lag` earlier."""


def _short_products(builder: Any, words: Any, at: Any, lag: Any) -> Any:
    back = builder.shl(lag, _LONG(1))
    for i in range(2):
        now = _loaded(builder, _at(builder, at, 32 * i), SHORTS)
        earlier = _loaded(builder, builder.sub(_at(builder, at, 32 * i), back), SHORTS)
        words = builder.add(words, _short_pairs(builder, now, earlier))
    return words


add_short_products: Any = _intrinsic(WORDS, (WORDS, types.int64, types.int64), _short_products)
"""add_short_products(words, address, lag) -> words + products of 32 int16 with those `lag` earlier."""


def _fold_bytes(builder: Any, at: Any, to: Any) -> None:
    _stored(builder, to, _byte_pairs(builder, _loaded(builder, at, BYTES), _constant(BYTES, 1)))


fold_bytes: Any = _intrinsic(types.void, (types.int64, types.int64), _fold_bytes)
"""fold_bytes(address, to): the sums of neighbours of 32 uint8 as 16 int16."""


def _fold_shorts(builder: Any, at: Any, to: Any) -> None:
    a, b = (_loaded(builder, _at(builder, at, 32 * i), SHORTS) for i in range(2))
    even = list(range(0, 32, 2))
    odd = [i + 1 for i in even]
    _stored(builder, to, builder.add(_shuffle(builder, a, b, even), _shuffle(builder, a, b, odd)))


fold_shorts: Any = _intrinsic(types.void, (types.int64, types.int64), _fold_shorts)
"""fold_shorts(address, to): the sums of neighbours of 32 int16 as 16 int16."""


def _sums_of_rows(builder: Any, at: Any, to: Any) -> None:
    rows = [_loaded(builder, _at(builder, at, 32 * i), WORDS) for i in range(8)]
    for half in (4, 2, 1):
        # Rows i and i + half become one: its lanes are sums of lanes of the one, then of the other.
        low = [lane + 2 * half * i for i in range(4 // half) for lane in range(half)]
        order = [*low, *(8 + lane for lane in low)]
        rest = [lane + half for lane in order]
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [builder.add(_shuffle(builder, x, y, order), _shuffle(builder, x, y, rest)) for x, y in pairs]
    # Lane 4a + 2b + c is row a + 2b + 4c, its bits in reverse.
    sums = _shuffle(builder, rows[0], rows[0], [int(f"{i:03b}"[::-1], 2) for i in range(8)])
    wide = ir.VectorType(ir.DoubleType(), 8)
    place = _pointer(builder, to, wide)
    builder.store(builder.fadd(builder.load(place, align=1), builder.sitofp(sums, wide)), place, align=1)


add_sums_of_rows: Any = _intrinsic(types.void, (types.int64, types.int64), _sums_of_rows)
"""add_sums_of_rows(rows, target): to 8 float64 add the sums of 8 rows of 8 int32."""


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Rows become columns: n rows of n, zipped with those n / 2 further, log2(n) times."""
    n = len(rows)
    low = [lane for i in range(n // 2) for lane in (i, i + n)]
    high = [lane + n // 2 for lane in low]
    for _ in range(n.bit_length() - 1):
        pairs = [(rows[i], rows[i + n // 2]) for i in range(n // 2)]
        rows = [_shuffle(builder, x, y, order) for x, y in pairs for order in (low, high)]
    return rows


def _turned(builder: Any, at: Any, step: Any, to: Any, to_step: Any) -> None:
    line = 16
    rows = []
    for i in range(line):
        pair = [_load_vector(builder, _row(builder, at, step, i + line * j), ir.IntType(8), line) for j in (0, 1)]
        rows.append(_shuffle(builder, pair[0], pair[1], list(range(32))))
    # As above, in the two halves of each row alone.
    low = [lane + half for half in (0, 16) for i in range(8) for lane in (i, i + 32)]
    high = [lane + 8 for lane in low]
    for _ in range(4):
        pairs = [(rows[i], rows[i + 8]) for i in range(8)]
        rows = [_shuffle(builder, x, y, order) for x, y in pairs for order in (low, high)]
    for i, row in enumerate(rows):
        _stored(builder, _row(builder, to, to_step, i), row)


turn_bytes: Any = _intrinsic(types.void, (types.int64,) * 4, _turned)
"""turn_bytes(source, step, target, target_step): 32 rows of 16 uint8 become 16 rows of 32."""


def _narrowed(bits: int) -> Any:
    def emit(builder: Any, at: Any, step: Any, to: Any, to_step: Any) -> None:
        kind = ir.VectorType(ir.IntType(bits), 8)
        rows = [_load_vector(builder, _row(builder, at, step, i), ir.FloatType(), 8) for i in range(8)]
        for i, row in enumerate(_transposed(builder, rows)):
            _stored(
                builder,
                _row(builder, to, to_step, i),
                builder.trunc(builder.fptosi(row, ir.VectorType(ir.IntType(32), 8)), kind),
            )

    return _intrinsic(types.void, (types.int64,) * 4, emit)


def _floated(bits: int) -> Any:
    def emit(builder: Any, at: Any, step: Any, to: Any, to_step: Any) -> None:
        wide = ir.VectorType(ir.IntType(32), 8)
        rows = [_load_vector(builder, _row(builder, at, step, i), ir.IntType(bits), 8) for i in range(8)]
        floats = [builder.sitofp(builder.zext(row, wide), ir.VectorType(ir.FloatType(), 8)) for row in rows]
        for i, row in enumerate(_transposed(builder, floats)):
            _stored(builder, _row(builder, to, to_step, i), row)

    return _intrinsic(types.void, (types.int64,) * 4, emit)


rows_to_bytes: Any = _narrowed(8)
"""rows_to_bytes(source, step, target, target_step): 8 rows of 8 float32, whole, become 8 columns of uint8."""
rows_to_shorts: Any = _narrowed(16)
bytes_to_rows: Any = _floated(8)
"""bytes_to_rows(source, step, target, target_step): 8 rows of 8 uint8 become 8 columns of float32."""
shorts_to_rows: Any = _floated(16)


def _total(builder: Any, words: Any) -> Any:
    count = words.type.count
    while count > 1:
        count //= 2
        halves = [list(range(count)), list(range(count, 2 * count))]
        words = builder.add(*(_shuffle(builder, words, words, half) for half in halves))
    return builder.sext(builder.extract_element(words, ir.IntType(32)(0)), _LONG)


sum_of_words: Any = _intrinsic(types.int64, (WORDS,), _total)
"""sum_of_words(a) -> the sum of the 8."""


def _into_shorts(builder: Any, a: Any, to: Any) -> None:
    wide = ir.VectorType(ir.IntType(16), 32)
    place = _pointer(builder, to, wide)
    builder.store(builder.add(builder.load(place, align=1), builder.zext(a, wide)), place, align=1)


add_bytes_to_u16: Any = _intrinsic(types.void, (BYTES, types.int64), _into_shorts)
"""add_bytes_to_u16(a, target): to 32 uint16 add 32 uint8."""


def _scaled(builder: Any, at: Any, to: Any) -> None:
    wide = ir.VectorType(_LONG, 16)
    place = _pointer(builder, to, wide)
    scaled = builder.shl(builder.zext(_loaded(builder, at, SHORTS), wide), ir.Constant(wide, [20] * 16))
    builder.store(builder.add(builder.load(place, align=1), scaled), place, align=1)


add_shorts_to_i64: Any = _intrinsic(types.void, (types.int64, types.int64), _scaled)
"""add_shorts_to_i64(address, target): to 16 int64 add 16 uint16, times 2**20."""
