"""Archive units for tests: files with known bytes, written to a store."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from lightkeep.model.datasets import File
from lightkeep.model.stores import Store
from lightkeep.storage.units import UnitIndex, UnitSource, write_unit

AT: Final = datetime(2026, 11, 22, tzinfo=UTC)


def source_of(content: bytes, path: str, *, dataset: str = "ds_1", version: int = 1) -> UnitSource:
    """Return a file of a dataset, and its bytes."""
    sha256 = hashlib.sha256(content).hexdigest()
    file_id = f"fl_{hashlib.sha256(os.fsencode(f'{dataset}/{path}/{version}')).hexdigest()[:8]}"
    file = File(file_id, dataset, path, len(content), sha256, mtime_ns=1_700_000_000_123_456_789, version=version)
    return UnitSource(file, partial(io.BytesIO, content))


def archive(
    store: Store,
    sources: Sequence[UnitSource],
    *,
    unit_id: str = "u_1",
    threads: int = 2,
    compress: bool | None = False,
) -> UnitIndex:
    """Write one unit and publish it."""
    with store.stage() as staging:
        index = write_unit(
            staging,
            unit_id,
            sources,
            experiment_id="e_1",
            created_at=AT,
            threads=threads,
            compress=compress,
        )
        staging.sync()
        staging.verify()
        staging.publish()
    return index
