"""What the IRI Facility API takes, as doe-iri/iri-facility-api-python had it on 2026-08-21."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Resources(BaseModel):
    """`ResourceSpec`."""

    node_count: int | None = Field(None, ge=1)
    process_count: int | None = Field(None, ge=1)
    processes_per_node: int | None = Field(None, ge=1)
    cpu_cores_per_process: int | None = Field(None, ge=1)
    gpu_cores_per_process: int | None = Field(None, ge=1)
    exclusive_node_use: bool = True
    memory: int | None = Field(None, ge=1)


class Attributes(BaseModel):
    """`JobAttributes`."""

    duration: int | None = Field(None, ge=1)
    queue_name: str | None = Field(None, min_length=1)
    account: str | None = Field(None, min_length=1)
    reservation_id: str | None = Field(None, min_length=1)
    custom_attributes: dict[str, str] = Field(default_factory=dict)


class Mount(BaseModel):
    """`VolumeMount`."""

    source: str
    target: str
    read_only: bool = True


class Container(BaseModel):
    """`Container`."""

    image: str
    volume_mounts: list[Mount] = Field(default_factory=list)


class Spec(BaseModel):
    """`JobSpec`: other fields are refused."""

    model_config = ConfigDict(extra="forbid")

    executable: str | None = Field(None, min_length=1)
    container: Container | None = None
    arguments: list[str] = Field(default_factory=list)
    directory: str | None = Field(None, min_length=1)
    name: str | None = Field(None, min_length=1)
    inherit_environment: bool = True
    environment: dict[str, str] = Field(default_factory=dict)
    stdin_path: str | None = Field(None, min_length=1)
    stdout_path: str | None = Field(None, min_length=1)
    stderr_path: str | None = Field(None, min_length=1)
    resources: Resources | None = None
    attributes: Attributes | None = None
    pre_launch: str | None = Field(None, min_length=1)
    post_launch: str | None = Field(None, min_length=1)
    launcher: str | None = Field(None, min_length=1)


class PathBody(BaseModel):
    """Body of the operations that take one path."""

    path: str


class MakeFolderBody(PathBody):
    """`PostMakeDirRequest`."""

    parent: bool = False


class MoveBody(PathBody):
    """`PostMoveRequest`."""

    target_path: str


class ListBody(PathBody):
    """`PostLsRequest`."""

    model_config = ConfigDict(populate_by_name=True)
    show_hidden: bool = Field(False, alias="showHidden")
    numeric_uid: bool = Field(False, alias="numericUid")
    recursive: bool = False
    dereference: bool = False
