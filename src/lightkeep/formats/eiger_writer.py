"""Stacks of frames in HDF5, written as area detectors write them: for the simulated beamline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import DTypeLike, NDArray

from lightkeep.formats.chunks import encode
from lightkeep.formats.frame_stack import frames_of, threads
from lightkeep.formats.run_source import not_written

if TYPE_CHECKING:
    from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock

Header = Mapping[str, tuple[float | str, str]]
"""Path -> (value, unit) of what is known before the first frame, e.g. `entry/instrument/detector/frame_time`:
(1e-3, "s")."""


def write_run(
    path: Path,
    blocks: Iterable[FrameBlock | EventBlock],
    *,
    shape: tuple[int, int],
    dtype: DTypeLike = np.uint16,
    header: Header | None = None,
) -> Path:
    """Write `/entry/data/data` block by block, one chunk per frame, bitshuffle/LZ4 by several threads.

    A reader may follow it (SWMR): each block is in the file when the next one is asked for.

    Parameters
    ----------
    blocks: in frame order; a generator sets the pace.
    shape: rows and columns. dtype: of the values in the file, an integer type.

    Returns
    -------
    : the path.

    Raises
    ------
    ValueError: frames of another shape, or counts that the type does not hold.
    StoreFull: no room. StorageError: it cannot be written.
    """
    with ThreadPoolExecutor(threads()) as pool, _growing(path, shape, np.dtype(dtype), header or {}) as data:
        for block in blocks:
            _append(data, frames_of(block, shape, data.dtype), pool)
    return path


def write_master(
    path: Path,
    blocks: Iterable[FrameBlock | EventBlock],
    *,
    shape: tuple[int, int],
    frames: int,
    frames_per_file: int = 1000,
    dtype: DTypeLike = np.uint32,
    header: Header | None = None,
) -> Path:
    """Write a master, `<run>_master.h5`, and beside it data files `<run>_data_000001.h5` ..., as an Eiger does.

    The master names all data files from the start; they appear one after another.

    Parameters and errors: as `write_run`, and
    frames: how many will come; fewer leave links to data files that are not there.
    """
    stem = path.stem.removesuffix("_master")
    names = [f"{stem}_data_{number:06d}.h5" for number in range(1, -(-frames // frames_per_file) + 1)]
    with _writing(path), h5py.File(path, "w") as file:
        _put(file, {"entry/instrument/detector/detectorSpecific/nimages": (frames, ""), **(header or {})})
        for name in names:
            file[f"entry/data/{Path(name).stem.removeprefix(stem + '_')}"] = h5py.ExternalLink(
                name, "/entry/data/data"
            )
    pieces = _cut((frames_of(block, shape, np.dtype(dtype)) for block in blocks), frames_per_file)
    with ThreadPoolExecutor(threads()) as pool, contextlib.ExitStack() as opened:
        for number, piece in pieces:
            if piece is None:
                opened.close()
                data = opened.enter_context(_growing(path.with_name(names[number]), shape, np.dtype(dtype), {}))
            else:
                _append(data, piece, pool)
    return path


def _cut(stacks: Iterable[NDArray[Any]], size: int) -> Iterator[tuple[int, NDArray[Any] | None]]:
    """(file, frames) in order, and (file, None) before the first frames of each file."""
    done = 0
    for stack in stacks:
        at = 0
        while at < len(stack):
            room = size - done % size
            if room == size:
                yield done // size, None
            yield done // size, stack[at : at + room]
            done, at = done + min(room, len(stack) - at), at + room


@contextlib.contextmanager
def _growing(path: Path, shape: tuple[int, int], dtype: np.dtype[Any], header: Header) -> Iterator[h5py.Dataset]:
    with _writing(path), h5py.File(path, "w", libver="latest") as file:
        _put(file, header)
        data = file.create_dataset(
            "entry/data/data",
            (0, *shape),
            dtype,
            maxshape=(None, *shape),
            chunks=(1, *shape),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        data.attrs["units"] = "counts"
        file.swmr_mode = True
        yield data


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def _put(file: h5py.File, header: Header) -> None:
    for place, (value, unit) in header.items():
        file[place] = value
        if unit:
            file[place].attrs["units"] = unit


def _append(data: h5py.Dataset, frames: NDArray[Any], pool: ThreadPoolExecutor) -> None:
    begin, chunks = data.shape[0], list(pool.map(encode, frames))
    data.resize(begin + len(frames), axis=0)
    for number, chunk in enumerate(chunks, begin):
        data.id.write_direct_chunk((number, 0, 0), chunk)
    data.file.flush()
