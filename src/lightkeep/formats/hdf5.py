"""HDF5 files from strangers: opened only when they stay inside their dataset and fit what they claim.

A file can name other files in three ways (external links, external storage, virtual datasets), and HDF5 follows
all of them by itself on any read. So the whole file is walked first, one path component at a time and by the
address of each object, and every name is judged before anything is read through it.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- registers bitshuffle, blosc, lz4, zstd and the like
from h5py._objects import phil  # documented: docs.h5py.org, "Multi-threading"

from lightkeep.formats.text import one_line
from lightkeep.model.errors import BadFile, SourceError, StorageError, StoreFull, UnsafeFile

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FIRST_USER_LINK = 65
FOREIGN = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError, AttributeError)
"""What h5py raises on damaged content (UnicodeDecodeError is a ValueError)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may ask for."""

    nodes: int = 100_000
    """Links in all groups together."""
    depth: int = 64
    """Groups inside groups."""
    declared_bytes: int = 4 << 30
    """A dataset may declare this much whatever it stores ..."""
    ratio: int = 1000
    """... and above that, this many times what it stores (gzip of zeros reaches 1009)."""


def open_safe(path: Path, allowed: Collection[Path] = (), *, limits: Limits | None = None) -> h5py.File:
    """Open for reading, after `check_safe`.

    Parameters
    ----------
    path: the file.
    allowed: other files, or folders with everything below them, that it may lead to.

    Raises
    ------
    SourceError: missing or unreadable. BadFile: not HDF5, cut short or damaged. UnsafeFile: see `check_safe`.
    """
    file = open_plain(path)
    try:
        check_safe(file, allowed, limits=limits)
    except BaseException:
        file.close()
        raise
    return file


def open_plain(path: Path) -> h5py.File:
    """Open for reading without the walk: only for files that were checked or that we wrote."""
    _forget_plugin_folders()
    _check_signature(path)
    try:
        return h5py.File(os.path.realpath(path), "r", locking=False)  # a lock could stop the detector's writer
    except FOREIGN as error:
        if "locking flag" not in str(error):
            raise _unreadable(path, error) from error
    with reading(path):  # this process has it open already, with locks: HDF5 wants the same again
        return h5py.File(os.path.realpath(path), "r")


def open_growing(path: Path) -> h5py.File:
    """Open for reading a file that is being written with SWMR, or was; without the walk, as `open_plain`.

    Only for runs that the instrument writes into a folder of its own.
    """
    _forget_plugin_folders()
    _check_signature(path)
    try:
        return h5py.File(os.path.realpath(path), "r", swmr=True, libver="latest", locking=False)
    except FOREIGN:
        return open_plain(path)  # no writer ever held it for SWMR


def check_safe(
    file: h5py.File, allowed: Collection[Path] = (), *, limits: Limits | None = None
) -> frozenset[Path]:
    """Walk everything that can be reached from the file; return the real paths of all files reached.

    Raises
    ------
    UnsafeFile: an external storage, link or virtual dataset leads outside `allowed`; a dataset declares far more
        than it stores; groups contain themselves; too many or too deep.
    BadFile: a virtual dataset or external link leads to nothing (HDF5 would answer zeros); damaged.
    """
    walk = _Walk([Path(os.path.realpath(path)) for path in allowed], limits or Limits())
    walk.file(file, Path(os.path.realpath(file.filename)))
    return frozenset(walk.files)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what h5py raises inside the block into BadFile."""
    try:
        yield
    except FOREIGN as error:
        raise _unreadable(path, error) from error


def is_hdf5(path: Path) -> bool:
    """True when the file carries the HDF5 signature, at 0 or after a user block."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            offset = 0
            while offset + len(_SIGNATURE) <= size:
                file.seek(offset)
                if file.read(len(_SIGNATURE)) == _SIGNATURE:
                    return True
                offset = max(512, 2 * offset)
    except OSError:
        return False
    return False


def has(file: h5py.File | h5py.Group, path: str) -> bool:
    """True when every component of the path is there, without following a link out of the file."""
    node: Any = file
    parts = path.strip("/").split("/")
    for number, part in enumerate(parts):
        if not isinstance(node, h5py.Group):
            return False
        link = node.get(part, getlink=True)
        if link is None or isinstance(link, h5py.ExternalLink):
            return link is not None and number == len(parts) - 1
        if number < len(parts) - 1:
            node = node.get(part)
    return True


def has_chunk(data: h5py.Dataset, frame: int) -> bool:
    """True when the chunk that holds the first value of a frame was written."""
    depth = data.chunks[0]
    try:
        data.id.read_direct_chunk((frame - frame % depth, *[0] * (data.ndim - 1)))
    except FOREIGN:
        return False
    return True


def own(group: h5py.Group, name: str) -> Any:
    """Return a member of the group, or None where there is none or only a link to elsewhere."""
    is_hard = isinstance(group.get(name, getlink=True), h5py.HardLink)
    return group.get(name) if is_hard else None


def groups_in(group: h5py.Group) -> list[h5py.Group]:
    """Return the groups inside a group, without following links."""
    return [node for node in (own(group, name) for name in group) if isinstance(node, h5py.Group)]


class _Walk:
    """What was seen so far of a file and of those that it leads to."""

    def __init__(self, allowed: list[Path], limits: Limits) -> None:
        self.files: set[Path] = set()
        self._allowed = allowed
        self._limits = limits
        self._nodes = 0

    def file(self, file: h5py.File, path: Path) -> None:
        """Walk one file; files that it leads to are walked when they are met."""
        self.files.add(path)
        visit = _Visit(self, file, path)
        with reading(path):
            visit.object(file["/"].id, b"", ())

    def count(self, path: Path, links: int) -> None:
        self._nodes += links
        if self._nodes > self._limits.nodes:
            raise UnsafeFile(
                f"{path}: holds more than {self._limits.nodes} names",
                remedy="keep it as a plain file, or split it",
            )

    def reach(self, origin: Path, what: str, name: bytes) -> Path:
        """Judge a file name found inside `origin`; return its real path, walked."""
        given = os.fsdecode(name)
        target = Path(os.path.realpath(origin.parent / given))
        if target in self.files:
            return target
        if not any(target == path or path in target.parents for path in self._allowed):
            raise UnsafeFile(
                f"{origin}: {what} leads to {one_line(given)}, outside its dataset",
                remedy="ingest the folder that holds both files, or copy the data into this file",
                target=one_line(given),
            )
        if not target.is_file():
            raise BadFile(
                f"{origin}: {what} leads to {one_line(given)}, which is not there",
                remedy="put that file beside it, or copy the data into this file",
            )
        with open_plain(target) as file:
            self.file(file, target)
        return target

    @property
    def limits(self) -> Limits:
        """What a file may ask for."""
        return self._limits


class _Visit:
    """The walk through one file."""

    def __init__(self, walk: _Walk, file: h5py.File, path: Path) -> None:
        self._walk = walk
        self._file = file
        self._path = path
        self._seen: set[int] = set()

    def object(self, node: Any, name: bytes, above: tuple[int, ...]) -> None:
        """Judge a group and all below it, or a dataset, once."""
        address = h5py.h5o.get_info(node).addr
        if address in above:
            raise UnsafeFile(
                f"{self._path}: group {one_line(name)} contains itself", remedy="remove the hard link that loops"
            )
        if address in self._seen:
            return
        self._seen.add(address)
        if isinstance(node, h5py.h5d.DatasetID):
            self._dataset(node, name)
        elif isinstance(node, h5py.h5g.GroupID):
            self._group(node, name, (*above, address))

    def _group(self, group: h5py.h5g.GroupID, name: bytes, above: tuple[int, ...]) -> None:
        if len(above) > self._walk.limits.depth:
            raise UnsafeFile(
                f"{self._path}: groups are nested deeper than {self._walk.limits.depth}",
                remedy="keep it as a plain file",
            )
        self._walk.count(self._path, group.get_num_objs())
        for part in list(group):
            child = name + b"/" + part
            kind = group.links.get_info(part).type
            if kind == h5py.h5l.TYPE_HARD:
                self.object(h5py.h5o.open(group, part), child, above)
            elif kind == h5py.h5l.TYPE_EXTERNAL:
                target, _inside = group.links.get_val(part)
                self._walk.reach(self._path, f"external link {one_line(child)}", target)
            elif kind >= _FIRST_USER_LINK:
                raise UnsafeFile(
                    f"{self._path}: {one_line(child)} is a link of an unknown kind", remedy="copy the data in"
                )

    def _dataset(self, dataset: h5py.h5d.DatasetID, path: bytes) -> None:
        plist, stored = dataset.get_create_plist(), -1
        if plist.get_layout() == h5py.h5d.VIRTUAL:
            stored = sum(self._virtual(plist, index, path) for index in range(plist.get_virtual_count()))
        elif plist.get_external_count():
            target = one_line(plist.get_external(0)[0])
            raise UnsafeFile(
                f"{self._path}: dataset {one_line(path)} keeps its values in another file, {target}",
                remedy="copy the data into this file (h5repack)",
                target=target,
            )
        shape = dataset.shape or ()
        declared = math.prod(shape) * dataset.get_type().get_size()
        if declared <= self._walk.limits.declared_bytes:
            return
        stored = dataset.get_storage_size() if stored < 0 else stored
        if declared > self._walk.limits.ratio * stored:
            raise UnsafeFile(
                f"{self._path}: dataset {one_line(path)} declares {declared:.3g} bytes and stores {stored}",
                remedy="write it again with the size that was measured",
            )

    def _virtual(self, plist: Any, index: int, name: bytes) -> int:
        """Judge one source of a virtual dataset; return how many bytes its file has."""
        what = f"virtual dataset {one_line(name)}"
        file_name, inside = plist.get_virtual_filename(index), plist.get_virtual_dsetname(index)
        given = os.fsencode(file_name)
        if re.search(r"%\d*b", f"{file_name}{inside}"):
            raise UnsafeFile(
                f"{self._path}: {what} names its sources by a pattern, {one_line(file_name)}",
                remedy="name each source file",
            )
        path = self._path if given == b"." else self._walk.reach(self._path, what, given)
        with contextlib.ExitStack() as stack:
            file = self._file if path == self._path else stack.enter_context(open_plain(path))
            source = file.get(inside)
            if not isinstance(source, h5py.Dataset):
                raise BadFile(
                    f"{self._path}: {what} takes values from {one_line(file_name)}:"
                    f"{one_line(inside)}, which is not there (HDF5 would show zeros)",
                    remedy="put the source file beside it, or write the values into this file",
                )
        return path.stat().st_size


def _forget_plugin_folders() -> None:
    """Filters come from hdf5plugin only, never from a folder that somebody may write to.

    h5py takes its lock around all calls of HDF5 but these. Without it, one of them beside a read in another thread
    ended the process.
    """
    with phil:
        while h5py.h5pl.size():
            h5py.h5pl.remove(0)


def _check_signature(path: Path) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file", remedy="check the path") from error
    except IsADirectoryError as error:
        raise BadFile(f"{path}: is a folder, not a file", remedy="name the HDF5 file inside it") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}", remedy="check its permissions") from error
    if not size:
        raise BadFile(f"{path}: is empty (0 bytes)", remedy="copy it again from where it was measured")
    if not is_hdf5(path):
        raise BadFile(
            f"{path}: is not an HDF5 file (it starts with {start!r})",
            remedy="check that it is the file you meant",
        )


def _unreadable(path: Path, error: Exception) -> BadFile:
    """The one line that says what HDF5's stack of errors means."""
    text = one_line(str(error))
    cut = re.search(r"truncated file: eof = (\d+),.*stored_eof = (\d+)", text)
    if cut:
        return BadFile(
            f"{path}: is cut short: {cut[1]} of {cut[2]} bytes are there",
            remedy="copy it again from where it was measured",
        )
    if "already open for write" in text:
        return BadFile(
            f"{path}: is still being written",
            remedy="wait for its writer; after a crash of the writer, `h5clear -s` makes it readable",
        )
    if ("filter" in text and "not registered" in text) or "filter plugin" in text:
        return BadFile(
            f"{path}: is compressed in a way that is not known here: {text[:120]}",
            remedy="write it with gzip, lz4, zstd, blosc or bitshuffle",
        )
    if isinstance(error, MemoryError):
        return BadFile(f"{path}: asks for more memory than a reader may use", remedy="keep it as a plain file")
    return BadFile(f"{path}: is damaged: {text[:200]}", remedy="copy it again from where it was measured")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[h5py.File]:
    """Create a file to write; turn what goes wrong into StoreFull or StorageError."""
    try:
        with h5py.File(path, "w") as file:
            yield file
    except (OSError, RuntimeError) as error:
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise StoreFull(f"{path}: no room to write it", remedy="free space, or use another store") from error
        raise StorageError(
            f"{path}: cannot be written: {one_line(error)[:200]}", remedy="check the folder"
        ) from error
