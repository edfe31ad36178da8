"""Make the same few C calls for each of many files, without Python's lock between them.

Python spends a quarter of a millisecond on a file that needs a dozen system calls, most of it waiting for its own
lock. Here a *program* is a list of C calls, carried out for one file after the other by a loop of machine code. It
knows nothing of files: each argument of a call is a number, or one of the file's *registers*, which hold what the
caller put in and what earlier calls returned. The loop decides nothing. A file whose calls returned something else
than expected is told to the caller, who does it again in Python.

The loop is the LLVM assembly below, compiled when it is first asked for (0.1 s, nearly all of it loading llvmlite,
which numba needs as well). A call that returns less than its `least` ends its file's program, except for the calls
that clean up. docs/decisions/0003 says what it gains, and what else was tried.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

_WORDS: Final = 18
_LOOP: Final = """
; A call is 18 words: function, cleans up, register of the result, 0, then least and six arguments of two words
; each: whether it is a register, and the number or the register's index.
define internal i64 @value(ptr %pair, ptr %registers) {
  %is_register = load i64, ptr %pair
  %number_at = getelementptr i64, ptr %pair, i64 1
  %number = load i64, ptr %number_at
  %register = icmp ne i64 %is_register, 0
  %index = select i1 %register, i64 %number, i64 0
  %held_at = getelementptr i64, ptr %registers, i64 %index
  %held = load i64, ptr %held_at
  %value = select i1 %register, i64 %held, i64 %number
  ret i64 %value
}

; Returns 1 when the file's program failed.
define internal i1 @one_file(ptr %calls, i64 %count, ptr %registers) {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %j, %done ]
  %failed = phi i1 [ false, %entry ], [ %fails, %done ]
  %call = getelementptr [18 x i64], ptr %calls, i64 %i
  %cleans_at = getelementptr i64, ptr %call, i64 1
  %cleans = load i64, ptr %cleans_at
  %is_work = icmp eq i64 %cleans, 0
  %is_over = and i1 %failed, %is_work
  br i1 %is_over, label %done, label %look
look:
  %pair0 = getelementptr i64, ptr %call, i64 6
  %a0 = call i64 @value(ptr %pair0, ptr %registers)
  %from0 = load i64, ptr %pair0
  %is_register = icmp ne i64 %from0, 0
  %is_unopened = icmp slt i64 %a0, 0
  %is_absent = and i1 %is_register, %is_unopened
  br i1 %is_absent, label %done, label %make
make:
  %pair1 = getelementptr i64, ptr %call, i64 8
  %a1 = call i64 @value(ptr %pair1, ptr %registers)
  %pair2 = getelementptr i64, ptr %call, i64 10
  %a2 = call i64 @value(ptr %pair2, ptr %registers)
  %pair3 = getelementptr i64, ptr %call, i64 12
  %a3 = call i64 @value(ptr %pair3, ptr %registers)
  %pair4 = getelementptr i64, ptr %call, i64 14
  %a4 = call i64 @value(ptr %pair4, ptr %registers)
  %pair5 = getelementptr i64, ptr %call, i64 16
  %a5 = call i64 @value(ptr %pair5, ptr %registers)
  %function = load ptr, ptr %call
  %wide = call i64 %function(i64 %a0, i64 %a1, i64 %a2, i64 %a3, i64 %a4, i64 %a5)
  %narrow = trunc i64 %wide to i32 ; a function that returns an int says nothing of the upper half
  %result = sext i32 %narrow to i64
  %target_at = getelementptr i64, ptr %call, i64 2
  %target = load i64, ptr %target_at
  %result_at = getelementptr i64, ptr %registers, i64 %target
  store i64 %result, ptr %result_at
  %pair_least = getelementptr i64, ptr %call, i64 4
  %least = call i64 @value(ptr %pair_least, ptr %registers)
  %is_less = icmp slt i64 %result, %least
  %failed_now = or i1 %failed, %is_less
  br label %done
done:
  %fails = phi i1 [ %failed, %next ], [ %failed, %look ], [ %failed_now, %make ]
  %j = add i64 %i, 1
  %is_more = icmp slt i64 %j, %count
  br i1 %is_more, label %next, label %end
end:
  ret i1 %fails
}

define void @run(ptr %calls, i64 %count, ptr %registers, i64 %width, i64 %files) {
entry:
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %j, %next ]
  %row = mul i64 %i, %width
  %file = getelementptr i64, ptr %registers, i64 %row
  %fails = call i1 @one_file(ptr %calls, i64 %count, ptr %file)
  %outcome = zext i1 %fails to i64
  store i64 %outcome, ptr %file
  %j = add i64 %i, 1
  %is_more = icmp slt i64 %j, %files
  br i1 %is_more, label %next, label %end
end:
  ret void
}
"""


@dataclass(frozen=True, slots=True)
class Register:
    """One of the values that a file has of its own."""

    index: int


Value = int | Register


@dataclass(frozen=True, slots=True)
class Call:
    """One C call of a program. Made on a register that is negative (what could not be opened) it is left out."""

    function: str
    arguments: Sequence[Value]
    into: Register
    """Where what it returns goes, as a 32-bit number."""
    least: Value = 0
    """What it must return at least."""
    cleans_up: bool = False
    """Made also after another call failed."""


ANYTHING: Final = -(1 << 31)
"""As `least`: whatever it returns is right."""
FAILED: Final = 0
"""The register that holds 1 in the end when the file's program failed, else 0."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The loop, compiled, and the addresses of the C functions that it may call."""

    functions: dict[str, int]
    call: Callable[[bytes, int, int, int, int], None]
    engine: Any
    """Owns the machine code."""

    def run(self, program: Sequence[Call], columns: Sequence[Sequence[int]]) -> list[array[int]]:
        """Carry out a program for each file and return all registers, each as (files,) values.

        Parameters
        ----------
        columns: what the registers from 1 on hold before, each (files,). Addresses must be of memory that the
            caller keeps and that is large enough: nothing is checked here.
        """
        files, given = len(columns[0]), len(columns)
        width = 1 + max(given, *(call.into.index for call in program))
        registers = array("q", [-1]) * (files * width)
        for index, column in enumerate(columns, 1):
            registers[index::width] = array("q", column)
        code = b"".join([self._encoded(call) for call in program])
        self.call(code, len(program), registers.buffer_info()[0], width, files)
        return [registers[index::width] for index in range(width)]

    def _encoded(self, call: Call) -> bytes:
        words = [self.functions[call.function], call.cleans_up, call.into.index, 0]
        for value in (call.least, *call.arguments):
            words += (1, value.index) if isinstance(value, Register) else (0, value)
        return struct.pack(f"{_WORDS}q", *words, *[0] * (_WORDS - len(words)))


@cache
def machine() -> Machine | None:
    """Return the loop, or None where this system cannot have it: then everything goes the way of Python.

    It needs the C library's calls by name, OpenSSL's SHA256 as a library that Python's own hashing links (a Python
    with OpenSSL built in has none), and memory that may be executed (a hardened service forbids it).
    """
    functions = _functions()
    if functions is None or not _may_execute():
        return None
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(opt=2)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_LOOP), target)
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(
        None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    )
    return Machine(functions, prototype(engine.get_function_address("run")), engine)


def _functions() -> dict[str, int] | None:
    """Return the addresses of the functions, or None when one is missing."""
    try:
        hashing = ctypes.CDLL(importlib.import_module("_hashlib").__file__)
        libc = ctypes.CDLL(None)
        named = {name: getattr(libc, name) for name in ("openat", "read", "write", "close", "statx", "renameat2")}
        named["SHA256"] = hashing.SHA256
    except (ImportError, AttributeError, OSError):
        return None
    return {name: ctypes.cast(function, ctypes.c_void_p).value or 0 for name, function in named.items()}


def _may_execute() -> bool:
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return ctypes.sizeof(ctypes.c_void_p) == 8
