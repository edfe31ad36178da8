"""A real two-node Slurm and a real PostgreSQL: `make cluster` starts them. Figures go into build/cluster.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "build"


@pytest.fixture(scope="session")
def tell() -> Iterator[Callable[..., None]]:
    """Return what a test tells a figure to: its name, value, unit, and the limit that it must not pass, if any.

    A figure over its limit does not fail its test: the machine may be busy. It says so in the file.
    """
    figures: dict[str, dict[str, object]] = {}

    def told(name: str, value: float, unit: str, *, most: float | None = None, least: float | None = None) -> None:
        keeps = (most is None or value <= most) and (least is None or value >= least)
        limit = {"most": most} if most is not None else {"least": least} if least is not None else {}
        figures[name] = {"value": round(value, 4), "unit": unit, **limit, "keeps": keeps}

    yield told
    if figures:
        BUILD.mkdir(exist_ok=True)
        about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version()}
        about |= {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
        (BUILD / "cluster.json").write_text(json.dumps(about | {"figures": figures}, indent=1) + "\n")
