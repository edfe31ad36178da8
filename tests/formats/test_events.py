"""Tables of events, by frame and by time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis.xpcs.blocks import EventBlock
from lightkeep.formats import metadata_8id
from lightkeep.formats.events import FORMAT, write_run, write_times
from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Format
from lightkeep.model.quantity import Quantity
from lightkeep.testing.suites.format import Hdf5Suite, assert_one_line

from .runs import cut, dense, events, followed_across, joined

SHAPE = (7, 9)
RUN = events(20, SHAPE)


class TestEvents(Hdf5Suite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return write_run(folder / "run.h5", [RUN], shape=SHAPE, frame_time_s=2e-3)


def arrivals(count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Times in ns over 10.5 microseconds, and pixels."""
    rng = np.random.default_rng(11)
    times = np.sort(np.append(rng.integers(0, 10_500, count - 1), 10_499))
    return times.astype(np.uint64), rng.integers(0, SHAPE[0] * SHAPE[1], count)


def write_table(
    path: Path, columns: dict[str, np.ndarray], *, place: str = "entry/events", **attributes: object
) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group(place)
        group.attrs["shape"] = SHAPE
        group.attrs.update(attributes)
        for name, values in columns.items():
            group[name] = values
    return path


def test_what_is_written_is_read_in_blocks_of_any_size(tmp_path: Path) -> None:
    for blocks in (cut(RUN, 6), dense(RUN, "u2", 6)):
        with FORMAT.open(write_run(tmp_path / "run.h5", blocks, shape=SHAPE, frame_time_s=2e-3)) as source:
            stack = source.arrays["frames"]
            assert stack.shape == (20, *SHAPE)
            assert source.metadata.quantities["frame_time"].value_si == 2e-3
            for size in (None, 1, 6, 50):
                np.testing.assert_array_equal(joined(stack.blocks(size=size), None), RUN.dense())
            np.testing.assert_array_equal(joined(stack.blocks(3, 17, size=4), None), RUN.dense()[3:17])


def test_events_may_be_placed_by_x_and_y_and_count_once(tmp_path: Path) -> None:
    y, x = np.divmod(RUN.pixel, SHAPE[1])
    path = write_table(tmp_path / "run.h5", {"frame": RUN.frame, "x": x, "y": y}, place="events", frames=20)
    with FORMAT.open(path) as source:
        np.testing.assert_array_equal(source.arrays["frames"][...], RUN.dense() > 0)
        assert source.metadata.quantities["frames"].value == 20


@pytest.mark.parametrize(
    ("unit", "scale", "dtype"),
    [("ns", 1, "u8"), ("ns", 1, "f8"), ("us", 1e-3, "f8"), ("s", 1e-9, "f8"), ("ps", 1000, "u8")],
)
def test_times_become_frames_of_the_bin_time_in_any_unit(
    tmp_path: Path, unit: str, scale: float, dtype: str
) -> None:
    times, pixels = arrivals()
    times = times[times % 1000 > 0] + 0  # at a boundary, rounding of a decimal unit decides
    pixels = pixels[: times.size]
    path = write_table(tmp_path / "run.h5", {"t": (times * scale).astype(dtype), "pixel": pixels}, bin_time_s=1e-6)
    with h5py.File(path, "r+") as file:
        file["entry/events/t"].attrs["units"] = unit
    true = np.zeros((11, SHAPE[0] * SHAPE[1]), int)
    np.add.at(true, (times // 1000, pixels), 1)
    with FORMAT.open(path) as source:
        assert source.metadata.quantities["frame_time"].value_si == 1e-6
        np.testing.assert_array_equal(source.arrays["frames"][...], true[:10].reshape(10, *SHAPE))


def test_whole_ticks_are_binned_exactly_however_late(tmp_path: Path) -> None:
    late = 2**62 // 1000 * 1000
    times = late + np.array([0, 999, 1000, 1999, 2000, 3000])
    path = write_times(tmp_path / "run.h5", [(times, np.zeros(6))], shape=SHAPE, bin_time_s=1e-6)
    with h5py.File(path, "r+") as file:
        file["entry/events"].attrs["t_begin"] = late
    with FORMAT.open(path) as source:
        assert source.arrays["frames"][:, 0, 0].tolist() == [2, 2, 1]


def test_the_bin_time_is_what_is_given_or_else_the_frame_time_of_the_metadata(tmp_path: Path) -> None:
    times, pixels = arrivals()
    path = write_times(tmp_path / "run.h5", [(times, pixels)], shape=SHAPE)
    with FORMAT.open(path) as source:
        assert source.arrays == {}
        assert "a run needs bin_time_s" in source.metadata.rest["notes"][-1]
    with pytest.raises(BadFile, match="does not say how long a frame is"):
        FORMAT.open_live(path, wait_s=0)
    facts = {"frame_time": Quantity.of(1, "us")}
    metadata_8id.write_metadata(tmp_path / "run_metadata.hdf", Metadata(facts))
    with FORMAT.open(path) as source:
        assert source.arrays["frames"].shape[0] == 10
    totals = []
    for bin_time_s in (0.5e-6, 1e-6, 2e-6):
        with FORMAT.open(path, bin_time_s=bin_time_s) as source:
            totals.append(source.arrays["frames"][...].sum(axis=(1, 2)))
            assert source.metadata.quantities["frame_time"].value_si == bin_time_s
    assert [total.size for total in totals] == [20, 10, 5]
    np.testing.assert_array_equal(totals[0].reshape(10, 2).sum(axis=1), totals[1])
    np.testing.assert_array_equal(totals[1].reshape(5, 2).sum(axis=1), totals[2])


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"frame": [0, 1, 1], "pixel": [0, 63, 1]}, "event 1 of frame 1 is at 63, beyond the detector of 7 x 9"),
        ({"frame": [0, 1, 1], "pixel": [0, -1, 1]}, "event 1 of frame 1 is at -1, beyond"),
        ({"frame": [0, 1, 1], "x": [0, 9, 1], "y": [0, 1, 1]}, "event 1 of frame 1 is at 9, beyond"),
        ({"frame": [0, 1, 1], "x": [0, 1, 1], "y": [0, 7, 1]}, "event 1 of frame 1 is at 7, beyond"),
        ({"frame": [0, 2, 1, 3], "pixel": [0, 0, 0, 0]}, "event 2 is of frame 1, out of order"),
        ({"frame": [-1, 2, 3], "pixel": [0, 0, 0]}, "event 0 is of frame -1, out of order"),
        ({"frame": [0, 1, 2**40], "pixel": [0, 0, 0]}, "event 2 is of frame 1099511627776, out of order"),
        ({"frame": [0, 1, 2], "pixel": [0, 0, 0], "count": [1, -3, 1]}, "event 1 has a count of -3"),
        ({"frame": [0, 1, 2], "pixel": [0, 0]}, "columns of different length"),
        ({"frame": [], "pixel": []}, "holds no events"),
    ],
)
def test_an_event_that_cannot_be_is_named(tmp_path: Path, columns: dict, says: str) -> None:
    path = write_table(tmp_path / "run.h5", {name: np.array(values, int) for name, values in columns.items()})
    with pytest.raises(BadFile, match=says) as caught, FORMAT.open(path) as source:
        list(source.arrays["frames"].blocks())
    assert_one_line(caught.value, path)


@pytest.mark.parametrize("shape", [None, 7, (0, 9), (7.0, 9.0), (7, 9, 1), "7x9"])
def test_a_table_without_a_shape_is_refused(tmp_path: Path, shape: object) -> None:
    path = write_table(tmp_path / "run.h5", {"frame": RUN.frame, "pixel": RUN.pixel})
    with h5py.File(path, "r+") as file:
        del file["entry/events"].attrs["shape"]
        if shape is not None:
            file["entry/events"].attrs["shape"] = shape
    with pytest.raises(BadFile, match="does not say the detector's shape"):
        FORMAT.open(path)


def test_another_count_of_frames_is_told(tmp_path: Path) -> None:
    path = write_table(tmp_path / "run.h5", {"frame": RUN.frame, "pixel": RUN.pixel}, frames=25)
    assert formats.inspect(path).metadata.rest["frames_differ"] == [25, 20]


@pytest.mark.parametrize("step", [1, 7])
def test_a_frame_is_found_anywhere_in_a_long_table(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightkeep.formats.events._CHUNK", 16)
    path = write_run(tmp_path / "run.h5", cut(RUN, step), shape=SHAPE)
    with FORMAT.open(path) as source:
        stack = source.arrays["frames"]
        for begin in range(20):
            np.testing.assert_array_equal(joined(stack.blocks(begin, begin + 1), None)[0], RUN.dense()[begin])


def test_a_table_is_followed_while_another_process_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    write = f"lambda path, blocks: events.write_run(path, blocks, shape={SHAPE})"
    found = followed_across(path, list(cut(RUN, 4)), write, lambda: FORMAT.open_live(path, wait_s=20))
    assert len(found) >= 5
    np.testing.assert_array_equal(joined(found, None), RUN.dense())


def test_a_run_larger_than_the_memory_for_it_is_read(tmp_path: Path) -> None:
    block = events(100, (300, 300), count=100_000)
    repeated = (
        EventBlock(begin, 100, block.shape, block.frame + np.uint32(begin), block.pixel, block.value)
        for begin in range(0, 4000, 100)
    )
    path = write_run(tmp_path / "run.h5", repeated, shape=(300, 300))
    tracemalloc.start()
    with FORMAT.open(path) as source:
        total = sum(int(each.value.sum()) for each in source.arrays["frames"].blocks(size=50))
        _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 40 * int(block.value.sum())
    assert peak < 10e6 < 40 * block.frame.size * 10 / 3
