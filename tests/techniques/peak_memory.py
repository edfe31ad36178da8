"""Run the first piece of a tomography scan; print the bytes that its preflight said and those that it took."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lightkeep.analysis import tomography as analysis
from lightkeep.analysis.tomography import plan
from lightkeep.model.formats import Source
from lightkeep.techniques import tomography


class Counts:
    """Frames of one value, made when they are read."""

    def __init__(self, value: int, *shape: int) -> None:
        self.shape, self.dtype, self._value = shape, np.dtype(np.uint16), value

    def __getitem__(self, key: Any) -> Any:
        whole = np.broadcast_to(np.uint16(self._value), self.shape)
        return whole[key].copy()


def resident(what: str) -> int:
    """Bytes that this process holds (VmRSS), or held at most since the last reset (VmHWM)."""
    found = re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def main(angles: int, rows: int, columns: int, options: dict[str, Any]) -> None:
    theta = np.arange(angles) * 180 / angles
    arrays = {
        "projections": Counts(900, angles, rows, columns),
        "flats": Counts(1000, 10, rows, columns),
        "darks": Counts(10, 10, rows, columns),
        "theta_deg": theta,
    }
    source = Source(Path("made"), "nxtomo", "tomography", arrays)
    # What is loaded and compiled once is not of the piece.
    analysis.reconstruct(np.ones((2, 16, 32), np.float32), np.arange(16) * 11.0, 15.5)
    few = np.full((16, 2, 32), 9, np.uint16)
    analysis.normalise(few, few, few[:1] // 9)
    asked = tomography.Params(center=columns / 2, **options)
    found = tomography.preflight(source, asked)
    params = tomography.Params(**found.params)
    if options:
        tomography.run(source, params, lambda _fraction, _text: None, 0, 2)
    plan.POOL.clear()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    tomography.run(source, params, lambda _fraction, _text: None, 0, min(found.piece, rows))
    sys.stdout.write(f"{found.memory_bytes} {resident('VmHWM') - before}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), json.loads(sys.argv[4]))
