"""An incremental technique from a plugin: the sum of all projections, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel

from lightkeep.model.datasets import Dataset
from lightkeep.model.formats import Source
from lightkeep.model.techniques import OutputSpec, Preflight


class Params(BaseModel):
    """How many frames a piece has."""

    piece: int = 2


OUTPUTS = {"total": OutputSpec(("y", "x"), "counts", "sum of the projections")}
RESULTS = ("nexus",)
SPLIT = "frames"


def accepts(dataset: Dataset) -> bool:
    """True for scans."""
    return dataset.format == "data-exchange"


def preflight(source: Source, params: Params) -> Preflight:
    """Sizes."""
    angles, rows, columns = source.arrays["projections"].shape
    return Preflight(
        params={"piece": np.int64(params.piece)},
        shapes={"total": (rows, columns)},
        dtypes={"total": "int64"},
        length=angles,
        memory_bytes=1,
        seconds=0.0,
        piece=params.piece,
    )


def start(source: Source, params: Params, begin: int, end: int) -> dict[str, Any]:
    """Nothing yet."""
    return {"sum": np.zeros(source.arrays["projections"].shape[1:], np.int64), "begins": []}


def push(state: dict[str, Any], block: Any, begin: int) -> dict[str, Any]:
    """Add a block."""
    return {"sum": state["sum"] + block.sum(axis=0, dtype=np.int64), "begins": [*state["begins"], begin]}


def merge(state: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Add what another piece has."""
    return {"sum": state["sum"] + other["sum"], "begins": state["begins"] + other["begins"]}


def finish(state: dict[str, Any], params: Params) -> dict[str, Any]:
    """The sum; every block must have come once, in order."""
    if state["begins"] != list(range(0, 6, params.piece)):
        raise ValueError(f"blocks began at {state['begins']}")
    return {"total": state["sum"]}
