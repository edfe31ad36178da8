"""A process that runs one acquisition, to be killed: `taker.py ROOT ACQUISITION [POINT]`.

At POINT, a function named `module:qualified.name`, it kills itself as soon as that function has returned.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
from driver import die_after

from lightkeep.config import Config
from lightkeep.facility import open_facility
from lightkeep.lifecycle.acquisitions.acquire_run import run


def main(root: Path, acquisition_id: str, point: str = "") -> None:
    """Run it until it is stopped."""
    if point:
        die_after(point)
    with open_facility(Config(root)) as facility:
        run(facility, acquisition_id, ending=threading.Event())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
