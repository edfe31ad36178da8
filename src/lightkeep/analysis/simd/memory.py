"""Numbers at addresses, for compiled functions that work on memory without arrays.

An array is five and more values to numba, and each access to it an index that may be negative. Functions with many
arrays are slow to compile for that: with addresses the kernels of `analysis.xpcs` compile in seconds, not minutes.

    get_f64(address, i)            the i-th float64 from an address
    set_f64(address, i, value)     and so for u8, u16, u32, i32, i64, f32, f64
"""

# ruff: noqa: ARG001  (numba matches an intrinsic's arguments by their names, LLVM's generators by their places)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils as _untyped_cgutils
from numba.core import types
from numba.extending import intrinsic as _untyped_intrinsic

intrinsic: Callable[[Callable[..., Any]], Any] = _untyped_intrinsic
cgutils: Any = _untyped_cgutils


def _place(builder: Any, address: Any, index: Any, kind: Any) -> Any:
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [index])


def _getter(kind: Any, result: Any, widen: str | None) -> Any:
    def typed(context: Any, address: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            at, i = values
            value = builder.load(_place(builder, at, i, kind), align=1)
            return getattr(builder, widen)(value, ir.IntType(64)) if widen else value

        return result(types.int64, types.int64), generate

    return intrinsic(typed)


def _setter(kind: Any, taken: Any, is_narrow: bool) -> Any:
    def typed(context: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            at, i, number = values
            narrow = builder.trunc(number, kind) if is_narrow else number
            builder.store(narrow, _place(builder, at, i, kind), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, taken), generate

    return intrinsic(typed)


_BYTE, _SHORT, _WORD, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
get_u8: Any = _getter(_BYTE, types.int64, "zext")
get_u16: Any = _getter(_SHORT, types.int64, "zext")
get_u32: Any = _getter(_WORD, types.int64, "zext")
get_i32: Any = _getter(_WORD, types.int64, "sext")
get_i64: Any = _getter(_LONG, types.int64, None)
get_f32: Any = _getter(ir.FloatType(), types.float32, None)
get_f64: Any = _getter(ir.DoubleType(), types.float64, None)
set_u8: Any = _setter(_BYTE, types.int64, True)
set_u16: Any = _setter(_SHORT, types.int64, True)
set_u32: Any = _setter(_WORD, types.int64, True)
set_i64: Any = _setter(_LONG, types.int64, False)
set_f32: Any = _setter(ir.FloatType(), types.float32, False)
set_f64: Any = _setter(ir.DoubleType(), types.float64, False)


@intrinsic
def call(context: Any, address: Any, values: Any) -> Any:
    """call(address, (a, b, ...)) -> int64: another unit, with int64 arguments."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        at, packed = given
        arguments = cgutils.unpack_tuple(builder, packed)
        result = cgutils.alloca_once(builder, _LONG)
        error = cgutils.alloca_once(builder, _BYTE.as_pointer())
        kinds = [result.type, error.type, *(each.type for each in arguments)]
        function = builder.inttoptr(at, ir.FunctionType(_WORD, kinds).as_pointer())
        builder.call(function, [result, error, *arguments])
        return builder.load(result)

    return types.int64(types.int64, values), generate


def _bulk(name: str, arguments: int, emit: Any) -> Any:
    """llvm.memcpy or llvm.memset with int64 arguments."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _BYTE.as_pointer()
        operands = emit(builder, pointer, *values)
        kind = ir.FunctionType(ir.VoidType(), [each.type for each in operands])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)
        return context.get_dummy_value()

    return types.void(*[types.int64] * arguments), generate


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """prefetch(address): have the line of memory in the cache soon; any address will do."""

    def emit(builder: Any, pointer: Any, at: Any) -> list[Any]:
        return [builder.inttoptr(at, pointer), _WORD(0), _WORD(3), _WORD(1)]

    return _bulk("llvm.prefetch.p0i8", 1, emit)


@intrinsic
def copy_bytes(context: Any, source: Any, target: Any, count: Any) -> Any:
    """copy_bytes(source, target, count): memory that does not overlap."""

    def emit(builder: Any, pointer: Any, at: Any, to: Any, number: Any) -> list[Any]:
        return [builder.inttoptr(to, pointer), builder.inttoptr(at, pointer), number, ir.IntType(1)(0)]

    return _bulk("llvm.memcpy.p0i8.p0i8.i64", 3, emit)


@intrinsic
def clear_bytes(context: Any, target: Any, count: Any) -> Any:
    """clear_bytes(target, count): zeros."""

    def emit(builder: Any, pointer: Any, to: Any, number: Any) -> list[Any]:
        return [builder.inttoptr(to, pointer), _BYTE(0), number, ir.IntType(1)(0)]

    return _bulk("llvm.memset.p0i8.i64", 2, emit)
