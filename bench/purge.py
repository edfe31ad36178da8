"""Planning a purge over a million replicas: what may all go, and what none of which may."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from bench._harness import Figure
from lightkeep.catalog.columns import to_microseconds
from lightkeep.config import Config, PurgeConfig
from lightkeep.lifecycle.retention import purge_plan
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Conflict
from lightkeep.model.people import SERVICE
from lightkeep.testing.retained import ADMIN, EXPERIMENT, Retained, retained

DATASETS, FILES = 1_000, 1_000
_SIZE = 1_000_000


def run() -> list[Figure]:
    """Plan over 1 M replicas, of which 100 000 go onto the list; then again when nobody was told."""
    with tempfile.TemporaryDirectory() as folder:
        kept = _filled(Path(folder))
        before = _peak_mb(anew=True)
        begin = time.process_time()
        plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
        listed = time.process_time() - begin
        grown = _peak_mb() - before
        if plan.files != 100_000:
            raise AssertionError(f"{plan.files} files planned, not 100 000")
        with kept.facility.catalog.writer.begin() as connection:
            connection.exec_driver_sql("DELETE FROM purge_item")
            connection.exec_driver_sql("DELETE FROM purge_plan")
            connection.exec_driver_sql("DELETE FROM notice")
        begin = time.process_time()
        try:
            purge_plan.plan(kept.facility, "central", principal=ADMIN)
        except Conflict:
            refused = time.process_time() - begin
        kept.facility.close()
    return [
        Figure(
            "plan 1 M replicas",
            listed,
            None,
            "ours <= 60",
            1,
            threads=1,
            unit="s",
            note="100 000 of them listed; CPU",
        ),
        Figure(
            "plan 1 M, none told", refused, None, "ours <= 60", 1, threads=1, unit="s", note="nothing may go; CPU"
        ),
        Figure("memory of a plan", grown, None, "ours <= 300", 1, threads=1, unit="MB", note="peak, above before"),
    ]


def _peak_mb(*, anew: bool = False) -> float:
    """Return the most memory that this process had, in MB, since this was asked `anew`: it had more before."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def _filled(folder: Path) -> Retained:
    """Return a facility whose experiment has a million files on two stores, all expired, all told of.

    The rows are made by the database itself: the catalogue is what is measured, not how it is filled.
    """
    settings = PurgeConfig(max_fraction=1.0, max_files=100_000)
    kept = retained(folder, capacity=DATASETS * FILES * _SIZE * 2, config=replace(Config(folder), purge=settings))
    for number in range(DATASETS):
        with kept.facility.catalog.change(SERVICE) as tx:
            made = tx.add_dataset(Dataset(kept.facility.ids.new("ds"), EXPERIMENT, f"scan-{number:04}"))
            tx.complete_dataset(made.id)
    kept.close()
    kept.clock.at += timedelta(days=100)
    at = to_microseconds(kept.clock.at)
    with kept.facility.catalog.writer.begin() as connection:
        connection.exec_driver_sql(_FILES.format(files=FILES, size=_SIZE))
        for store in ("central", "vault"):
            connection.exec_driver_sql(_REPLICAS.format(store=store, at=at))
        connection.exec_driver_sql(
            "INSERT INTO listing SELECT zeroblob(32), id FROM replica WHERE store_id = 'central'"
        )
    kept.told()  # of nothing: the list that the notices name is put in their place
    with kept.facility.catalog.writer.begin() as connection:
        connection.exec_driver_sql(f"UPDATE notice SET listing = '{'0' * 64}'")
    kept.trust_clock()
    return kept


_FILES = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {files} - 1)
INSERT INTO file (dataset_number, path, version, id, size, sha256, mtime_ns, mode, event_seq)
SELECT number,
       CAST(printf('%06d.tif', i) AS BLOB), 1, printf('file_%06d%06d', number, i),
       {size}, randomblob(32), 0, 420, 1
FROM dataset, n
"""
_REPLICAS = """
INSERT INTO replica (file_id, id, store_id, key, state, verified_at, proof, created_at)
SELECT id, 'replica_{store}' || substr(id, 6),
       '{store}', CAST(dataset_number || '/' AS BLOB) || path, 'verified', {at},
       'direct', {at}
FROM file
"""
