"""What every reader of files promises, and what every reader of HDF5 must withstand.

Subclass `FormatSuite` (or `Hdf5Suite`) in a test module and give the two methods that raise NotImplementedError.
"""

# ruff: noqa: S101 -- a suite is a test that ships

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightkeep import formats
from lightkeep.formats import sandbox
from lightkeep.model.errors import BadFile, LightkeepError, SourceError, UnsafeFile
from lightkeep.model.formats import Array, Format

SECRET = b"the neighbour's unpublished data"
CUTS = (0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
MUTANTS = 100
SLOWEST_S = 2.0


class FormatSuite:
    """For a format that can read."""

    def make(self) -> Format:
        """Return the format."""
        raise NotImplementedError

    def example(self, folder: Path) -> Path:
        """Write a small correct file into a folder; return its path."""
        raise NotImplementedError

    def test_it_recognises_its_own_file(self, tmp_path: Path) -> None:
        path = self.example(tmp_path)
        assert self.make().matches(path)
        assert formats.detect(path) == self.make().name

    @pytest.mark.parametrize(
        "content", [b"", b"\x00" * 64, b"%PDF-1.7\n", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n\x00\xff"]
    )
    def test_it_does_not_recognise_or_open_garbage(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / f"garbage{self.suffix(tmp_path)}"
        path.write_bytes(content)
        assert not self.make().matches(path)
        with pytest.raises(BadFile) as caught:
            self.make().open(path)
        assert_one_line(caught.value, path)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / f"nowhere{self.suffix(tmp_path)}"
        assert not self.make().matches(path)
        with pytest.raises(SourceError) as caught:
            self.make().open(path)
        assert_one_line(caught.value, path)

    def test_a_file_cut_short_is_refused_wherever_the_cut_is(self, tmp_path: Path) -> None:
        whole, suffix = self.example(tmp_path).read_bytes(), self.suffix(tmp_path)
        for share in CUTS:
            path = tmp_path / f"cut-{share}{suffix}"
            path.write_bytes(whole[: self.cut(share, len(whole))])
            with pytest.raises(BadFile) as caught:
                self.make().open(path)
            assert_one_line(caught.value, path)
            self.look_at_a_cut_file(path)

    def suffix(self, folder: Path) -> str:
        """Return what the names of its files end in, e.g. `.h5`."""
        folder = folder / "named"
        folder.mkdir(exist_ok=True)
        return "".join(self.example(folder).suffixes)

    def cut(self, share: float, size: int) -> int:
        """Return how many bytes of a file are left; never a number that makes it whole again."""
        return max(8, int(share * size))

    def look_at_a_cut_file(self, path: Path) -> None:
        """From outside it is refused too, unless so little is left that nothing tells what it was."""
        try:
            assert formats.inspect(path).format == ""
        except BadFile as error:
            assert_one_line(error, path)

    def test_a_look_inside_says_what_the_reader_says(self, tmp_path: Path) -> None:
        path = self.example(tmp_path)
        found = formats.inspect(path)
        with self.make().open(path) as source:
            assert found.format == source.format == self.make().name
            assert found.technique == source.technique
            assert found.metadata == source.metadata
            assert {role: shape for role, (shape, _dtype) in found.arrays.items()} == {
                role: array.shape for role, array in source.arrays.items()
            }

    def test_its_metadata_is_json(self, tmp_path: Path) -> None:
        with self.make().open(self.example(tmp_path)) as source:
            found = source.metadata
        json.dumps([dict(found.texts), dict(found.rest)], allow_nan=False).encode()
        assert all(np.isfinite(quantity.value_si) for quantity in found.quantities.values())

    def test_arrays_slice_like_numpy(self, tmp_path: Path) -> None:
        with self.make().open(self.example(tmp_path)) as source:
            for array in source.arrays.values():
                assert isinstance(array, Array)
                whole = np.asarray(array[...])
                assert whole.shape == array.shape
                assert whole.dtype == array.dtype
                for key in keys_of(array.shape):
                    np.testing.assert_array_equal(np.asarray(array[key]), whole[key])

    def test_closing_frees_the_file(self, tmp_path: Path) -> None:
        path = self.example(tmp_path)
        source = self.make().open(path)
        assert is_open_here(path)
        source.close()
        assert not is_open_here(path)

    def test_a_refused_file_is_not_left_open(self, tmp_path: Path) -> None:
        path = self.example(tmp_path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(BadFile):
            self.make().open(path)
        assert not is_open_here(path)


def keys_of(shape: tuple[int, ...]) -> list[Any]:
    """Selections that every array must answer as numpy does."""
    last = shape[0] - 1
    keys: list[Any] = [0, last, slice(1, None), slice(None, None, 2), slice(0, 0), [0, last]]
    if len(shape) > 1:
        keys += [(slice(None), 0), (slice(1, last), ..., slice(0, 1)), (Ellipsis, 0)]
    return keys


def is_open_here(path: Path) -> bool:
    """True when this process has the file open."""
    real = os.path.realpath(path)
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return any(os.path.exists(link) and os.readlink(link) == real for link in links)


def assert_one_line(error: LightkeepError, path: Path) -> None:
    """The message is one line that names the file, and there is a remedy."""
    assert str(path) in error.message
    assert "\n" not in error.message
    assert error.message.isprintable()
    assert error.remedy


# ---- attacks: each changes a correct file into one that must be refused


def external_storage(file: h5py.File, folder: Path) -> None:
    """Values that lie in another file."""
    secret = folder / "secret.txt"
    secret.write_bytes(SECRET)
    file.create_dataset("stolen", (len(SECRET),), "u1", external=[(str(secret), 0, len(SECRET))])


def external_link(file: h5py.File, folder: Path) -> None:
    """A name that leads into another file."""
    _outsider(folder)
    file["stolen"] = h5py.ExternalLink(str(folder.parent / "other.h5"), "/secret")


def external_link_midway(file: h5py.File, folder: Path) -> None:
    """A soft link through a name that leads into another file."""
    _outsider(folder)
    file["deep/below/door"] = h5py.ExternalLink(str(folder.parent / "other.h5"), "/")
    file["innocent"] = h5py.SoftLink("/deep/below/door/secret")


def external_link_through_a_symlink(file: h5py.File, folder: Path) -> None:
    """A name beside the file that is a symlink to the outside."""
    _outsider(folder)
    (folder / "beside.h5").symlink_to(folder.parent / "other.h5")
    file["stolen"] = h5py.ExternalLink("beside.h5", "/secret")


def virtual_outside(file: h5py.File, folder: Path) -> None:
    """A virtual dataset over another file."""
    _outsider(folder)
    layout = h5py.VirtualLayout((len(SECRET),), "u1")
    layout[:] = h5py.VirtualSource(folder.parent / "other.h5", "secret", (len(SECRET),))
    file.create_virtual_dataset("stolen", layout)


def virtual_unresolved(file: h5py.File, folder: Path) -> None:  # noqa: ARG001 -- one signature for all attacks
    """A virtual dataset over something that is not there: HDF5 answers zeros."""
    layout = h5py.VirtualLayout((8,), "u1")
    layout[:] = h5py.VirtualSource(".", "nothing/here", (8,))
    file.create_virtual_dataset("zeros", layout)


def virtual_pattern(file: h5py.File, folder: Path) -> None:  # noqa: ARG001 -- one signature for all attacks
    """A virtual dataset whose sources are found by counting."""
    endless = h5py.h5s.create_simple((8,), (h5py.h5s.UNLIMITED,))
    endless.select_hyperslab((0,), (h5py.h5s.UNLIMITED,), (8,), (8,))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(endless, b"part-%b.h5", b"data", h5py.h5s.create_simple((8,)))
    h5py.h5d.create(
        file.id, b"counted", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((8,), (h5py.h5s.UNLIMITED,)), plist
    )


def shape_bomb(file: h5py.File, folder: Path) -> None:  # noqa: ARG001 -- one signature for all attacks
    """A few bytes that declare terabytes."""
    file.create_dataset("bomb", (1_000_000, 1_000_000), "f8", chunks=(1, 1000))


def hard_link_loop(file: h5py.File, folder: Path) -> None:  # noqa: ARG001 -- one signature for all attacks
    """A group that contains itself."""
    file["loop/inside/again"] = file.require_group("loop")


def too_deep(file: h5py.File, folder: Path) -> None:  # noqa: ARG001 -- one signature for all attacks
    """Groups nested deeper than any measurement."""
    file.create_group("/".join(["d"] * 400))


ATTACKS = (
    external_storage,
    external_link,
    external_link_midway,
    external_link_through_a_symlink,
    virtual_outside,
    virtual_unresolved,
    virtual_pattern,
    shape_bomb,
    hard_link_loop,
    too_deep,
)


def _outsider(folder: Path) -> None:
    """A file of somebody else, beside the dataset's folder."""
    with h5py.File(folder.parent / "other.h5", "w") as other:
        other["secret"] = np.frombuffer(SECRET, "u1")


class Hdf5Suite(FormatSuite):
    """For a format that is HDF5 inside."""

    def look_at_a_cut_file(self, path: Path) -> None:
        """HDF5 is told by its first bytes."""
        with pytest.raises(BadFile) as caught:
            formats.inspect(path)
        assert_one_line(caught.value, path)

    @pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
    def test_a_file_that_reaches_outside_or_is_a_bomb_is_refused(
        self, tmp_path: Path, attack: Callable[[h5py.File, Path], None]
    ) -> None:
        dataset = tmp_path / "dataset"
        dataset.mkdir()
        path = self.example(dataset)
        with h5py.File(path, "r+") as file:
            attack(file, dataset)
        for look in (lambda: formats.inspect(path), lambda: self.make().open(path)):
            with pytest.raises(BadFile) as caught:
                look()
            assert_one_line(caught.value, path)

    def test_links_inside_the_dataset_are_followed(self, tmp_path: Path) -> None:
        path = self.example(tmp_path)
        with h5py.File(tmp_path / "part.h5", "w") as part:
            part["frames"] = np.arange(6.0)
        with h5py.File(path, "r+") as file:
            file["linked"] = h5py.ExternalLink("part.h5", "/frames")
            layout = h5py.VirtualLayout((6,), "f8")
            layout[:] = h5py.VirtualSource("part.h5", "frames", (6,))
            file.create_virtual_dataset("virtual", layout)
        assert formats.inspect(path, within=tmp_path).format == self.make().name
        self.make().open(path).close()
        with h5py.File(path) as file:
            assert file["linked"][5] == file["virtual"][5] == 5.0
        with pytest.raises(UnsafeFile, match="outside its dataset"):
            formats.inspect(path)

    def test_hostile_text_is_made_safe(self, tmp_path: Path) -> None:
        path = self.example(tmp_path)
        with h5py.File(path, "r+") as file:
            group = next(iter(file.values()))
            group = group if isinstance(group, h5py.Group) else file
            for number, hostile in enumerate(
                [b"<script>\x1b[2J", b"\xff\xfe\x00x", b"\xed\xb3\xbf", b"a\x00b\r\n"]
            ):
                group.attrs[f"hostile{number}"] = np.bytes_(hostile)
            group.attrs["wide"] = np.zeros(7000)
        found = formats.inspect(path)
        text = json.dumps([dict(found.metadata.texts), dict(found.metadata.rest)], ensure_ascii=False)
        text.encode("utf-8")
        assert text.isprintable()
        assert len(text) < 20_000

    def test_mutants_of_a_file_are_read_or_refused_and_the_reader_lives_on(self, tmp_path: Path) -> None:
        whole = self.example(tmp_path).read_bytes()
        rng = np.random.default_rng(2309)
        path = tmp_path / "mutant.h5"
        for _ in range(MUTANTS):
            path.write_bytes(mutant(whole, rng))
            started = time.monotonic()
            try:
                assert formats.inspect(path, timeout_s=SLOWEST_S).format in {*formats.names(), ""}
            except LightkeepError as error:
                assert_one_line(error, path)
            assert time.monotonic() - started < SLOWEST_S + 5
        assert sandbox.call("os:getpid") != os.getpid()


def mutant(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the content with a few bytes changed, a run overwritten, or a piece moved."""
    data = np.frombuffer(content, "u1").copy()
    head = min(data.size, 4096)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(head if rng.random() < 0.7 else data.size))
        length = int(rng.integers(1, 9))
        match int(rng.integers(4)):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at : at + length] = rng.choice([0, 0xFF, 0x7F, 0x80])
            case 2:
                data[at : at + length] = rng.integers(0, 256, data[at : at + length].size)
            case _:
                source = int(rng.integers(data.size - length))
                data[at : at + length] = data[source : source + data[at : at + length].size]
    return data.tobytes()
