"""The options of each kind of source, with what they mean: for the command line, the API and the how-to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lightkeep.model.acquisition import SourceKind
from lightkeep.model.errors import InvalidInput


def _absolute(value: str) -> str:
    if value and not Path(value).is_absolute():
        raise ValueError("give an absolute path: another process will open it")
    return value


Place = Annotated[str, AfterValidator(_absolute)]
_S: Final[dict[str, Any]] = {"unit": "s"}


class Options(BaseModel):
    """What all kinds have."""

    model_config = ConfigDict(extra="forbid")

    technique: str = Field("", description="What is measured, where the files do not say.")


class Folder(Options):
    """A folder into which others write."""

    path: Place = Field(description="The folder, as the worker sees it.")
    datasets: Literal["entry", "folder"] = Field(
        "entry", description="`entry`: each file and folder in it is a dataset; `folder`: all of it is one."
    )
    include: tuple[str, ...] = Field((), description="Patterns of what is data, e.g. `*.h5`; all when empty.")
    exclude: tuple[str, ...] = Field((), description="Patterns of what is not, e.g. `*.tmp`.")
    done: str = Field(
        "", description="Mark of a writer that is done: `{name}.done` beside it, or `DONE` inside its folder."
    )
    quiet_s: float = Field(
        2.0, ge=0.1, le=3600, description="Seconds that a file must rest before it is taken.", json_schema_extra=_S
    )
    complete_s: float = Field(
        30.0,
        ge=0.1,
        le=86400,
        description="Seconds without news after which a folder is a complete dataset.",
        json_schema_extra=_S,
    )


class Frames(Options):
    """What all sources of frames have."""

    spool: Place = Field("", description="Folder for the frames on their way; `spool` in the root when empty.")
    frames_per_file: int = Field(10_000, ge=1, description="Frames after which the next file begins.")
    idle_s: float = Field(
        5.0, ge=0.1, le=86400, description="Seconds without a frame that end a series.", json_schema_extra=_S
    )
    live: str = Field("", description="Technique that follows each series while it is written.")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters of that technique.")


class PvAccess(Frames):
    """An EPICS PVAccess channel of type NTNDArray, e.g. of areaDetector's NDPluginPva."""

    channel: str = Field(min_length=1, description="Channel, e.g. `2bmbSP1:Pva1:Image`.")
    acquire: str = Field("", description="Channel that is set to 1 when it starts and to 0 when it stops.")
    request: str = Field(
        "", description="Channel where a bluesky RunEngine is asked to end its scan, see `StopRequests`."
    )
    angle: str = Field("rotation_angle", description="Attribute with a frame's rotation angle in degrees.")
    image_key: str = Field(
        "image_key",
        description="Attribute that tells projections (0), flats (1), darks (2) and invalid frames (3).",
    )
    queue: int = Field(50, ge=2, le=10_000, description="Frames that the server keeps for a slow moment.")
    epics: dict[str, str] = Field(
        default_factory=dict, description="EPICS_PVA_* values; the environment's when empty."
    )


class ZeroMq(Frames):
    """A ZeroMQ stream: a JSON header and raw values, as area detectors send them."""

    address: str = Field(min_length=1, description="e.g. `tcp://detector:9999`.")
    socket: Literal["pull", "sub"] = Field("pull", description="Kind of the socket.")
    bind: bool = Field(False, description="Wait for the detector to connect, instead of connecting to it.")


class Replay(Frames):
    """A file's frames, at a rate: to try things out."""

    file: Place = Field(description="HDF5 file.")
    place: str = Field("entry/data/data", description="Dataset in it (frame, row, column).")
    rate: float = Field(10.0, gt=0, description="Frames per second.", json_schema_extra={"unit": "Hz"})


class Bluesky(Options):
    """Documents of bluesky runs, written by `lightkeep.acquisition.documents.Documents`."""

    path: Place = Field(description="Folder that the callback writes to.")
    below: Place = Field(
        "", description="Only files below this folder are taken; the folder above `path` if empty."
    )


KINDS: Final[Mapping[SourceKind, type[Options]]] = {
    SourceKind.FOLDER: Folder,
    SourceKind.PVACCESS: PvAccess,
    SourceKind.ZEROMQ: ZeroMq,
    SourceKind.BLUESKY: Bluesky,
    SourceKind.REPLAY: Replay,
}


def checked(kind: SourceKind, given: Mapping[str, Any]) -> Options:
    """Return the options with their defaults. InvalidInput names the first that is wrong."""
    try:
        return KINDS[kind].model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"]) or "options"
        fields = KINDS[kind].model_fields
        about = fields[place].description if place in fields else f"the options are {', '.join(fields)}"
        why = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{kind}: {place}: {why}", remedy=about or "") from error
