"""Rigaku's 64-bit events: one module and six."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock
from lightkeep.formats import metadata_8id, rigaku
from lightkeep.formats.rigaku import FORMAT, MODULE, SHAPE_3M, write_run, write_run_3m
from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import BadFile, InvalidInput, LightkeepError, SourceError
from lightkeep.model.formats import Format
from lightkeep.model.quantity import Quantity
from lightkeep.testing.suites.format import FormatSuite, assert_one_line, mutant

from .runs import cut, events, followed, joined

RUN = events(10, MODULE, most=4096)


class TestRigaku(FormatSuite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return write_run(folder / "run.bin", [RUN])

    def cut(self, share: float, size: int) -> int:
        return int(share * size) // 8 * 8 + 3


def words(frame: int, pixel: int, count: int) -> int:
    """One event as the detector's manual says."""
    return frame << 40 | pixel << 16 | count


def write_words(path: Path, *events_: tuple[int, int, int]) -> Path:
    path.write_bytes(np.array([words(*event) for event in events_], "<u8").tobytes())
    return path


def test_the_bits_of_a_word_are_frame_pixel_and_count(tmp_path: Path) -> None:
    path = write_words(tmp_path / "run.bin", (0, 0, 1), (0, 1025, 4095), (2, 524287, 7))
    with FORMAT.open(path) as source:
        frames = source.arrays["frames"][...]
        assert source.technique == "xpcs"
    assert frames.shape == (3, 512, 1024)
    assert (frames[0, 0, 0], frames[0, 1, 1], frames[2, 511, 1023]) == (1, 4095, 7)
    assert frames.sum() == 4103


def test_what_is_written_is_read_in_blocks_of_any_size(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.bin", cut(RUN, 3))
    with FORMAT.open(path) as source:
        stack = source.arrays["frames"]
        for size in (None, 1, 3, 10, 100):
            np.testing.assert_array_equal(joined(stack.blocks(size=size), "u2"), RUN.dense("u2"))
        np.testing.assert_array_equal(joined(stack.blocks(2, 7, size=2), "u2"), RUN.dense("u2")[2:7])
        assert [(block.begin, block.count) for block in stack.blocks(2, 7, size=2)] == [(2, 2), (4, 2), (6, 1)]
        assert list(stack.blocks(4, 4)) == []
        with pytest.raises(InvalidInput, match=r"frames 5\.\.11 are not within its 10 frames"):
            stack.blocks(5, 11)


def test_frames_without_events_are_empty_frames_of_the_run(tmp_path: Path) -> None:
    path = write_words(tmp_path / "run.bin", (0, 5, 1), (900, 5, 1))
    with FORMAT.open(path) as source:
        blocks = list(source.arrays["frames"].blocks(size=100))
    assert [block.frame.size for block in blocks] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_the_frame_counter_goes_on_after_it_started_again(tmp_path: Path) -> None:
    top = 2**24
    frames = [top - 3, top - 1, 0, 1, top - 2, top - 1, 2]
    path = write_words(tmp_path / "run.bin", *((frame, 9, 1) for frame in frames))
    true = [top - 3, top - 1, top, top + 1, 2 * top - 2, 2 * top - 1, 2 * top + 2]
    with FORMAT.open(path) as source:
        stack = source.arrays["frames"]
        assert stack.shape[0] == 2 * top + 3
        for begin, end in [(0, stack.shape[0]), (top - 3, top + 2), (top, 2 * top), (2 * top - 1, 2 * top + 3)]:
            got = np.concatenate([block.frame for block in stack.blocks(begin, end)])
            assert got.tolist() == [frame for frame in true if begin <= frame < end]


def test_a_frame_is_found_anywhere_in_a_long_file(tmp_path: Path) -> None:
    run = events(3000, MODULE, count=60_000)
    path = write_run(tmp_path / "run.bin", [run])
    with FORMAT.open(path) as source:
        stack = source.arrays["frames"]
        for begin in (0, 1, 1499, 2998):
            (block,) = stack.blocks(begin, begin + 2)
            here = (run.frame >= begin) & (run.frame < begin + 2)
            np.testing.assert_array_equal(block.frame, run.frame[here])
            np.testing.assert_array_equal(block.pixel, run.pixel[here])
            np.testing.assert_array_equal(block.value, run.value[here])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ((3, 512 * 1024, 1), r"event 600 of frame 3 is at pixel 524288, beyond the detector's 524288 pixels"),
        ((3, 1 << 20, 1), r"event 600 of frame 3 is at pixel 1048576, beyond"),
        ((0, 7, 1), r"event 600 is of frame 0, after one of frame 3"),
    ],
)
def test_an_event_that_cannot_be_is_named(tmp_path: Path, bad: tuple[int, int, int], says: str) -> None:
    good = [(frame, pixel, 1) for frame in range(4) for pixel in range(150)]
    path = write_words(tmp_path / "run.bin", *good, bad, (4, 1, 1))
    with pytest.raises(BadFile, match=says) as caught, FORMAT.open(path) as source:
        list(source.arrays["frames"].blocks())
    assert_one_line(caught.value, path)


def test_a_burst_makes_shorter_blocks_and_too_many_events_in_a_frame_are_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightkeep.formats.frame_stack._MOST_EVENTS", 100)
    burst = [(2, pixel, 1) for pixel in range(90)] + [(3, pixel, 1) for pixel in range(90)]
    path = write_words(tmp_path / "run.bin", (0, 1, 1), (1, 1, 1), *burst, (7, 1, 1))
    with FORMAT.open(path) as source:
        assert [(b.begin, b.count) for b in source.arrays["frames"].blocks(size=8)] == [(0, 2), (2, 1), (3, 5)]
    monkeypatch.setattr("lightkeep.formats.frame_stack._PER_PIXEL", 80 / (512 * 1024))
    monkeypatch.setattr("lightkeep.formats.frame_stack._MOST_EVENTS", 50)
    with FORMAT.open(path) as source, pytest.raises(BadFile, match="frame 2 holds more than 80"):
        list(source.arrays["frames"].blocks())


def test_pixels_may_be_numbered_along_columns(tmp_path: Path) -> None:
    path = write_words(tmp_path / "run.bin", (0, 512 * 3 + 7, 5))
    with FORMAT.open(path, pixel_order="column") as source:
        assert source.arrays["frames"][0][7, 3] == 5
    with FORMAT.open(path) as source:
        assert source.arrays["frames"][0][1, 512 + 7] == 5


def test_other_binary_files_are_not_taken_for_events(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for number, content in enumerate(
        [bytes(4096), rng.bytes(4096), b"\xff" * 4096, np.arange(512, dtype="<u8").tobytes(), b"MZ\x90\0" * 600]
    ):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        assert not FORMAT.matches(path)
        assert formats.detect(path) == ""
        with pytest.raises(BadFile):
            FORMAT.open(path)


def test_the_metadata_beside_it_are_read_and_another_count_of_frames_is_told(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.bin", [RUN])
    facts = {"frame_time": Quantity.of(2e-5, "s"), "energy": Quantity.of(10.9, "keV"), "frames": Quantity.of(10)}
    metadata_8id.write_metadata(tmp_path / "run_metadata.hdf", Metadata(facts, {"sample": "silica"}))
    found = formats.inspect(path).metadata
    assert found.quantities["frame_time"].value_si == 2e-5
    assert found.quantities["energy"].value == 10.9
    assert found.texts["sample"] == "silica"
    assert "frames_differ" not in found.rest
    (tmp_path / "run_metadata.hdf").unlink()
    metadata_8id.write_metadata(tmp_path / "run_metadata.hdf", Metadata({**facts, "frames": Quantity.of(12)}))
    found = formats.inspect(path).metadata
    assert found.rest["frames_differ"] == [12, 10]
    assert "the metadata promise 12 frames, the file holds 10" in found.rest["notes"]


def test_counts_that_do_not_fit_and_other_shapes_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit into 12 bits"):
        write_run(tmp_path / "run.bin", [FrameBlock(0, np.full((1, *MODULE), 4096, np.uint16))])
    with pytest.raises(ValueError, match="frames of 4 x 4 pixels, not 512 x 1024"):
        write_run(tmp_path / "run.bin", [FrameBlock(0, np.ones((1, 4, 4), np.uint16))])


def test_a_run_is_followed_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.bin"
    found = followed(
        path,
        cut(RUN, 2),
        lambda blocks: write_run(path, blocks),
        lambda: FORMAT.open_live(path),
        lag=2,  # a frame is known to be complete when an event of a later one is there
        idle_s=0.2,
    )
    assert len(found) > 1
    np.testing.assert_array_equal(joined(found, "u2"), RUN.dense("u2"))


def test_following_waits_for_half_a_word_and_refuses_one_that_never_ends(tmp_path: Path) -> None:
    path = write_words(tmp_path / "run.bin", (0, 1, 1), (1, 2, 1), (2, 3, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with FORMAT.open_live(path) as source:
        run = source.arrays["frames"].follow(poll_s=0.001, idle_s=0.1)
        assert next(run).count == 1
        path.write_bytes(whole)
        assert joined(run, "u2").shape == (2, *MODULE)
    path.write_bytes(whole[:-3])
    with FORMAT.open_live(path) as source, pytest.raises(BadFile, match="ends inside event 2, after 21 bytes"):
        list(source.arrays["frames"].follow(poll_s=0.001, idle_s=0.05))


def test_following_ends_at_once_when_the_writer_gave_the_file_its_last_name(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.bin", [RUN])
    with FORMAT.open_live(path) as source:
        run = source.arrays["frames"].follow(poll_s=0.001, idle_s=3600)
        first = next(run)
        path.rename(tmp_path / "done.bin")
        np.testing.assert_array_equal(joined([first, *run], "u2"), RUN.dense("u2"))


def test_mutants_of_a_run_are_read_or_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.bin", [RUN])
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
    assert refused > 50


# ---- six modules

RUN_3M = events(4, SHAPE_3M, count=3000)


def in_a_gap() -> np.ndarray:
    rows, columns = np.ones(SHAPE_3M[0], bool), np.ones(SHAPE_3M[1], bool)
    for begin in (0, 582, 1164):
        rows[begin : begin + 512] = False
    for begin in (0, 1076):
        columns[begin : begin + 1024] = False
    return rows[:, None] | columns


@pytest.mark.parametrize(
    ("file", "row", "column"), [(5, 0, 0), (0, 0, 1), (4, 1, 0), (1, 1, 1), (3, 2, 0), (2, 2, 1)]
)
def test_each_file_is_the_module_at_its_place(tmp_path: Path, file: int, row: int, column: int) -> None:
    path = write_run_3m(tmp_path / "run.bin.000", [RUN_3M])
    whole = RUN_3M.dense("u2")
    with FORMAT.open(path) as source:
        frames = source.arrays["frames"][...]
    assert frames.shape == (4, 1676, 2100)
    place = np.s_[:, row * 582 : row * 582 + 512, column * 1076 : column * 1076 + 1024]
    np.testing.assert_array_equal(frames[place], whole[place])
    assert not frames[:, in_a_gap()].any()
    raw = np.fromfile(tmp_path / f"run.bin.{file:03d}", "<u8")
    assert (raw & 0xFFF).sum() == whole[place].sum()


def test_a_3m_is_one_dataset_of_its_first_file(tmp_path: Path) -> None:
    path = write_run_3m(tmp_path / "run.bin.000", cut(RUN_3M, 1))
    found = formats.inspect(path, within=tmp_path)
    assert (found.format, found.arrays["frames"]) == ("rigaku", ((4, 1676, 2100), "uint16"))
    assert formats.detect(tmp_path / "run.bin.003") == ""


def test_modules_are_merged_by_frame(tmp_path: Path) -> None:
    path = write_run_3m(tmp_path / "run.bin.000", [RUN_3M])
    with FORMAT.open(path) as source:
        for block in source.arrays["frames"].blocks(size=3):
            assert isinstance(block, EventBlock)
            assert (np.diff(block.frame.astype(int)) >= 0).all()


def test_a_module_may_add_a_megapixel_to_its_pixel_numbers(tmp_path: Path) -> None:
    path = write_run_3m(tmp_path / "run.bin.000", [RUN_3M])
    with FORMAT.open(path) as source:
        before = source.arrays["frames"][...]
    for number in (1, 4):
        name = tmp_path / f"run.bin.{number:03d}"
        (np.fromfile(name, "<u8") + np.uint64(1 << 20 << 16)).tofile(name)
    with FORMAT.open(path) as source:
        np.testing.assert_array_equal(source.arrays["frames"][...], before)


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    path = write_run_3m(tmp_path / "run.bin.000", [RUN_3M])
    (tmp_path / "run.bin.003").unlink()
    with pytest.raises((BadFile, SourceError), match=r"run\.bin\.003: no such file"):
        FORMAT.open(path)


def test_modules_that_come_late_are_waited_for(tmp_path: Path) -> None:
    path = write_run_3m(tmp_path / "run.bin.000", [RUN_3M])
    late = [tmp_path / f"run.bin.{number:03d}" for number in (2, 5)]
    for name in late:
        name.rename(f"{name}.later")
    with FORMAT.open_live(path) as source:
        stack = source.arrays["frames"]
        assert stack.look().frames == 0
        for name in late:
            Path(f"{name}.later").rename(name)
        got = joined(stack.follow(poll_s=0.001, idle_s=0.05), "u2")
    np.testing.assert_array_equal(got, np.where(in_a_gap(), 0, RUN_3M.dense("u2")))
    late[0].unlink()
    with FORMAT.open_live(path) as source, pytest.raises(BadFile, match=r"run\.bin\.002: was never written"):
        list(source.arrays["frames"].follow(poll_s=0.001, idle_s=0.05))


def test_a_run_larger_than_the_memory_for_it_is_read(tmp_path: Path) -> None:
    block = events(100, MODULE, count=200_000)
    path = tmp_path / "run.bin"
    repeated = (
        EventBlock(begin, 100, MODULE, block.frame + np.uint32(begin), block.pixel, block.value)
        for begin in range(0, 2500, 100)
    )
    write_run(path, repeated)
    tracemalloc.start()
    with FORMAT.open(path) as source:
        total = sum(int(each.value.sum()) for each in source.arrays["frames"].blocks(size=50))
        _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 25 * int(block.value.sum())
    assert path.stat().st_size > 39e6
    assert peak < 15e6


def test_the_names_of_the_six_files_are_in_the_documented_order() -> None:
    assert rigaku.FILES_3M == (5, 0, 4, 1, 3, 2)
    assert SHAPE_3M == (1676, 2100)
