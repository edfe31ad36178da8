"""Acquisitions: from where, and how, data come in while they are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

_PLACES: Final = ("path", "channel", "address", "file")
SCAN: Final = {
    "rotation_angle": "entry/sample/rotation_angle",
    "image_key": "entry/instrument/detector/image_key",
}
"""The values of a frame that a tomography scan needs, and where NXtomo has them."""


class AcquisitionState(StrEnum):
    """defined -> running <-> stopped; running -> failed -> running."""

    DEFINED = "defined"
    RUNNING = "running"
    """Wanted: some process works on it, or will within seconds."""
    STOPPED = "stopped"
    FAILED = "failed"
    """Ended by an error that trying again does not mend."""


class SourceKind(StrEnum):
    """What data come from."""

    FOLDER = "folder"
    PVACCESS = "pvaccess"
    ZEROMQ = "zeromq"
    BLUESKY = "bluesky"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Statistics:
    """How an acquisition goes, since it was defined unless said otherwise."""

    frames: int = 0
    """Frames written to disk."""
    files: int = 0
    """Files that are in the catalogue."""
    bytes: int = 0
    """Of those files."""
    gaps: int = 0
    """Frames that the source numbered and that never arrived."""
    waiting: int = 0
    """Files that were seen and are not in the catalogue yet."""
    lag_s: float = 0.0
    """From the last write of the newest file to its being in the catalogue, the quiet time included."""
    last_error: str = ""
    """What went wrong last and is tried again; empty: nothing."""
    at: str = ""
    """When this was written, ISO 8601."""


@dataclass(frozen=True, slots=True)
class Acquisition:
    """A source of data of one experiment, and what became of it."""

    id: str
    experiment_id: str
    name: str
    """Within the experiment."""
    kind: SourceKind
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the kind; see `lightkeep.acquisition.options`."""
    host: str = ""
    """Only workers on this host run it; empty: any."""
    state: AcquisitionState = AcquisitionState.DEFINED
    error: str = ""
    """Why it failed."""
    statistics: Statistics = field(default_factory=Statistics)
    holder: str = ""
    """The process that runs it, for people."""
    token: int = 0
    """Counts the processes that ever ran it: what an older one still writes is refused."""
    lease_until: datetime | None = None
    """Until then no other process takes it over; None: nobody has it."""
    created_by: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def place(self) -> str:
        """The folder, channel, address or file that it takes data from."""
        return next((str(self.options[key]) for key in _PLACES if key in self.options), "")


@dataclass(frozen=True, slots=True)
class Begin:
    """A series of frames begins."""

    name: str = ""
    """Of the series; empty: one is made."""
    header: Mapping[str, Any] = field(default_factory=dict)
    """What the source says of it: texts, numbers, and maps of the detector (row, column)."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The values of a frame as its detector compressed them, made a chunk of an HDF5 file."""

    shape: tuple[int, ...]
    """Rows, columns."""
    dtype: Any
    """The numpy type of the values."""
    codec: str
    """`bslz4`, `lz4`, `blosc` or `zlib`."""
    chunk: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame."""

    number: int
    """The source's own count; a jump is a gap."""
    data: Any
    """A numpy array (row, column), or Packed."""
    at: float = 0.0
    """When it was measured, seconds since 1970; 0: not known."""
    values: Mapping[str, float] = field(default_factory=dict)
    """What the source says of it, by name. `rotation_angle` (degrees) and `image_key` (0 projection, 1 flat,
    2 dark, 3 invalid) make a series a tomography scan."""


@dataclass(frozen=True, slots=True)
class End:
    """The series is over."""


class FrameSource(Protocol):
    """Where frames come from. Opened by its constructor; one thread calls `messages`, once, and `close`.

    Raises SourceError for what cannot be reached or understood.
    """

    def messages(self) -> Iterator[Begin | Frame | End | None]:
        """Yield what comes; None at least twice a second while nothing does, so that the caller can look around.

        A frame outside a series begins one. The iterator ends when nothing more will come.
        """

    def stop(self, why: Mapping[str, Any]) -> None:
        """Have the detector end its series: what is on its way still comes. SourceError: it cannot be told.

        Parameters
        ----------
        why: what the technique says that has seen enough: `reason`, frames `used`, `planned` ...
        """

    def close(self) -> None:
        """Give the connection back."""
