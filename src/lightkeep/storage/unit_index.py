"""What is in an archive unit: member by member, as the sidecar beside it and the tar itself say it."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, BinaryIO, Final, cast

from lightkeep.model.errors import Corrupt, InvalidInput
from lightkeep.model.stores import UNITS, member_key
from lightkeep.storage.seekable_zstd import COMPRESSED

INDEX_NAME: Final = "lightkeep-index.json"
PATH_MARK: Final = "lightkeep-path="
"""What begins the pax comment that has a member's own path, in hexadecimal, where the tar's name is a safe one."""
_VERSION: Final = 1
_quoted: Final = json.JSONEncoder().encode


@dataclass(frozen=True, slots=True)
class UnitMember:
    """One file in a unit."""

    dataset_id: str
    path: str
    """Its path in the dataset, as `os.fsdecode` gives it."""
    version: int
    """Which content of that path."""
    file_id: str
    """Empty where only the tar was left to ask and it is cut short."""
    name: str
    """Its name in the tar, below the bag's folder."""
    offset: int
    """Where its bytes begin in the tar, uncompressed."""
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class UnitIndex:
    """A unit and its members in the order of the tar."""

    id: str
    key: str
    """Name of the tar on a store."""
    experiment_id: str
    created_at: str
    """ISO 8601, UTC."""
    members: tuple[UnitMember, ...]
    plain_size: int
    """Bytes of the tar, uncompressed."""
    size: int = 0
    """Bytes on the store: less than `plain_size` in a compressed unit."""
    sha256: str = ""
    """Of the bytes on the store; empty in the copy of the index that the tar itself holds."""

    @property
    def content_size(self) -> int:
        """Bytes of the members."""
        return sum(member.size for member in self.members)

    def key_of(self, member: UnitMember) -> str:
        """Return the key under which a store gives this member."""
        return member_key(self.key, member.offset, member.size)

    def to_json(self) -> bytes:
        """Return the document, one member on each line."""
        head = {
            "lightkeep_unit": _VERSION,
            "id": self.id,
            "key": self.key,
            "experiment": self.experiment_id,
            "created_at": self.created_at,
            "size": self.size,
            "sha256": self.sha256,
            "plain_size": self.plain_size,
            "content_size": self.content_size,
        }
        lines = [_member_to_json(member) for member in self.members]
        return (json.dumps(head)[:-1] + ', "members": [\n' + ",\n".join(lines) + "\n]}\n").encode()

    @classmethod
    def from_json(cls, document: bytes) -> UnitIndex:
        """Read a document. Raises Corrupt when it is none."""
        try:
            found = json.loads(document)
            if found["lightkeep_unit"] != _VERSION:
                raise ValueError("another version")
            return cls(
                id=str(found["id"]),
                key=str(found["key"]),
                experiment_id=str(found["experiment"]),
                created_at=str(found["created_at"]),
                members=tuple(_member_from_json(each) for each in found["members"]),
                plain_size=int(found["plain_size"]),
                size=int(found["size"]),
                sha256=str(found["sha256"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(
                f"this is not the index of an archive unit: {error!r}", remedy="rebuild it from the tar"
            ) from error


def unit_key(unit_id: str, *, is_compressed: bool = False) -> str:
    """Return the key of a unit's tar.

    >>> unit_key("u_1"), unit_key("u_1", is_compressed=True)
    ('units/u_1.tar', 'units/u_1.tar.zst')
    """
    return f"{UNITS}{unit_id}.tar{COMPRESSED if is_compressed else ''}"


def index_key(key: str) -> str:
    """Return the key of the sidecar of a unit.

    >>> index_key("units/u_1.tar.zst")
    'units/u_1.tar.zst.json'
    """
    return f"{key}.json"


def index_of(tar: BinaryIO, key: str) -> UnitIndex:
    """Return the index of a unit whose sidecar is lost, from its tar alone.

    A tar that is cut short gives the members that it still has; those without a known hash are read and hashed.

    Parameters
    ----------
    tar: the uncompressed tar, seekable.
    key: name of the unit on its store.

    Raises
    ------
    Corrupt: it is no unit of ours.
    """
    unit_id = key.removeprefix(UNITS).split(".")[0]
    found: list[UnitMember] = []
    try:
        with tarfile.open(fileobj=cast(IO[bytes], tar), mode="r:", errors="surrogateescape") as archive:
            for each in archive:
                name = each.name.partition("/")[2]
                if name == INDEX_NAME:
                    index = UnitIndex.from_json(_content(tar, each.offset_data, each.size))
                    end = tar.seek(0, os.SEEK_END)
                    return replace(index, key=key, plain_size=end, size=end)
                if name.startswith("data/"):
                    found.append(_member_of_header(each, name))
    except (tarfile.TarError, ValueError) as error:
        if not found:
            raise Corrupt(
                f"unit {key!r} is not a tar: {error}", remedy="restore its members from copies"
            ) from error
    end = tar.seek(0, os.SEEK_END)
    whole = tuple(member for member in found if member.offset + member.size <= end)
    if not whole:
        raise Corrupt(f"unit {key!r} has no member", remedy="restore its members from copies")
    return UnitIndex(unit_id, key, "", "", _hashed(tar, whole), plain_size=end, size=end)


def _member_of_header(each: tarfile.TarInfo, name: str) -> UnitMember:
    folder, _, path = name.removeprefix("data/").partition("/")
    dataset_id, _, suffix = folder.partition("+")
    comment = each.pax_headers.get("comment", "")
    if comment.startswith(PATH_MARK):
        path = os.fsdecode(bytes.fromhex(comment.removeprefix(PATH_MARK)))
    version = int(suffix.removeprefix("odd").removeprefix("v") or 1)
    return UnitMember(dataset_id, path, version, "", name, each.offset_data, each.size, "")


def _hashed(tar: BinaryIO, members: Sequence[UnitMember]) -> tuple[UnitMember, ...]:
    hashes = []
    for member in members:
        digest = hashlib.sha256()
        tar.seek(member.offset)
        left = member.size
        while left and (block := tar.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        hashes.append(digest.hexdigest())
    return tuple(replace(member, sha256=sha256) for member, sha256 in zip(members, hashes, strict=True))


def _content(tar: BinaryIO, offset: int, size: int) -> bytes:
    tar.seek(offset)
    return tar.read(size)


def _member_to_json(member: UnitMember) -> str:
    """Return what `json.dumps` makes of a member, in a tenth of its time: a unit has up to 100 000 of them."""
    return (
        f'{{"dataset": {_quoted(member.dataset_id)}, "path": {_quoted(member.path)}, "version": {member.version}, '
        f'"file": {_quoted(member.file_id)}, "name": {_quoted(member.name)}, "offset": {member.offset}, '
        f'"size": {member.size}, "sha256": {_quoted(member.sha256)}}}'
    )


def _member_from_json(found: dict[str, Any]) -> UnitMember:
    return UnitMember(
        dataset_id=str(found["dataset"]),
        path=str(found["path"]),
        version=int(found["version"]),
        file_id=str(found["file"]),
        name=str(found["name"]),
        offset=int(found["offset"]),
        size=int(found["size"]),
        sha256=str(found["sha256"]),
    )


def check_unit_id(unit_id: str) -> None:
    """Raise InvalidInput unless an id can be a folder in the tar and a name on every store."""
    if not unit_id or not all(each.isalnum() or each in "_-" for each in unit_id) or not unit_id.isascii():
        raise InvalidInput(f"`{unit_id}` cannot name an archive unit", remedy="use letters, digits, `_` and `-`")
