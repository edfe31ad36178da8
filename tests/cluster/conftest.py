"""A real two-node Slurm and a real PostgreSQL: `make cluster` starts them. Figures go into build/cluster.json.

What is measured runs first and alone, in the order of the files; the rest, which mostly waits, three at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from serving import Served, opened  # noqa: E402

BUILD = HERE.parents[1] / "build"
ON_SLURM = {"test_dask", "test_engines", "test_slurm"}
"""Files that share the one Slurm: they take its nodes away and fill them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and those of all files that share Slurm."""
    for item in items:
        if item.path.parent == HERE:
            name = item.path.stem
            item.add_marker(pytest.mark.xdist_group("slurm" if name in ON_SLURM else name))


@pytest.fixture(scope="session")
def tell() -> Iterator[Callable[..., None]]:
    """Return what a test tells a figure to: its name, value, unit, and the limit that it must not pass, if any.

    A figure over its limit does not fail its test: the machine may be busy. It says so in the file.
    """
    figures: dict[str, dict[str, object]] = {}

    def told(name: str, value: float, unit: str, *, most: float | None = None, least: float | None = None) -> None:
        keeps = (most is None or value <= most) and (least is None or value >= least)
        limit = {"most": most} if most is not None else {"least": least} if least is not None else {}
        load = round(os.getloadavg()[0], 2)
        figures[name] = {"value": round(value, 4), "unit": unit, **limit, "keeps": keeps, "load": load}

    yield told
    if figures:
        _write(figures)


@pytest.fixture(params=["sqlite", "postgres"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Return a facility whose server is not started yet."""
    with opened(tmp_path, is_embedded=request.param == "sqlite") as made:
        yield made


def _write(figures: dict[str, dict[str, object]]) -> None:
    """Add figures to those of the other processes."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "cluster.json"
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = json.loads(file.read() or "{}").get("figures", {})
        about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version()}
        about |= {"cores": len(os.sched_getaffinity(0))}
        file.truncate(0)
        file.write(json.dumps(about | {"figures": known | figures}, indent=1) + "\n")
