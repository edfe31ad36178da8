"""Units: compiled functions whose machine code is kept on disk and runs again in a process without numba.

Importing numba and preparing it takes longer than most correlations, and numba compiles a function that calls
others together with all of them, at each level of calls anew. A unit is compiled once, by itself. It takes whole
numbers and gives one, and calls another unit by its address (`memory.call`), which it is told.

    UNITS = Units("lightkeep.analysis.xpcs.kernels", {"finish_cells": "cell_sweep"})
    UNITS.function("finish_cells")(job, state, 0, 4)    # compiled, or loaded, when first asked for
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import RLock
from typing import Any, Final

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd.alone import alone

_MAGIC: Final = b"lightkeep unit 1\n"


class Units:
    """Functions of the modules of a package, by name, with the addresses of their machine code."""

    def __init__(self, package: str, homes: Mapping[str, str]) -> None:
        """homes: the module in `package` where each function is."""
        self._package, self._homes = package, dict(homes)
        self._found: dict[str, tuple[int, int]] = {}
        self._lock = RLock()

    def address(self, name: str) -> int:
        """Where a unit's machine code is, for `memory.call`."""
        return self._unit(name)[0]

    def function(self, name: str) -> Callable[..., int]:
        """A unit as a function of Python, which runs without Python's lock."""
        address, arguments = self._unit(name)
        return _caller(address, arguments)

    def prepare(self, names: Sequence[str]) -> None:
        """Have these units at hand. What is not on disk is compiled by several processes, each its share.

        One that is done with its share goes on with what others have not begun.
        """
        with self._lock:
            missing = [name for name in names if not self._is_there(name)]
            own, *others = _shares(missing, len(os.sched_getaffinity(0)))
            helpers = [self._helper(share) for share in others]
            try:
                for name in [*own, *(name for share in others for name in reversed(share)), *names]:
                    self._unit(name)
            finally:  # all is there: they have nothing to do any more
                for helper in helpers:
                    helper.kill()
                    helper.wait()

    def _is_there(self, name: str) -> bool:
        """Whether a unit needs no compiler; True without a folder, where other processes could not help."""
        path = self._path(name)
        if name not in self._found and path is not None:
            found = _loaded(path, _stamp(self._package))
            if found is None:
                return False
            self._found[name] = found
        return True

    def _helper(self, names: Sequence[str]) -> subprocess.Popen[bytes]:
        work = "import sys; from lightkeep.analysis.simd.units import Units; Units.help(*sys.argv[1:])"
        homes = [f"{self._homes[name]}.{name}" for name in names]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        return subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-c", work, self._package, *homes],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @classmethod
    def help(cls, package: str, *homes: str) -> None:
        """Compile units of a package, each named `module.function`, for the process that asked for it."""
        named = {name: home for home, _, name in (each.partition(".") for each in homes)}
        units = cls(package, named)
        for name in named:
            units.address(name)

    def _unit(self, name: str) -> tuple[int, int]:
        with self._lock:
            if name not in self._found:
                path, stamp = self._path(name), _stamp(self._package)
                self._found[name] = _loaded(path, stamp) or self._made(name, path, stamp)
            return self._found[name]

    def _made(self, name: str, path: Path | None, stamp: str) -> tuple[int, int]:
        with alone(path):
            return _loaded(path, stamp) or self._compiled(name, path, stamp)

    def _path(self, name: str) -> Path | None:
        folder = _folder(self._package)
        return None if folder is None else folder / f"{self._homes[name]}.{name}.{_machine()[:16]}.unit"

    def _compiled(self, name: str, path: Path | None, stamp: str) -> tuple[int, int]:
        from lightkeep.analysis.simd.compile import compile_unit

        function = getattr(import_module(f"{self._package}.{self._homes[name]}"), name)
        code, symbol, arguments = compile_unit(function)
        if path is not None:
            header = json.dumps({"stamp": stamp, "symbol": symbol, "arguments": arguments}).encode() + b"\n"
            _write(path, header + code)
        return _linked(code, symbol), arguments


def _shares(names: Sequence[str], processes: int) -> list[list[str]]:
    """What each process compiles: at least two units, or starting it costs more than it saves.

    >>> _shares(["a", "b", "c", "d", "e"], 2)
    [['a', 'c', 'e'], ['b', 'd']]
    """
    count = max(1, min(processes, len(names) // 2))
    return [list(names[at::count]) for at in range(count)]


def packed(values: tuple[Any, ...]) -> NDArray[np.int64]:
    """The memory of a `record`: its fields, 8 bytes each."""
    code = "".join("d" if isinstance(value, float) else "q" for value in values)
    return np.frombuffer(struct.pack(f"={code}", *values), np.int64)


def _caller(address: int, arguments: int) -> Callable[..., int]:
    """numba's way of calling: result and error go through pointers."""
    number = ctypes.c_int64
    native = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[number] * arguments)(address)

    def call(*values: int) -> int:
        result, error = number(), ctypes.c_void_p()
        if native(ctypes.addressof(result), ctypes.addressof(error), *values) != 0:
            raise RuntimeError("a compiled kernel ended with an error: this is a fault of Lightkeep")
        return result.value

    return call


def _loaded(path: Path | None, stamp: str) -> tuple[int, int] | None:
    """A unit from disk; None where there is none, one of other sources, or one that is not as it was written."""
    try:
        content = b"" if path is None else path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + 32
    if (
        content[: len(_MAGIC)] != _MAGIC
        or hashlib.sha256(content[start:]).digest() != content[len(_MAGIC) : start]
    ):
        return None
    end = content.index(b"\n", start)
    header = json.loads(content[start:end])
    if header["stamp"] != stamp:
        return None
    return _linked(content[end + 1 :], header["symbol"]), header["arguments"]


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all; a folder that cannot be written to means compiling again in the next process."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            file.write(_MAGIC + hashlib.sha256(content).digest() + content)
        os.replace(file.name, path)
    except OSError:
        return


@cache
def _engine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _linked(code: bytes, symbol: str) -> int:
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return int(engine.get_function_address(symbol))


@cache
def _folder(package: str) -> Path | None:
    """NUMBA_CACHE_DIR, or beside the sources, or the user's cache; None where nothing can be written."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightkeep" / "units"
    places = [Path(chosen)] if chosen else [_sources(package) / "__pycache__", user]
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    return None


def _sources(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"no package {package}")
    return Path(found.origin).parent


@cache
def _machine() -> str:
    """What machine code depends on beside its source: processor, compiler and numba's settings."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("NUMBA_")}
    settings.pop("NUMBA_CACHE_DIR", None)
    versions = {name: importlib.metadata.version(name) for name in ("numba", "llvmlite")}
    about = [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), versions, settings]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


@cache
def _stamp(package: str) -> str:
    """Of every source that may be compiled into a unit of the package: numba itself looks at one file only."""
    digest = hashlib.sha256(_machine().encode())
    for folder in (Path(__file__).parent, _sources(package)):
        for file in sorted(folder.glob("*.py")):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
