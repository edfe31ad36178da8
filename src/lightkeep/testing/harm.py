"""What disks, filesystems and people do to files on a store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lightkeep.facility import Facility
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import split_member

FLIPS: Final = ("first bit", "middle bit", "last bit")
HARMS: Final = (
    *FLIPS,
    "truncated",
    "emptied",
    "extended",
    "zeros",
    "swapped",
    "gone",
)


def newest_place(facility: Facility, dataset_id: str, path: str, store_id: str) -> tuple[Path, int, int]:
    """Return where a file's newest replica on a POSIX store lies: the object, the offset in it, and the size."""
    view = facility.catalog.view(SERVICE)
    file = view.file(dataset_id, path)
    key = [each for each in view.replicas([file.id]) if each.store_id == store_id][-1].key
    root = Path(facility.stores[store_id].record.location)
    member = split_member(key)
    return (root / member[0], member[1], member[2]) if member else (root / key, 0, file.size)


def harm(place: tuple[Path, int, int], how: str, *, other: tuple[Path, int, int] | None = None) -> None:
    """Do one of HARMS to a file of at least one byte.

    Parameters
    ----------
    other: of the same size: the one that it changes places with.
    """
    path, begin, size = place
    content = bytearray(path.read_bytes())
    own = content[begin : begin + size]
    bits = {"first bit": 0, "middle bit": size // 2, "last bit": size - 1}
    if how == "gone":
        path.unlink()
        return
    if how in bits:
        content[begin + bits[how]] ^= 1
    elif how == "truncated":
        del content[begin + size - 1 :]
    elif how == "emptied":
        content.clear()
    elif how == "extended":
        content.append(0)
    elif how == "zeros":
        content[begin : begin + size] = bytes(size)
    elif how == "swapped" and other is not None:
        content[begin : begin + size] = other[0].read_bytes()[other[1] : other[1] + other[2]]
        others = bytearray(content if other[0] == path else other[0].read_bytes())
        others[other[1] : other[1] + other[2]] = own
        if other[0] == path:
            content = others
        else:
            other[0].write_bytes(others)
    else:
        raise ValueError(f"no such harm: {how}")
    path.write_bytes(content)
