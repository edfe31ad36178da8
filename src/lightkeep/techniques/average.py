"""The mean of a stack of frames, and how much each pixel scatters. The technique to copy for one of your own."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Source
from lightkeep.model.techniques import OutputSpec, Preflight


class Params(BaseModel, extra="forbid"):
    """What a user may choose: the command line, the API and the portal's form are made from these lines."""

    saturation: float | None = Field(
        None, gt=0, description="Count at which the detector saturates.", json_schema_extra={"unit": "counts"}
    )


OUTPUTS = {
    "mean": OutputSpec(axes=("row", "column"), unit="counts", label="Mean of the frames"),
    "deviation": OutputSpec(axes=("row", "column"), unit="counts", label="Standard deviation of the frames"),
}
RESULTS = ["nexus", "thumbnail"]
SPLIT = "frames"


def accepts(dataset: Dataset) -> bool:
    """Measured frames in a general NeXus file."""
    return dataset.kind is DatasetKind.RAW and dataset.format == "nexus"


def preflight(source: Source, params: Params) -> Preflight:
    """Say how much work it is, and warn of saturated pixels in the first frame."""
    if "frames" not in source.arrays:
        raise InvalidInput(f"{source.path.name} holds no frames", remedy="choose a dataset with a stack of images")
    frames = source.arrays["frames"]
    count, *shape = frames.shape
    if count == 0 or len(shape) != 2:
        raise InvalidInput(
            f"frames are {frames.shape}, not (frame, row, column)", remedy="choose a stack of images"
        )
    saturated = int((frames[0] >= params.saturation).sum()) if params.saturation else 0
    return Preflight(
        params=params.model_dump(),
        shapes=dict.fromkeys(OUTPUTS, tuple(shape)),
        dtypes=dict.fromkeys(OUTPUTS, "float64"),
        length=count,
        memory_bytes=3 * 8 * shape[0] * shape[1],
        seconds=2e-9 * count * shape[0] * shape[1],
        warnings=[f"{saturated} pixels of the first frame are saturated"] if saturated else [],
    )


def start(source: Source, params: Params, begin: int, end: int) -> tuple[int, Any, Any]:
    """Nothing was seen yet: count, mean, sum of squared differences from it."""
    return 0, 0.0, 0.0


def push(state: tuple[int, Any, Any], block: Any, begin: int) -> tuple[int, Any, Any]:
    """Add the frames of a block, (frames, rows, columns)."""
    mean = block.mean(axis=0, dtype=float)
    return merge(state, (len(block), mean, ((block - mean) ** 2).sum(axis=0)))


def merge(a: tuple[int, Any, Any], b: tuple[int, Any, Any]) -> tuple[int, Any, Any]:
    """Put two states together; Chan, Golub and LeVeque (1983), eq. 2.1: no cancellation."""
    count = a[0] + b[0]
    step = b[1] - a[1]
    return count, a[1] + step * (b[0] / count), a[2] + b[2] + step**2 * (a[0] * b[0] / count)


def finish(state: tuple[int, Any, Any], params: Params) -> dict[str, Any]:
    """Return the outputs."""
    count, mean, squares = state
    return {"mean": mean, "deviation": (squares / count) ** 0.5}
