"""Compressed units: any zstd reads them, members are read without the rest, damage is found."""

from __future__ import annotations

import io
import os
import random
import subprocess
from pathlib import Path

import pytest

from lightkeep.model.clock import SystemIds
from lightkeep.model.errors import Corrupt, NotFound
from lightkeep.model.stores import Proof, member_key
from lightkeep.storage.posix import PosixStore
from lightkeep.storage.seekable_zstd import CompressedStream, SeekableReader, ratio
from lightkeep.storage.units import index_key, open_tar, read_index, saving
from lightkeep.testing.suites.objects import content_of, keep_all
from lightkeep.testing.units import archive, source_of


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    return PosixStore(PosixStore.initialise(tmp_path / "store", "tape", ids=SystemIds()))


def text(size: int, seed: int = 1) -> bytes:
    """Bytes that compress to about a quarter."""
    return bytes(random.Random(seed).choices(b"0123", k=size))


def compressed(content: bytes, **options) -> bytes:
    stream = CompressedStream(io.BytesIO(content), **options)
    out = bytearray()
    buffer = memoryview(bytearray(10_007))
    while count := stream.readinto(buffer):
        out += buffer[:count]
    return bytes(out)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 50_000])
def test_any_zstd_reads_it_and_it_is_read_from_anywhere(size):
    content = text(size)
    packed = compressed(content, frame=4096)
    plain = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
    assert plain == content
    reader = io.BufferedReader(SeekableReader(io.BytesIO(packed)))
    assert reader.seek(0, os.SEEK_END) == size
    for begin, count in ((0, size), (size // 2, 10), (4090, 10_000), (size, 5), (size - 1, 5)):
        reader.seek(max(begin, 0))
        assert reader.read(count) == content[max(begin, 0) : max(begin, 0) + count]


def test_one_thread_and_several_write_the_same_bytes():
    content = text(100_000) + os.urandom(10_000)
    assert compressed(content, frame=8192, threads=1) == compressed(content, frame=8192, threads=3)


@pytest.mark.parametrize("where", [0, 1, 10, 2000, -1, -5, -9, -12, -20])
def test_a_flipped_byte_anywhere_is_found(where):
    content = text(20_000)
    packed = bytearray(compressed(content, frame=4096))
    packed[where] ^= 0xFF
    with pytest.raises(Corrupt):
        SeekableReader(io.BytesIO(bytes(packed))).readall()


def test_every_flipped_bit_is_found_or_harmless():
    content = text(3000)
    packed = compressed(content, frame=1024)
    rng = random.Random(2)
    for _ in range(300):
        damaged = bytearray(packed)
        damaged[rng.randrange(len(packed))] ^= 1 << rng.randrange(8)
        try:
            found = SeekableReader(io.BytesIO(bytes(damaged))).readall()
        except Corrupt:
            continue
        assert found == content


def test_what_is_cut_short_or_is_no_zstd_is_corrupt():
    packed = compressed(text(20_000), frame=4096)
    for damaged in (packed[:-1], packed[:100], b"", b"x" * 50, packed + b"\0"):
        with pytest.raises(Corrupt):
            SeekableReader(io.BytesIO(damaged))


def test_members_of_a_compressed_unit_come_back_and_the_saving_is_in_its_index(store):
    contents = {f"scan/{number}": text(50_000 * number, number) for number in range(12)}
    index = archive(store, [source_of(content, path) for path, content in contents.items()], compress=None)
    assert index.key == "units/u_1.tar.zst"
    assert index.size < 0.5 * index.plain_size
    assert store.stat(index.key).size == index.size
    for member in index.members:
        key = index.key_of(member)
        assert content_of(store, key) == contents[member.path]
        assert store.stat(key).size == member.size
        found = store.verify(key)
        assert (found.sha256, found.size, found.proof) == (member.sha256, member.size, Proof.DIRECT)
    with pytest.raises(NotFound):
        store.open(member_key(index.key, index.plain_size, 1))
    listed = subprocess.run(
        ["tar", "--zstd", "-tf", Path(store.record.location, index.key)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert listed.count("/data/") == 12


def test_a_compressed_unit_without_its_sidecar_is_rebuilt_too(store):
    index = archive(store, [source_of(text(9000, n), f"{n}") for n in range(5)], compress=True)
    Path(store.record.location, index_key(index.key)).unlink()
    found = read_index(store, index.key)
    assert found.members == index.members
    assert (found.size, found.plain_size) == (index.size, index.plain_size)
    with open_tar(store, index.key) as tar:
        assert len(tar.read()) == index.plain_size


def test_a_unit_is_compressed_only_where_that_pays(store, tmp_path):
    noise = [source_of(os.urandom(20_000), f"{n}") for n in range(40)]
    assert saving(noise) < 0.01
    assert archive(store, noise, compress=None).key == "units/u_1.tar"
    mixed = [source_of(text(20_000) if n % 5 == 0 else os.urandom(20_000), f"{n}") for n in range(40)]
    assert 0.1 < saving(mixed) < 0.25
    assert saving([]) == 0
    assert ratio(text(100_000)) < 0.4
    other = PosixStore(PosixStore.initialise(tmp_path / "other", "other", ids=SystemIds()))
    assert archive(other, mixed, compress=None).key == "units/u_1.tar.zst"


def test_a_damaged_member_of_a_compressed_unit_is_corrupt_and_its_neighbours_are_not(store):
    sources = [source_of(os.urandom(3 << 20), f"{n}") for n in range(3)]
    index = archive(store, sources, compress=True)
    with Path(store.record.location, index.key).open("r+b") as file:
        file.seek(index.size // 2)
        file.write(b"\0\0\0\0")
    assert store.verify(index.key).sha256 != index.sha256
    assert store.verify(index.key_of(index.members[0])).sha256 == index.members[0].sha256
    with pytest.raises(Corrupt):
        store.verify(index.key_of(index.members[1]))
    assert content_of(store, index.key_of(index.members[2])) == sources[2].open().read()


def test_an_object_that_only_looks_compressed_is_corrupt_when_a_member_is_read(store):
    keep_all(store, {"units/u_2.tar.zst": b"plain"})
    for ask in (store.open, store.stat, store.verify):
        with pytest.raises(Corrupt):
            ask("units/u_2.tar.zst!0+1")
