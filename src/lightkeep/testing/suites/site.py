"""Work for a remote site with a known result: rows that are doubled into an array, each marked when it is done."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightkeep.model.engines import Task

ROW = 3 << 20
"""Bytes of a row."""


def double(source: str, folder: str, index: int) -> str:
    """Fill a row of `out.npy` with twice that of the source, then mark it as done."""
    rows = np.load(source, mmap_mode="r")
    out = np.load(Path(folder) / "out.npy", mmap_mode="r+")
    out[index] = 2 * rows[index]
    out.flush()
    (Path(folder) / f"piece-{index}").write_bytes(b"")
    return source


def rows_to_double(parent: Path, *, count: int = 2) -> list[Task]:
    """Make the source and the working folder below a folder; return one task per row."""
    source, folder = parent / "data" / "rows.npy", parent / "scratch"
    source.parent.mkdir()
    folder.mkdir()
    np.save(source, np.random.default_rng(1).integers(0, 9, (count, ROW), dtype=np.uint8))
    begin_again(folder, count=count)
    arguments = {"source": str(source), "folder": str(folder)}
    return [
        Task(f"{__name__}:double", arguments | {"index": index}, reads=(str(source),), works_in=str(folder))
        for index in range(count)
    ]


def begin_again(folder: Path, *, count: int = 2) -> None:
    """Empty the working folder as before the first run."""
    np.save(folder / "out.npy", np.zeros((count, ROW), dtype=np.uint8))
    for mark in folder.glob("piece-*"):
        mark.unlink()


def is_doubled(tasks: list[Task]) -> bool:
    """True when the result is right, whole and marked as done."""
    source, folder = Path(tasks[0].reads[0]), Path(tasks[0].works_in)
    right = np.array_equal(np.load(folder / "out.npy"), 2 * np.load(source))
    return right and all((folder / f"piece-{index}").exists() for index in range(len(tasks)))
