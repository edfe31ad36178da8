"""How fast runs are read, and reduced to g2, from files: against the limit that decoding sets, h5py, and numpy.

The limit: all chunks lie in memory and every thread does nothing but decode them, into memory that is warm.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench._harness import Figure, interleaved
from bench.xpcs import a_map
from lightkeep.analysis import xpcs
from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock
from lightkeep.formats import chunks, eiger, eiger_writer, hdf5, rigaku
from lightkeep.formats.frame_stack import threads

PART = "xpcs"
REPETITIONS = 7
SHAPE = (512, 1024)
FRAMES = 512
QMAP = a_map(*SHAPE)


def run() -> list[Figure]:
    """Read a 500k's frames, as 16 and 8 bits and at two count rates, and its events."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        figures = []
        for dtype, mean in (("u2", 0.05), ("u2", 1.0), ("u1", 0.05)):
            figures += _frames(Path(folder) / f"{dtype}{mean}.h5", dtype, mean, rng)
        return [*figures, _events(Path(folder) / "run.bin", rng)]


def _frames(path: Path, dtype: str, mean: float, rng: np.random.Generator) -> list[Figure]:
    blocks = (FrameBlock(begin, rng.poisson(mean, (32, *SHAPE)).astype(dtype)) for begin in range(0, FRAMES, 32))
    eiger_writer.write_run(path, blocks, shape=SHAPE, dtype=dtype)
    size = FRAMES * SHAPE[0] * SHAPE[1] * np.dtype(dtype).itemsize / 1e9

    def ours() -> int:
        with eiger.FORMAT.open(path) as source:
            return sum(block.count for block in source.arrays["frames"].blocks())

    def through_h5py() -> None:
        with hdf5.open_plain(path) as file:
            for begin in range(0, FRAMES, 16):
                file["entry/data/data"][begin : begin + 16]

    def to_g2() -> xpcs.MultiTauResult:
        with eiger.FORMAT.open(path) as source:
            return xpcs.multitau(source.arrays["frames"], QMAP)

    functions = ours, _limit(path, dtype), through_h5py, to_g2
    mine, limit, plain, reduced = interleaved(*functions, repetitions=REPETITIONS)
    assert mine.result == FRAMES
    name = f"frames from HDF5, bitshuffle/LZ4, {dtype}, {mean:g} photons"
    rates = [size / each.median for each in (mine, limit, plain, reduced)]
    options = {"repetitions": REPETITIONS, "threads": threads(), "unit": "GB/s", "is_rate": True}
    return [
        Figure(
            name, rates[0], rates[1], "", note="against the decode limit: the ratio is the fraction", **options
        ),
        Figure(name, rates[0], rates[2], "", note="against h5py, block by block", **options),
        Figure(
            name.replace("frames from", "file to g2,"),
            rates[3],
            rates[1],
            "",
            note="the whole reduction against the decode limit: the ratio is the fraction",
            **options,
        ),
    ]


def _limit(path: Path, dtype: str) -> Callable[[], None]:
    with hdf5.open_plain(path) as file:
        data = file["entry/data/data"]
        decode = chunks.decoder(data)
        content = [data.id.read_direct_chunk((frame, 0, 0))[1] for frame in range(FRAMES)]
    assert decode is not None
    warm, count = np.zeros((16, *SHAPE), dtype), threads()

    def share(number: int) -> None:
        for frame in range(number, FRAMES, count):
            decode(content[frame], warm[frame % 16])

    def limit() -> None:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(share, range(count)))

    return limit


def _events(path: Path, rng: np.random.Generator) -> Figure:
    frames, count = 4000, 4_000_000
    frame = np.sort(rng.integers(0, frames, count)).astype(np.uint32)
    pixel = rng.integers(0, SHAPE[0] * SHAPE[1], count).astype(np.uint32)
    rigaku.write_run(path, [EventBlock(0, frames, SHAPE, frame, pixel, np.ones(count, np.uint16))])

    def ours() -> int:
        with rigaku.FORMAT.open(path) as source:
            return sum(block.frame.size for block in source.arrays["frames"].blocks())

    def whole() -> int:
        words = np.fromfile(path, "<u8")
        columns = (words >> 40).astype("u4"), (words >> 16 & 0x1FFFFF).astype("u4"), (words & 0xFFF).astype("u2")
        return int(columns[0].size)

    mine, plain = interleaved(ours, whole, repetitions=REPETITIONS)
    assert mine.result == plain.result == count
    return Figure(
        "events of a Rigaku 500k, checked and streamed",
        count / mine.median / 1e6,
        count / plain.median / 1e6,
        "",
        REPETITIONS,
        threads=threads(),
        unit="million/s",
        is_rate=True,
        note="against numpy on the whole file in memory, unchecked",
    )
