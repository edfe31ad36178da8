"""A technique from a plugin: the mean over the angles, row by row. The test decides how each piece goes on.

Each piece appends its first row to `<folder>/computed`; then, if it is there, `<folder>/hold-<row>` is waited for
to go away, `<folder>/fail` makes it raise, and `<folder>/kill` makes it die.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from lightkeep.model.datasets import Dataset
from lightkeep.model.formats import Source
from lightkeep.model.techniques import OutputSpec, Preflight, Report


class Params(BaseModel):
    """What the test decides."""

    folder: str = ""
    scale: float = 1.0
    piece: int = 1
    seconds: float = 10.0


OUTPUTS = {
    "mean": OutputSpec(("row", "x"), "counts", "mean over the angles"),
    "angles": OutputSpec(("angle",), "deg", "angles", view="curve"),
}
RESULTS = ("nexus",)
SPLIT = "row"


def accepts(dataset: Dataset) -> bool:
    """True for scans."""
    return dataset.format == "data-exchange"


def preflight(source: Source, params: Params) -> Preflight:
    """Sizes; a scale of 0 is refused."""
    if params.scale == 0:
        raise ValueError("scale is 0")
    angles, rows, columns = source.arrays["projections"].shape
    return Preflight(
        params=params.model_dump(),
        shapes={"mean": (rows, columns), "angles": (angles,)},
        dtypes={"mean": "float32", "angles": "float64"},
        length=rows,
        memory_bytes=1,
        seconds=params.seconds,
        warnings=("one flat is empty",),
        piece=params.piece,
    )


def run(source: Source, params: Params, report: Report, begin: int, end: int) -> Mapping[str, Any]:
    """Mean over the angles of rows begin to end."""
    folder = Path(params.folder)
    if params.folder:
        with (folder / "computed").open("a") as file:
            file.write(f"{begin}\n")
    while (folder / f"hold-{begin}").exists():
        time.sleep(0.01)
    if (folder / "fail").exists():
        raise ValueError(f"row {begin} is empty")
    if (folder / "kill").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    report(0.5, "halfway")
    rows = np.asarray(source.arrays["projections"][:, begin:end], np.float32)
    return {"mean": params.scale * rows.mean(axis=0), "angles": np.asarray(source.arrays["theta_deg"])}
