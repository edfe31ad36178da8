"""What a file format offers: a lazy view of a measurement, its metadata, and a writer for results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from lightkeep.model.datasets import Metadata


@runtime_checkable
class Array(Protocol):
    """Anything that slices to a numpy array: an h5py dataset, a memory map, a numpy array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, key: Any) -> Any: ...


@dataclass(frozen=True)
class Source:
    """A measurement, opened lazily: nothing is read until an array is sliced.

    Use as a context manager; `close` frees the file.
    """

    path: Path
    """The main file."""
    format: str
    """Name of the format that opened it."""
    technique: str
    """What it is a measurement of, e.g. `tomography`; empty when the format does not say."""
    arrays: Mapping[str, Array]
    """By role. Tomography: `projections` (angle, row, column), `flats`, `darks` (frame, row, column),
    `theta_deg` (angle,), and where the file says it `flats_at` (flat,), how many projections were taken before.
    Any: `frames` (frame, row, column)."""
    metadata: Metadata = field(default_factory=Metadata)
    resource: Any = None
    """What `close` closes."""
    inputs: Mapping[str, Source] = field(default_factory=dict)
    """Other datasets that a run was given, by the name of the parameter that names them, e.g. `qmap`."""

    def close(self) -> None:
        """Free the file, and those of the inputs; slicing afterwards raises."""
        if self.resource is not None:
            self.resource.close()
        for each in self.inputs.values():
            each.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class Output:
    """One array of a result, with its axes."""

    data: Array
    axes: tuple[str, ...]
    """Names of the axes, slowest first, e.g. `("row", "y", "x")`."""
    unit: str = ""
    label: str = ""
    """What the values are, for a colour bar."""
    scales: Mapping[str, Array] = field(default_factory=dict)
    """Coordinates of an axis by its name, one value per index."""
    scale_units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a technique made of a dataset, ready for a writer."""

    technique: str
    title: str
    outputs: Mapping[str, Output]
    default: str
    """Name of the output to look at first."""
    params: Mapping[str, Any]
    """Every parameter in force."""
    software: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Dataset id -> name of what it was made from."""
    command: str = ""
    """The exact command that repeats it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How the defaults were found; JSON-safe."""
    previews: Mapping[str, Any] = field(default_factory=dict)
    """Name -> 2-D array, for thumbnails."""
    metadata: Metadata = field(default_factory=Metadata)
    """The metadata of the measurement that it was made from."""


class Format(Protocol):
    """One file format. A reader, a writer, or both; what it cannot do, it says by `can_read`, `can_write`."""

    name: ClassVar[str]
    can_read: ClassVar[bool]
    can_write: ClassVar[bool]

    def matches(self, path: Path) -> bool:
        """True when the file is certainly of this format; reads as little as it can. Never raises on content."""
        ...

    def open(self, path: Path) -> Source:
        """Open lazily. MUST raise BadFile (UnsafeFile) naming the file, what is wrong and the remedy."""
        ...

    def write(self, folder: Path, result: Result) -> list[Path]:
        """Write the result below folder; return the files written, main file first."""
        ...
