"""IMM records, dense and sparse."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock
from lightkeep.formats.imm import FORMAT, HEADER_BYTES, write_run
from lightkeep.model.errors import BadFile, LightkeepError
from lightkeep.model.formats import Format
from lightkeep.testing.suites.format import FormatSuite, assert_one_line, mutant

from .runs import cut, dense, events, followed, joined

SHAPE = (12, 17)
RUN = events(9, SHAPE)


class TestDenseImm(FormatSuite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return write_run(folder / "run.imm", [RUN], shape=SHAPE, is_sparse=False, frame_time_s=0.5)


class TestSparseImm(FormatSuite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return write_run(folder / "run.imm", [RUN], shape=SHAPE, exposure_time_s=0.25)


def record(
    values: bytes, *, compression: int, count: int, rows: int = 2, columns: int = 3, number: int = 0
) -> bytes:
    """A record written by the offsets of the format's description."""
    head = bytearray(HEADER_BYTES)
    for offset, kind, value in [
        (4, "<i", compression), (108, "<i", rows), (112, "<i", columns), (116, "<i", 2), (128, "<d", 7.0 + number),
        (136, "<d", 0.125), (152, "<I", count), (160, "<i", number), (616, "<i", 12), (628, "<f", 1.5),
    ]:  # fmt: skip
        struct.pack_into(kind, head, offset, value)
    return bytes(head) + values


def sparse(pixels: list[int], counts: list[int], *, number: int = 0) -> bytes:
    payload = np.array(pixels, "<i4").tobytes() + np.array(counts, "<i2").tobytes()
    return record(payload, compression=6, count=len(pixels), number=number)


def test_records_are_read_by_the_offsets_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "run.imm"
    path.write_bytes(
        record(np.arange(6, dtype="<u2").tobytes(), compression=0, count=6)
        + record(np.full(6, 65535, "<u2").tobytes(), compression=0, count=6, number=1)
    )
    with FORMAT.open(path) as source:
        np.testing.assert_array_equal(
            source.arrays["frames"][...], [[[0, 1, 2], [3, 4, 5]], np.full((2, 3), 65535)]
        )
        assert source.metadata.quantities["frame_time"].value_si == 1.0
        assert source.metadata.quantities["exposure_time"].value_si == 0.125
        assert source.metadata.rest["header/threshold"] == 1.5
    path.write_bytes(sparse([5, 0], [7, 9]) + sparse([], [], number=1) + sparse([1], [32767], number=2))
    with FORMAT.open(path) as source:
        frames = source.arrays["frames"][...]
    assert frames.tolist() == [[[9, 0, 0], [0, 0, 7]], [[0, 0, 0], [0, 0, 0]], [[0, 32767, 0], [0, 0, 0]]]


@pytest.mark.parametrize("is_sparse", [True, False])
def test_what_is_written_is_read_in_blocks_of_any_size(tmp_path: Path, is_sparse: bool) -> None:
    for blocks in (cut(RUN, 4), dense(RUN, "u2", 4)):
        path = write_run(tmp_path / "run.imm", blocks, shape=SHAPE, is_sparse=is_sparse)
        with FORMAT.open(path) as source:
            stack = source.arrays["frames"]
            kind = EventBlock if is_sparse else FrameBlock
            assert all(isinstance(block, kind) for block in stack.blocks())
            for size in (None, 1, 4, 9, 50):
                np.testing.assert_array_equal(joined(stack.blocks(size=size), "u2"), RUN.dense("u2"))
            np.testing.assert_array_equal(joined(stack.blocks(2, 7, size=3), "u2"), RUN.dense("u2")[2:7])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (sparse([1], [1]) + sparse([2, 3], [1, 1])[:-1], "record 1 is cut short: 1035 bytes at 1030"),
        (sparse([1], [1]) + sparse([2], [1])[:700], "record 1 is cut short: 700 bytes at 1030"),
        (sparse([1], [1]) + bytes(2000), "record 1 at byte 1030 has no IMM header"),
        (
            sparse([1], [1]) + record(bytes(12), compression=0, count=6),
            "record 1 has dense frames of 2 x 3 pixels, the first one sparse frames of 2 x 3 pixels",
        ),
        (
            record(bytes(12), compression=0, count=6)
            + record(bytes(8), compression=0, count=4, rows=2, columns=2),
            "record 1 has dense frames of 2 x 2",
        ),
        (record(bytes(10), compression=0, count=5), "record 0 at byte 0 has no IMM header"),
    ],
)
def test_a_record_that_cannot_be_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "run.imm"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=says) as caught:
        FORMAT.open(path)
    assert_one_line(caught.value, path)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (sparse([1, 6], [1, 1], number=1), "record 1 has an event at pixel 6, beyond the detector's 6 pixels"),
        (sparse([-1], [1], number=1), "record 1 has an event at pixel -1, beyond"),
        (sparse([1], [-4], number=1), "record 1 has a count of -4"),
    ],
)
def test_an_event_that_cannot_be_is_named(tmp_path: Path, bad: bytes, says: str) -> None:
    path = tmp_path / "run.imm"
    path.write_bytes(sparse([5, 0], [7, 9]) + bad)
    with FORMAT.open(path) as source, pytest.raises(BadFile, match=says) as caught:
        list(source.arrays["frames"].blocks())
    assert_one_line(caught.value, path)


def test_frames_that_the_detector_dropped_are_told(tmp_path: Path) -> None:
    path = tmp_path / "run.imm"
    path.write_bytes(sparse([1], [1], number=10) + sparse([1], [1], number=11) + sparse([1], [1], number=14))
    assert (
        "the records' numbers skip 2 frames: they may have been dropped"
        in formats.inspect(path).metadata.rest["notes"]
    )


@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_run_is_followed_while_it_is_written(tmp_path: Path, is_sparse: bool) -> None:
    path = tmp_path / "run.imm"
    found = followed(
        path,
        cut(RUN, 2),
        lambda blocks: write_run(path, blocks, shape=SHAPE, is_sparse=is_sparse),
        lambda: FORMAT.open_live(path),
        frames=9,
        idle_s=60,
    )
    assert len(found) >= 5
    np.testing.assert_array_equal(joined(found, "u2"), RUN.dense("u2"))


def test_following_waits_for_a_record_and_refuses_one_that_never_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.imm"
    whole = sparse([1], [1]) + sparse([2], [3], number=1)
    path.write_bytes(whole[:-1])
    with FORMAT.open_live(path) as source:
        run = source.arrays["frames"].follow(poll_s=0.001, idle_s=60, frames=2)
        assert next(run).count == 1
        path.write_bytes(whole)
        assert joined(run, "u2").sum() == 3
    path.write_bytes(whole[:-1])
    with FORMAT.open_live(path) as source, pytest.raises(BadFile, match="record 1 is cut short"):
        list(source.arrays["frames"].follow(poll_s=0.001, idle_s=0.05))


def test_following_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "run.imm"
    path.write_bytes(sparse([1], [1]))
    answers = iter([False, False, True])
    with FORMAT.open_live(path) as source:
        run = source.arrays["frames"].follow(poll_s=0.001, idle_s=60, until=lambda: next(answers))
        assert joined(run, "u2").shape == (1, 2, 3)


@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_run_larger_than_the_memory_for_it_is_read(tmp_path: Path, is_sparse: bool) -> None:
    frames = np.random.default_rng(4).poisson(0.5, (50, 100, 200)).astype(np.uint16)
    repeated = (FrameBlock(begin, frames) for begin in range(0, 1000, 50))
    path = write_run(tmp_path / "run.imm", repeated, shape=(100, 200), is_sparse=is_sparse)
    tracemalloc.start()
    with FORMAT.open(path) as source:
        blocks = source.arrays["frames"].blocks(size=20)
        total = sum(int((b.value if isinstance(b, EventBlock) else b.frames).sum()) for b in blocks)
        _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 20 * int(frames.sum())
    assert path.stat().st_size > 36e6
    assert peak < 12e6


@pytest.mark.parametrize("is_sparse", [True, False])
def test_mutants_of_a_run_are_read_or_refused(tmp_path: Path, is_sparse: bool) -> None:
    path = write_run(tmp_path / "run.imm", [RUN], shape=SHAPE, is_sparse=is_sparse)
    whole, rng, refused = path.read_bytes(), np.random.default_rng(2309), 0
    for _ in range(200):
        path.write_bytes(mutant(whole, rng))
        try:
            with FORMAT.open(path) as source:
                assert (
                    sum(block.count for block in source.arrays["frames"].blocks())
                    == source.arrays["frames"].shape[0]
                )
        except LightkeepError as error:
            refused += 1
            assert_one_line(error, path)
    assert refused > 5
