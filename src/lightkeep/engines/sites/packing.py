"""What travels to a site and back: files as chunks that are named by their content.

    a file = the chunks of it in order; a chunk = `objects/<sha256>` in the staging area, at most `chunk` bytes

A chunk that is there is never sent again: an interrupted transfer goes on where it was, a second run on the same
data sends nothing, and the empty places of an array cost one chunk. Both ends read and hash every byte they use.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightkeep.model.errors import Corrupt, SourceError

OBJECTS = "objects"


@dataclass(frozen=True, slots=True)
class Packed:
    """One file as it travels."""

    path: str
    """Where it goes: relative to the folder that it is unpacked in."""
    size: int
    """Bytes."""
    chunks: tuple[str, ...]
    """sha256 of each, in order."""

    def to_json(self) -> dict[str, Any]:
        """Return what JSON takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Packed:
        """Return the inverse of `to_json`; a path that leaves its folder raises Corrupt."""
        path = Path(value["path"])
        if path.is_absolute() or ".." in path.parts:
            raise Corrupt(f"a packed file asks for the path {path}", remedy="look who writes to the staging area")
        return cls(str(path), int(value["size"]), tuple(value["chunks"]))


def pack(file: Path, path: str, *, chunk: int) -> Packed:
    """Return how a file travels; all of it is read.

    Raises
    ------
    SourceError: it cannot be read.
    """
    names, size = [], 0
    try:
        with file.open("rb") as opened:
            while content := opened.read(chunk):
                names.append(sha256(content))
                size += len(content)
    except OSError as error:
        raise SourceError(f"{file}: {error.strerror}") from error
    return Packed(path, size, tuple(names))


def chunks_of(file: Path, packed: Packed, *, chunk: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield (sha256, a function that reads and checks it) for each chunk of a file that was packed."""
    for index, name in enumerate(packed.chunks):
        yield name, lambda index=index, name=name: _read(file, index * chunk, chunk, name)  # type: ignore[misc]


def _read(file: Path, offset: int, length: int, name: str) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        content = opened.read(length)
    if sha256(content) != name:
        raise SourceError(f"{file} changed while it was sent", remedy="start the run again")
    return content


def unpack(packed: Packed, target: Path, fetch: Callable[[str], bytes], *, chunk: int, old: Path | None) -> int:
    """Write a file whole and durable under its name; return how many bytes had to be fetched.

    Parameters
    ----------
    fetch: returns a chunk by its sha256; what it returns is checked here.
    old: a file whose chunks at the same places are taken instead where they are equal, e.g. an earlier version.

    Raises
    ------
    Corrupt: a chunk is not what its name says.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    fetched = 0
    with part.open("r+b" if part.exists() else "w+b") as file:
        for index, name in enumerate(packed.chunks):
            length = min(chunk, packed.size - index * chunk)
            if _holds(file, index * chunk, length, name):
                continue
            content = _old_chunk(old, index * chunk, length, name)
            if content is None:
                content = checked(fetch(name), name)
                fetched += len(content)
            file.seek(index * chunk)
            file.write(content)
        file.truncate(packed.size)
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)
    return fetched


def _holds(file: io.BufferedRandom, offset: int, length: int, name: str) -> bool:
    """True when an interrupted transfer wrote this chunk already."""
    file.seek(offset)
    return sha256(file.read(length)) == name


def _old_chunk(old: Path | None, offset: int, length: int, name: str) -> bytes | None:
    if old is None or not old.exists():
        return None
    with old.open("rb") as file:
        file.seek(offset)
        content = file.read(length)
    return content if sha256(content) == name else None


def checked(content: bytes, name: str) -> bytes:
    """Return a chunk, or raise Corrupt when it is not what its name says."""
    if sha256(content) != name:
        raise Corrupt(
            f"the staging area gave other bytes than {name[:16]}", remedy="it is sent again with the next try"
        )
    return content


def sha256(content: bytes) -> str:
    """Return the hash that names a chunk."""
    return hashlib.sha256(content).hexdigest()


def sealed(value: Mapping[str, Any], key: str) -> bytes:
    """Return a value as JSON that only who has the key can have written."""
    content = json.dumps(value).encode()
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest().encode() + b"\n" + content


def unsealed(content: bytes, key: str) -> dict[str, Any]:
    """Return what `sealed` wrote.

    Raises
    ------
    Corrupt: somebody without the key wrote it.
    """
    seal, _, inner = content.partition(b"\n")
    right = hmac.new(key.encode(), inner, hashlib.sha256).hexdigest().encode()
    if not key or not hmac.compare_digest(seal, right):
        raise Corrupt(
            "the staging area holds a result that our job did not write",
            remedy="look who can write to the staging area, and whether the site has this version of Lightkeep",
        )
    return dict(json.loads(inner))


def dump(value: Any, places: Mapping[str, str]) -> bytes:
    """Pickle a value with every path at or below one of the places written as a token.

    Parameters
    ----------
    places: path on this machine -> token.
    """
    stream = io.BytesIO()
    _Pickler(stream, places).dump(value)
    return stream.getvalue()


def load(content: bytes, resolve: Callable[[str], str]) -> Any:
    """Unpickle what `dump` made; `resolve` returns this machine's path for a token and what followed it."""
    return _Unpickler(io.BytesIO(content), resolve).load()


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, places: Mapping[str, str]) -> None:
        super().__init__(stream, protocol=5)
        self._places = sorted(places.items(), key=lambda item: -len(item[0]))

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, str | Path):
            return None
        text = str(obj)
        for path, token in self._places:
            if text == path or text.startswith(f"{path}/"):
                return isinstance(obj, Path), token + text[len(path) :]
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, resolve: Callable[[str], str]) -> None:
        super().__init__(stream)
        self._resolve = resolve

    def persistent_load(self, pid: Any) -> Any:
        is_path, token = pid
        text = self._resolve(token)
        return Path(text) if is_path else text


def regular_files(folder: Path) -> Sequence[Path]:
    """Return the files directly in a working folder that belong to the work: no lock, no unfinished part."""
    return sorted(
        each
        for each in folder.iterdir()
        if each.is_file() and not each.is_symlink() and each.name != "lock" and each.suffix != ".part"
    )
