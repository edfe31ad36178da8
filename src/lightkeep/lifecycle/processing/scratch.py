"""The scratch folder of one run: everything that a restart needs to go on where a kill stopped it.

    scratch/runs/<run id>/
      host, worker    who works on it: name of the host, id of the worker
      lock            held (flock) by the process that works on the run
      plan.json       what will be computed, cut into pieces; written once, before the first piece
      <output>.npy    one array per output, its room reserved; each piece fills its own part
      piece-00003     a piece that is done: empty, or the state of an incremental technique
      progress.npy    fraction done of each piece
      result/         the files of the result; the name appears when all of them are complete
      follow.json     what a live run follows; snapshot.json: what it shows; stop: somebody asked it to end early
      written.json    their paths, main file first, and what the technique has to say about the data

A piece's mark is written after its values reached the disk; what has no mark is computed again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightkeep.model.errors import Conflict, StorageError, StoreFull
from lightkeep.model.techniques import Preflight


@dataclass(frozen=True)
class Plan:
    """What a run will compute. Fixed before the first piece, so that a restart cuts in the same places."""

    params: Mapping[str, Any]
    """Every parameter's value in force."""
    cuts: Sequence[tuple[int, int]]
    """(begin, end) of each piece along the technique's SPLIT."""
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    engine: str
    """Name of the engine that computes the pieces."""
    warnings: Sequence[str] = field(default_factory=tuple)
    facts: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    steps: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """(value, unit) by axis."""
    is_partial: bool = False
    """True for a live run that somebody stopped: the measurement went on without it."""

    @classmethod
    def of(cls, found: Preflight, *, cuts: Sequence[tuple[int, int]], engine: str) -> Plan:
        """Return the plan of what a preflight found."""
        return cls(
            params=dict(found.params),
            cuts=cuts,
            shapes=found.shapes,
            dtypes=found.dtypes,
            engine=engine,
            warnings=found.warnings,
            facts=found.facts,
            units=found.units,
            steps={axis: (step.value, step.unit) for axis, step in found.steps.items()},
        )


class Scratch:
    """One run's folder. Use as a context manager: while it is open, no other process can work on the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.result = folder / "result"
        self._lock = -1

    def __enter__(self) -> Scratch:
        """Make the folder and lock it.

        Raises
        ------
        Conflict: another process works on this run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Conflict(f"another process works on run {self.folder.name} already") from error
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._lock)

    def is_held(self) -> bool:
        """True while a process works on the run."""
        try:
            with open(self.folder / "lock", "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, durable and complete from the moment that its name is there."""
        _write(self.folder / name, content)

    def read(self, name: str) -> str:
        """Return the text of a small file; empty where there is none."""
        with suppress(FileNotFoundError):
            return (self.folder / name).read_text("utf-8")
        return ""

    def show(self, name: str, content: bytes) -> None:
        """Write a small file for readers of the moment: complete, but perhaps gone after a power cut."""
        part = self.folder / f"{name}.part"
        try:
            part.write_bytes(content)
            part.rename(self.folder / name)
        except OSError as error:
            raise storage_error(error, name) from error

    def ask_to_stop(self) -> None:
        """Ask whoever works on the run to end it with what it has."""
        with suppress(FileNotFoundError):  # it ended by itself
            (self.folder / "stop").touch()

    def is_asked_to_stop(self) -> bool:
        """True once somebody asked."""
        return (self.folder / "stop").exists()

    def remove(self) -> None:
        """Delete the folder and all in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_planned(self) -> bool:
        """True once the plan was saved."""
        return (self.folder / "plan.json").exists()

    def saved_plan(self) -> Plan:
        """Return the plan."""
        saved = json.loads((self.folder / "plan.json").read_text("utf-8"))
        saved["cuts"] = [(begin, end) for begin, end in saved["cuts"]]
        saved["shapes"] = {name: tuple(shape) for name, shape in saved["shapes"].items()}
        return Plan(**saved)

    def save_plan(self, plan: Plan, *, with_arrays: bool) -> None:
        """Reserve the room for the outputs, then save the plan.

        Raises
        ------
        StoreFull: there is no room for the outputs.
        """
        _reserve(self.folder / "progress.npy", (len(plan.cuts),), "float64")
        if with_arrays:
            for name, shape in plan.shapes.items():
                _reserve(self.folder / f"{name}.npy", shape, plan.dtypes[name])
        _write(self.folder / "plan.json", json.dumps(asdict(plan), default=_plain).encode())

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return an output's array, shared with every process that opens it."""
        array: npt.NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r+")
        return array

    def sync(self, name: str) -> None:
        """Bring an output's array to the disk."""
        with (self.folder / f"{name}.npy").open("rb") as file:
            os.fsync(file.fileno())

    def progress(self) -> npt.NDArray[np.float64]:
        """Return the fraction done of each piece, shared with every process that opens it."""
        return self.array("progress")

    def finish_piece(self, index: int, state: Any = None) -> None:
        """Mark a piece as done, keeping its state."""
        _write(self._piece(index), b"" if state is None else pickle.dumps(state, protocol=5))

    def is_finished(self, index: int) -> bool:
        """True when a piece need not be computed again."""
        return self._piece(index).exists()

    def state(self, index: int) -> Any:
        """Return the state that a finished piece of an incremental technique left."""
        return pickle.loads(self._piece(index).read_bytes())  # noqa: S301 -- written by this run, in its own folder

    def publish(self, part: Path, files: Sequence[str], flags: Sequence[str] = ()) -> None:
        """Give the folder of a complete result its name. `files` are the paths in it, main file first."""
        _write(self.folder / "written.json", json.dumps({"files": list(files), "flags": list(flags)}).encode())
        part.rename(self.result)
        sync_folder(self.folder)

    def written(self) -> list[str]:
        """Return the paths of the result's files inside `result`, main file first."""
        files: list[str] = self._written()["files"]
        return files

    def flags(self) -> list[str]:
        """Return what the technique had to say about the data when its result was written."""
        flags: list[str] = self._written()["flags"]
        return flags

    def _written(self) -> dict[str, Any]:
        written: dict[str, Any] = json.loads((self.folder / "written.json").read_text("utf-8"))
        return written

    def _piece(self, index: int) -> Path:
        return self.folder / f"piece-{index:05d}"


def _plain(value: Any) -> Any:
    """Return what JSON takes in place of a numpy number, an array, a path, a quantity."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def storage_error(error: OSError, what: str) -> StorageError:
    """Return the error of ours for a failed write below the scratch folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no room for {what} in the scratch folder", remedy="free some space, then run it again")
    return StorageError(f"cannot write {what}: {error.strerror}", remedy="look at the scratch folder's disk")


def _reserve(path: Path, shape: tuple[int, ...], dtype: str) -> None:
    """Make an array of zeros whose every block is there: a full disk shows here, not as SIGBUS in a worker."""
    part = path.with_suffix(".part")
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.dtype(dtype), shape=shape)
        with part.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, part.stat().st_size))
        array.flush()
    except OSError as error:
        raise storage_error(error, path.stem) from error
    part.rename(path)


def _write(path: Path, content: bytes) -> None:
    """Write a whole file, durable and complete from the moment that its name is there."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path.name) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
