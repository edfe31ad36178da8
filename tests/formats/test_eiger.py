"""Stacks of frames in HDF5, and masters with their data files."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis.xpcs.blocks import FrameBlock
from lightkeep.formats import chunks, hdf5, metadata_8id
from lightkeep.formats.eiger import FORMAT
from lightkeep.formats.eiger_writer import write_master, write_run
from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import BadFile, UnsafeFile
from lightkeep.model.formats import Format
from lightkeep.model.quantity import Quantity
from lightkeep.testing.suites.format import Hdf5Suite, assert_one_line

from .conftest import write_nxtomo
from .runs import cut, dense, events, followed_across, joined

SHAPE = (11, 37)
RUN = events(9, SHAPE)
HEADER = {
    "entry/instrument/detector/frame_time": (1e-3, "s"),
    "entry/instrument/detector/count_time": (0.9e-3, "s"),
    "entry/instrument/detector/x_pixel_size": (75e-6, "m"),
    "entry/instrument/beam/incident_wavelength": (1.0, "angstrom"),
    "entry/instrument/detector/description": ("Eiger 500k", ""),
}
FRAMES = np.random.default_rng(6).poisson(0.7, (10, 40, 33))


class TestStack(Hdf5Suite):
    def make(self) -> Format:
        return FORMAT

    def example(self, folder: Path) -> Path:
        return write_run(folder / "run.h5", [RUN], shape=SHAPE, header=HEADER)


def write_hdf5(path: Path, frames: np.ndarray, **options: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=frames, **options)
    return path


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i4", "<u2", ">u2"])
@pytest.mark.parametrize(
    ("options", "is_direct"),
    [
        (hdf5plugin.Bitshuffle(cname="lz4"), True),
        (hdf5plugin.Bitshuffle(cname="zstd"), True),
        (hdf5plugin.Bitshuffle(nelems=512, cname="lz4"), True),
        (hdf5plugin.Bitshuffle(cname="none"), False),
        (hdf5plugin.LZ4(), True),
        (hdf5plugin.LZ4(nbytes=1000), True),
        ({}, True),
        ({"compression": "gzip", "shuffle": True}, False),
        (hdf5plugin.Blosc(), False),
    ],
    ids=["bslz4", "bszstd", "bslz4-small", "bs", "lz4", "lz4-small", "plain", "gzip", "blosc"],
)
def test_every_compression_gives_what_was_written(
    tmp_path: Path, dtype: str, options: dict, is_direct: bool
) -> None:
    frames = FRAMES.astype(dtype)
    for number, chunk in enumerate([(1, 40, 33), (3, 40, 33), (1, 16, 20), (4, 7, 33), (20, 40, 33)]):
        name = tmp_path / f"{number}.h5"
        path = write_hdf5(name, frames, chunks=chunk, maxshape=(None, None, None), **options)
        with FORMAT.open(path) as source:
            stack = source.arrays["frames"]
            with hdf5.open_plain(path) as file:
                assert (chunks.decoder(file["entry/data/data"]) is not None) == is_direct
            assert stack.dtype == frames.dtype
            for size in (None, 1, 4):
                np.testing.assert_array_equal(joined(stack.blocks(size=size), None), frames)
            np.testing.assert_array_equal(joined(stack.blocks(2, 7, size=3), None), frames[2:7])
            np.testing.assert_array_equal(stack[3:9:2, 5], frames[3:9:2, 5])


def test_contiguous_values_are_read_too(tmp_path: Path) -> None:
    with FORMAT.open(write_hdf5(tmp_path / "run.h5", FRAMES.astype("u2"))) as source:
        np.testing.assert_array_equal(joined(source.arrays["frames"].blocks(size=4), None), FRAMES)


@pytest.mark.parametrize(("dtype", "most"), [("u2", 65535), ("u4", 2**32 - 1)])
def test_saturated_and_dead_pixels_stay_what_the_detector_wrote(tmp_path: Path, dtype: str, most: int) -> None:
    frames = FRAMES.astype(dtype)
    frames[:, 3, 4] = most
    path = write_run(tmp_path / "run.h5", [FrameBlock(0, frames)], shape=(40, 33), dtype=dtype)
    with FORMAT.open(path) as source:
        (block,) = source.arrays["frames"].blocks()
    assert block.frames.dtype == dtype
    assert (block.frames == most).sum() == 10


def test_any_program_reads_what_is_written(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.h5", dense(RUN, "u2", 4), shape=SHAPE, dtype="u4")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["entry/data/data"][...], RUN.dense())
        assert file["entry/data/data"].chunks == (1, *SHAPE)
    with pytest.raises(ValueError, match="counts from 0 to 300 do not fit into uint8"):
        write_run(tmp_path / "no.h5", [FrameBlock(0, np.arange(301)[None, None])], shape=(1, 301), dtype="u1")


def test_a_master_is_the_frames_of_its_data_files_in_order(tmp_path: Path) -> None:
    path = write_master(
        tmp_path / "run_master.h5", cut(RUN, 2), shape=SHAPE, frames=9, frames_per_file=4, header=HEADER
    )
    assert sorted(each.name for each in tmp_path.glob("run_data*")) == [
        f"run_data_{number:06d}.h5" for number in (1, 2, 3)
    ]
    found = formats.inspect(path, within=tmp_path)
    assert (found.format, found.arrays["frames"]) == ("eiger", ((9, *SHAPE), "uint32"))
    assert found.metadata.quantities["energy"].value == pytest.approx(12398.42)
    assert found.metadata.quantities["frames"].value == 9
    assert "frames_differ" not in found.metadata.rest
    with FORMAT.open(path) as source:
        stack = source.arrays["frames"]
        for size in (None, 1, 3):
            np.testing.assert_array_equal(joined(stack.blocks(size=size), None), RUN.dense())
        np.testing.assert_array_equal(stack[3:6], RUN.dense()[3:6])


def test_a_data_file_that_is_missing_or_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    path = write_master(folder / "run_master.h5", [RUN], shape=SHAPE, frames=9, frames_per_file=4)
    (folder / "run_data_000002.h5").rename(tmp_path / "secret.h5")
    with pytest.raises(BadFile, match=r"leads to run_data_000002\.h5, which is not there"):
        FORMAT.open(path)
    with h5py.File(path, "r+") as file:
        del file["entry/data/data_000002"]
        file["entry/data/data_000002"] = h5py.ExternalLink("../secret.h5", "/entry/data/data")
    for opened in (FORMAT.open, lambda path: FORMAT.open_live(path, wait_s=0)):
        with pytest.raises(UnsafeFile, match="outside its dataset") as caught:
            opened(path)
        assert_one_line(caught.value, path)


def test_parts_of_different_shape_or_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    for second in (FRAMES[:, 1:].astype("u2"), FRAMES.astype("u4"), FRAMES.astype("f4"), FRAMES[0]):
        with h5py.File(path, "w") as file:
            file["entry/data/data_000001"] = FRAMES.astype("u2")
            file["entry/data/data_000002"] = second
        with pytest.raises(BadFile, match="data_000002 is not"):
            FORMAT.open(path)


def test_a_frame_that_was_never_written_is_named_and_not_zero(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.h5", [RUN], shape=SHAPE)
    with h5py.File(path, "r+") as file:
        file["entry/data/data"].resize(12, axis=0)
    with FORMAT.open(path) as source:
        stack = source.arrays["frames"]
        np.testing.assert_array_equal(joined(stack.blocks(0, 9), None), RUN.dense())
        with pytest.raises(BadFile, match="frame 9 of /entry/data/data was never written"):
            list(stack.blocks())


def test_damaged_chunks_are_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    """The decoders believe what a chunk says about itself: nothing may reach them that leads them astray."""
    frames = np.random.default_rng(7).integers(0, 4000, (1, 64, 64)).astype("u2")
    rng = np.random.default_rng(8)
    for name, options in {"bs": hdf5plugin.Bitshuffle(nelems=512, cname="lz4"), "lz4": hdf5plugin.LZ4()}.items():
        path = write_hdf5(tmp_path / f"{name}.h5", frames, chunks=frames.shape, **options)
        with h5py.File(path) as file:
            _mask, whole = file["entry/data/data"].id.read_direct_chunk((0, 0, 0))
            decode = chunks.decoder(file["entry/data/data"])
        assert decode is not None
        out, refused = np.empty_like(frames), 0
        for number in range(300):
            content = bytearray(whole)
            if number % 3 == 0:
                content = content[: rng.integers(len(whole))]
            elif number % 3 == 1:
                at = int(rng.integers(64))
                content[at : at + 4] = rng.bytes(4)
            else:
                content[12:16] = int(rng.integers(2**32)).to_bytes(4, "big")
            if bytes(content) == whole:
                continue
            with contextlib.suppress(ValueError):
                decode(bytes(content), out)
                continue
            refused += 1
        assert refused > 150


def test_frames_of_a_tomography_scan_are_not_taken_for_a_run(tmp_path: Path) -> None:
    path = write_nxtomo(tmp_path / "scan.nxs")
    assert not FORMAT.matches(path)
    with pytest.raises(BadFile, match="no frames in /entry/data"):
        FORMAT.open(path)


def test_the_metadata_beside_it_complete_what_the_file_says(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run.h5", [RUN], shape=SHAPE, header=HEADER)
    facts = {"distance": Quantity.of(4.0, "m"), "frames": Quantity.of(11), "frame_time": Quantity.of(2e-3, "s")}
    metadata_8id.write_metadata(tmp_path / "run_metadata.hdf", Metadata(facts))
    found = formats.inspect(path).metadata
    assert found.quantities["distance"].value_si == 4.0
    assert found.quantities["pixel_size"].value_si == 75e-6
    assert found.quantities["frame_time"].value_si == 1e-3
    assert found.rest["frames_differ"] == [11, 9]
    assert any("frame_time is 0.001 s here and 0.002 s" in note for note in found.rest["notes"])


def test_a_stack_is_followed_while_another_process_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    write = f"lambda path, blocks: eiger_writer.write_run(path, blocks, shape={SHAPE})"
    found = followed_across(path, list(cut(RUN, 2)), write, lambda: FORMAT.open_live(path, wait_s=20))
    assert len(found) >= 5
    np.testing.assert_array_equal(joined(found, None), RUN.dense())


def test_a_master_is_followed_while_its_data_files_appear(tmp_path: Path) -> None:
    path = tmp_path / "run_master.h5"
    write = (
        f"lambda path, blocks: eiger_writer.write_master(path, blocks, shape={SHAPE}, frames=9, frames_per_file=4)"
    )
    found = followed_across(path, list(cut(RUN, 2)), write, lambda: FORMAT.open_live(path, wait_s=20))
    assert len(found) >= 5
    np.testing.assert_array_equal(joined(found, None), RUN.dense())


def test_a_run_larger_than_the_memory_for_it_is_read(tmp_path: Path) -> None:
    frames = np.random.default_rng(4).poisson(0.05, (50, 200, 200)).astype(np.uint16)
    repeated = (FrameBlock(begin, frames) for begin in range(0, 1500, 50))
    path = write_run(tmp_path / "run.h5", repeated, shape=(200, 200))
    tracemalloc.start()
    with FORMAT.open(path) as source:
        total = sum(int(block.frames.sum()) for block in source.arrays["frames"].blocks(size=40))
        _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 30 * int(frames.sum())
    assert peak < 20e6 < frames.nbytes * 30 / 5
