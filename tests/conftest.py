"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real measurements, or skip where it is not there."""
    folder = Path(os.environ.get("LIGHTKEEP_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real measurements at {folder}: set LIGHTKEEP_SHARED_DATA")
    return folder
