"""Doctests: only modules that have some are imported to be searched; each worker of the tests does it."""

from __future__ import annotations

from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave a module out that shows no session of Python."""
    if collection_path.suffix != ".py":
        return None
    return True if ">>>" not in collection_path.read_text() else None
