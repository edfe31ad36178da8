"""A technique from a plugin that is given a second dataset: the mean of the products of two scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Source
from lightkeep.model.techniques import OutputSpec, Preflight, Report


class Params(BaseModel):
    """The other scan."""

    weights: str | None = Field(None, json_schema_extra={"input": "data-exchange"})


OUTPUTS = {
    "weighed": OutputSpec(("row", "x"), "counts", "weighed mean over the angles"),
    "spare": OutputSpec(("row", "x"), "counts", "never made"),
}
RESULTS = ("nexus",)
SPLIT = "row"


def accepts(dataset: Dataset) -> bool:
    """True for the scans of one test: elsewhere it would fail for want of weights."""
    return dataset.format == "data-exchange" and dataset.name == "weigh-me"


def preflight(source: Source, params: Params) -> Preflight:
    """Sizes; the other scan must be there."""
    if "weights" not in source.inputs:
        raise InvalidInput("no weights", remedy="name a scan")
    _, rows, columns = source.arrays["projections"].shape
    return Preflight(
        params=params.model_dump(),
        shapes={"weighed": (rows, columns)},
        dtypes={"weighed": "float64"},
        length=rows,
        memory_bytes=1,
        seconds=0.0,
    )


def run(source: Source, params: Params, report: Report, begin: int, end: int) -> Mapping[str, Any]:
    """Rows begin to end."""
    scans = (source, source.inputs["weights"])
    own, other = (np.asarray(each.arrays["projections"][:, begin:end], float) for each in scans)
    return {"weighed": (own * other).mean(axis=0)}
