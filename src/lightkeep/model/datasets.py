"""Datasets and their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from lightkeep.model.quantity import Quantity


class DatasetKind(StrEnum):
    """What a dataset is."""

    RAW = "raw"
    DERIVED = "derived"
    CALIBRATION = "calibration"


class DatasetState(StrEnum):
    """receiving -> complete -> withdrawn. Complete: every file hashed and on a store, the manifest closed."""

    RECEIVING = "receiving"
    COMPLETE = "complete"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a format found in a file."""

    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    """Typed fields with units under the field's names, e.g. `energy`, `pixel_size`, `exposure_time`."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Typed text fields, e.g. `title`, `sample`, `instrument`, `user`."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """Everything else, JSON-safe."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Files that were measured or computed together; immutable once complete."""

    id: str
    """`ds_` and 16 characters; never reused."""
    experiment_id: str
    name: str
    """Unique inside its experiment, e.g. `tooth`."""
    kind: DatasetKind = DatasetKind.RAW
    technique: str = ""
    """Name of a technique module, or empty when not known."""
    state: DatasetState = DatasetState.RECEIVING
    format: str = ""
    """Name of the format of its main file, e.g. `data-exchange`."""
    main_file: str = ""
    """Path inside the dataset of the file that the format reads."""
    files: int = 0
    """Number of files in the manifest."""
    size: int = 0
    """Bytes in the manifest."""
    parents: tuple[str, ...] = ()
    """Dataset ids that a derived dataset was made from."""
    run_id: str = ""
    """The run that made a derived dataset."""
    metadata: Metadata = field(default_factory=Metadata)
    created_at: datetime | None = None
    """When its record was made; set by the catalogue."""
    completed_at: datetime | None = None
    """When the manifest was closed."""
    created_by: str = ""
    """Principal id."""


@dataclass(frozen=True, slots=True)
class File:
    """One entry of a dataset's manifest: content and name, not a place."""

    id: str
    dataset_id: str
    path: str
    """Relative to the dataset, with `/`; as `os.fsdecode` gives it, so that odd bytes round-trip."""
    size: int
    """Bytes."""
    sha256: str
    """Hex digest of the content."""
    mtime_ns: int = 0
    """Modification time of the source."""
    mode: int = 0o644
    """Permission bits of the source."""
    version: int = 1
    """1, and one more for each different content at the same path; the highest is the current one."""


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A name under the source that is recorded but not kept as content, and why (invariant I4)."""

    dataset_id: str
    path: str
    kind: str
    """`symlink`, `fifo`, `socket`, `device`, `unreadable`, `unstable`."""
    reason: str
    target: str = ""
    """Where a symlink points, as found; never followed."""
