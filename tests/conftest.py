"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Started in the background of a shell, we inherit that Ctrl-C is ignored, and so would every process under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real measurements, or skip where it is not there."""
    folder = Path(os.environ.get("LIGHTKEEP_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real measurements at {folder}: set LIGHTKEEP_SHARED_DATA")
    return folder
