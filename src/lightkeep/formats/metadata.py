"""What an HDF5 file says about itself, as typed fields with units and a bounded rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lightkeep.formats.text import clean, one_line
from lightkeep.model.datasets import Metadata
from lightkeep.model.quantity import Quantity

MOST_ENTRIES = 2000
"""Entries kept in `rest`."""
MOST_CHARACTERS = 400_000
"""Characters of text kept in `rest`, all entries together."""
_SMALL_BYTES = 65_536
"""A dataset or attribute that declares more is described, not read."""
_SMALL_COUNT = 16
_FEW_ANGLES = 32
"""Arrays of at most so many values are kept, longer ones are described."""


@dataclass(frozen=True, slots=True)
class Field:
    """Where a typed field may be, best place first, and its unit where the file gives none."""

    paths: Sequence[str]
    unit: str = ""


@dataclass
class Gathered:
    """What was found so far."""

    quantities: dict[str, Quantity] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    rest: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def metadata(self) -> Metadata:
        """Return it all; notes go to `rest["notes"]`."""
        rest = dict(self.rest)
        if self.notes:
            rest["notes"] = list(self.notes)
        return Metadata(self.quantities, self.texts, rest)


def gather(root: h5py.Group, quantities: Mapping[str, Field], texts: Mapping[str, Field]) -> Gathered:
    """Return the typed fields found below root, and everything else that is small, flat by path."""
    found, used = Gathered(), set()
    for name, places in quantities.items():
        for path in places.paths:
            quantity = _quantity(root.get(path), places.unit)
            if quantity is not None:
                found.quantities[name] = quantity
                used.add(path)
                break
    for name, places in texts.items():
        for path in places.paths:
            text = _text(root.get(path))
            if text:
                found.texts[name] = text
                used.add(path)
                break
    _keep_rest(root, found, used)
    return found


def value_of(node: Any) -> Any:
    """Return a small dataset's value as JSON-safe Python, or None when it is large or of another kind."""
    if not isinstance(node, h5py.Dataset) or node.shape is None or node.nbytes > _SMALL_BYTES:
        return None
    return _plain(node[()], node.dtype) if node.size <= _SMALL_COUNT else None


def units_of(node: Any) -> str:
    """Return the `units` attribute of a node as text; empty when there is none."""
    for name in ("units", "unit"):
        value = _attribute(node, name)
        if isinstance(value, str):
            return one_line(value)[:40]
    return ""


def degrees(angles: h5py.Dataset, found: Gathered) -> NDArray[np.float64]:
    """Return all values in degrees, as the `units` attribute says.

    Without one they are degrees, with a note; unless they span half a turn or a whole one in radians.
    """
    values = np.asarray(angles[()], np.float64).ravel()
    unit = units_of(angles).lower()
    if unit.startswith("rad"):
        return np.rad2deg(values)
    if not unit.startswith(("deg", "°")):
        has = f"is in {unit!r}" if unit else "has no units"
        is_turn = _is_turn_in_radians(values)
        found.notes.append(f"{one_line(angles.name)} {has}: taken as {'radians' if is_turn else 'degrees'}")
        return np.rad2deg(values) if is_turn else values
    return values


def _is_turn_in_radians(values: NDArray[np.float64]) -> bool:
    """True for enough angles that span pi or 2 pi, the last one there or left out."""
    if values.size < _FEW_ANGLES or not np.isfinite(values).all():
        return False
    span = float(np.ptp(values))
    return any(abs(span - turn) <= 1.5 * span / (values.size - 1) for turn in (math.pi, 2 * math.pi))


def held(group: Any) -> str:
    """Return the first names in a group, for a message; `nothing` when there is no group or nothing in it."""
    names = list(group)[:12] if isinstance(group, h5py.Group) else []
    return ", ".join(map(one_line, names)) or "nothing"


def _attribute(node: Any, name: str) -> Any:
    """Return a small attribute's value, JSON-safe; None when it is absent, large or cannot be read."""
    if name not in node.attrs:
        return None
    info = node.attrs.get_id(name)
    if info.shape is None or math.prod(info.shape) > _SMALL_COUNT or info.get_storage_size() > _SMALL_BYTES:
        return None
    try:
        return _plain(node.attrs[name], info.dtype)
    except (TypeError, UnicodeDecodeError, OSError):  # a type that h5py has no Python value for
        return None


def _plain(value: Any, dtype: Any) -> Any:
    """JSON-safe Python: text cleaned, one element as a scalar, not-a-number as text; None for other kinds."""
    if h5py.check_string_dtype(dtype) is None and dtype.kind not in "iufbSU":
        return None
    items = [_scalar(item) for item in np.asarray(value).ravel().tolist()]
    return items[0] if len(items) == 1 else items


def _scalar(item: object) -> str | int | float | bool:
    if isinstance(item, bool | int):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else str(item)
    return clean(item)


def _quantity(node: Any, unit: str) -> Quantity | None:
    value = value_of(node)
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return Quantity.of(float(value), units_of(node) or unit)


def _text(node: Any) -> str:
    value = value_of(node)
    return one_line(value) if isinstance(value, str) else ""


def _keep_rest(root: h5py.Group, found: Gathered, used: set[str]) -> None:
    room = MOST_CHARACTERS
    for path, value in _entries(root):
        if path in used:
            continue
        room -= len(path) + len(str(value))
        if len(found.rest) >= MOST_ENTRIES or room < 0:
            found.notes.append("there is more in the file than is kept here")
            return
        found.rest[path] = value


def _entries(root: h5py.Group) -> Iterator[tuple[str, Any]]:
    """Every dataset and attribute reached by hard links, each object once, as (path, JSON-safe value)."""
    seen, waiting = set(), [("", root)]
    while waiting:
        path, node = waiting.pop()
        address = h5py.h5o.get_info(node.id).addr
        if address in seen:
            continue
        seen.add(address)
        yield from _attributes(node, path)
        if isinstance(node, h5py.Dataset):
            yield path, _described(node)
        elif isinstance(node, h5py.Group):
            hard = [name for name in node if isinstance(node.get(name, getlink=True), h5py.HardLink)]
            waiting += [(f"{path}/{one_line(name)}".lstrip("/"), node[name]) for name in reversed(hard)]


def _attributes(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name in list(node.attrs):
        value = _attribute(node, name)
        if value is not None and not (isinstance(node, h5py.Dataset) and name == "units"):
            yield f"{path}@{one_line(name)}", value


def _described(node: h5py.Dataset) -> Any:
    value = value_of(node)
    if value is None:
        return {"shape": list(node.shape or ()), "dtype": str(node.dtype)[:80]}
    unit = units_of(node)
    return {"value": value, "unit": unit} if unit else value
