"""Work for a remote site: rows that are doubled into an array, each marked when done; a scan for a whole run."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from lightkeep.formats.data_exchange import ScanHeader, write_scan
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


def small_scan(path: Path) -> Path:
    """Write a scan of 12 angles, 4 rows and 16 columns: a dark band a little off the middle."""
    angle, row, column = np.ogrid[:12, :4, :16]
    frames = 30_000 - 800 * ((column - 7) ** 2 < 9) - 10 * row - angle
    flats = np.full((2, 4, 16), 30_000)
    header = ScanHeader(np.arange(12, dtype=np.float64) * 15.0, 4, 16, title="tooth")
    return write_scan(path, header, projections=frames, flats=flats, darks=flats * 0)


def numbers_of(path: Path) -> bytes:
    """Return the bytes of every array of a result that is more than a few numbers."""
    found: list[bytes] = []

    def look(_name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind == "f" and node.size > 9:
            found.append(node[()].tobytes())

    with h5py.File(path) as file:
        file.visititems(look)
    return b"".join(found)
