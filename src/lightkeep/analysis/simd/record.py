"""Numbers in memory that compiled functions read by name: what a kernel is told, without an argument for each.

    class Job(NamedTuple):
        frames: int
        limit: float

    job_at = record(Job)

    @compiled
    def work(address):                  # of its fields, 8 bytes each
        job = job_at(address)
        return job.frames

A NamedTuple could be passed as it is, but then every function and every use of a field has all of them to carry
around, and compiling takes three times as long.
"""

# ruff: noqa: ARG001, ARG005  (numba matches an intrinsic's arguments by their names)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import AttributeTemplate as _Template
from numba.extending import infer_getattr as _infer_getattr
from numba.extending import intrinsic as _intrinsic
from numba.extending import lower_getattr_generic as _lower_getattr_generic
from numba.extending import models, register_model

_ANY: Any = models
_AttributeTemplate: Any = _Template
infer_getattr: Any = _infer_getattr
intrinsic: Callable[[Callable[..., Any]], Any] = _intrinsic
lower_getattr_generic: Callable[..., Callable[[Callable[..., Any]], Any]] = _lower_getattr_generic


class RecordType(types.Type):
    """numba's type of the address of a record."""

    def __init__(self, fields: type[tuple[Any, ...]]) -> None:
        kinds = fields.__annotations__
        self.places = {name: (i, "float" in str(kinds[name])) for i, name in enumerate(kinds)}
        super().__init__(name=f"Record({fields.__module__}.{fields.__name__})")


@register_model(RecordType)
class _RecordModel(_ANY.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, record_type: Any) -> None:
        super().__init__(manager, record_type, ir.IntType(64))


@infer_getattr
class _Fields(_AttributeTemplate):  # type: ignore[misc]
    key = RecordType

    def generic_resolve(self, record_type: RecordType, name: str) -> Any:
        """Type of a field."""
        if name not in record_type.places:
            return None
        return types.float64 if record_type.places[name][1] else types.int64


@lower_getattr_generic(RecordType)
def _read(context: Any, builder: Any, record_type: RecordType, address: Any, name: str) -> Any:
    index, is_float = record_type.places[name]
    kind = ir.DoubleType() if is_float else ir.IntType(64)
    place = builder.gep(builder.inttoptr(address, kind.as_pointer()), [ir.IntType(64)(index)])
    value = builder.load(place, align=8)
    value.set_metadata("invariant.load", builder.module.add_metadata([]))  # so it need not be read again
    return value


def record(fields: type[tuple[Any, ...]]) -> Callable[[int], Any]:
    """For compiled functions: the record of a NamedTuple of int and float at an address; it must not change."""
    kind = RecordType(fields)

    @intrinsic
    def at(context: Any, address: Any) -> Any:
        return kind(types.int64), lambda _, builder, signature, values: values[0]

    return at  # type: ignore[no-any-return]
