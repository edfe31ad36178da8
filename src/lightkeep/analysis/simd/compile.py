"""`compiled`: numba's njit, with types, without the lock, and with a cache that notices every edit.

Two traps of numba's cache on disk, both seen:

- It looks only at the file of the function it compiles. Edit a function of another file that is compiled into it,
  and the old machine code still runs.
- Settings of the environment such as NUMBA_SLP_VECTORIZE are no part of its key.

Therefore every key here carries a stamp of the sources that belong together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numba.core.caching
import numba.core.compiler_lock
import numba.core.config

from lightkeep.analysis.simd.alone import alone

F = TypeVar("F", bound=Callable[..., Any])
_NUMBA: Any = numba  # most of it has no types
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}


class _StampedCache(_NUMBA.core.caching.FunctionCache):  # type: ignore[misc]
    """numba's cache, whose key also has the stamp."""

    def __init__(self, function: Callable[..., Any], stamp: str) -> None:
        super().__init__(function)
        self._stamp = stamp

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self._stamp)


@cache
def _stamp(folders: tuple[Path, ...]) -> str:
    digest = hashlib.sha256(repr(_NUMBA.config.SLP_VECTORIZE).encode())
    for folder in folders:
        for file in sorted(folder.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def compiled(function: F) -> F:
    """A function as machine code, compiled at its first call for each combination of types and kept on disk.

    It runs without Python's lock, so threads run it side by side; it must touch no Python object, and it must not
    rely on bounds checks. Multiply-adds may be fused and -0.0 is 0.0, otherwise arithmetic is as written: the same
    input gives the same bytes. Division by zero gives inf or NaN.

    The compiled code is made anew when any module beside `function`'s, or of `lightkeep.analysis.simd`, changes.
    """
    stamp = _stamp((Path(__file__).parent, Path(function.__code__.co_filename).parent))
    dispatcher: Any = _NUMBA.njit(**_OPTIONS)(function)
    dispatcher._cache = _StampedCache(function, stamp)
    make = dispatcher.compile
    home = Path(dispatcher._cache.cache_path, f"{function.__module__}.{function.__qualname__}")

    def made(types: Any) -> Any:
        with _NUMBA.core.compiler_lock.global_compiler_lock, alone(home):
            return make(types)

    dispatcher.compile = made
    return cast("F", dispatcher)


def part(function: F) -> F:
    """Like `compiled`, but for use in other compiled functions only: it becomes a part of them."""
    dispatcher: Any = _NUMBA.njit(**_OPTIONS, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    template = dispatcher.get_call_template

    def of_types(types: Sequence[Any], keywords: Any) -> Any:
        """Once for every type: numba would compile it again for 1 and for 2."""
        return template([_NUMBA.types.unliteral(each) for each in types], keywords)

    dispatcher.get_call_template = of_types
    return cast("F", dispatcher)


def woven(function: F) -> F:
    """Like `part`, but repeated wherever it is called: for a few lines that a call would outweigh."""
    return cast(
        "F", _NUMBA.njit(**_OPTIONS, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    )


def compile_unit(function: Any) -> tuple[bytes, str, int]:
    """Machine code of a `part` of whole numbers, its name in there, and its number of arguments.

    LLVM is asked for little, as its most takes half as long again and gains nothing: what is worth a vector is
    written as one.
    """
    arguments = int(function.py_func.__code__.co_argcount)
    numbers = (_NUMBA.int64,) * arguments
    config = _NUMBA.core.config
    with (
        _NUMBA.core.compiler_lock.global_compiler_lock
    ):  # who compiles meanwhile waits, and so finds its own level
        usual = config.OPT
        config.OPT = type(usual)(1)
        try:
            function.compile(_NUMBA.int64(*numbers))
        finally:
            config.OPT = usual
    result = function.overloads[numbers]
    _, _, (code, _) = result.library.serialize_using_object_code()
    return bytes(code), str(result.fndesc.llvm_func_name), arguments
