"""The catalogue: facets and counts over a million datasets, and what a file costs."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import text

from bench._harness import BUILD, Figure, interleaved
from lightkeep.catalog import Catalog, View, counts, schema
from lightkeep.catalog.columns import to_microseconds
from lightkeep.model.clock import SystemClock, SystemIds
from lightkeep.model.datasets import Dataset, File
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord
from lightkeep.policy.access import visible

EXPERIMENTS, DATASETS, MEMBER_OF = 5_000, 1_000_000, 2_500
_MEMBER = Principal("member")
_FIELDS = ("station", "technique", "kind", "format", "month")


def run() -> list[Figure]:
    """Measure both."""
    return [*facets(), *files(group=1_000), *files(group=100)]


def facets() -> list[Figure]:
    """All facets and the count, for a member of half of the experiments, against GROUP BY over the datasets."""
    catalog, peer = _open(_million()), _open(_million())  # each with its own cache, as two clients have
    view = catalog.view(_MEMBER)
    ours, brute = interleaved(lambda: _ours(view), lambda: _brute_force(peer), repetitions=7)
    catalog.close()
    peer.close()
    if ours.result != brute.result:
        raise AssertionError("the facets that are kept differ from GROUP BY")
    shared: dict[str, Any] = {"threads": 1, "unit": "ms"}
    note = "1 M datasets, 5 000 experiments, member of 2 500; peer: GROUP BY over the datasets, same result"
    return [
        Figure(
            "facets and count",
            1e3 * ours.median,
            1e3 * brute.median,
            "ours <= 20",
            len(ours.seconds),
            note=note,
            **shared,
        )
    ]


def files(*, group: int) -> list[Figure]:
    """File, replica and event rows of a group in one durable transaction, per file.

    The peer is what SQLite itself takes: the very rows that ours wrote, as tuples that are ready, by `executemany`
    of plain sqlite3 into the same tables with the same indexes and settings. Group by group in turn.
    """
    with tempfile.TemporaryDirectory() as folder:
        catalog = _open(Path(folder) / "catalog.db")
        dataset = _dataset(catalog)
        shutil.copy(_checkpointed(Path(folder) / "catalog.db"), Path(folder) / "peer.db")
        peer = _plain(Path(folder) / "peer.db")
        ours: list[float] = []
        plain: list[float] = []
        for pairs in [_group(dataset, number, group) for number in range(24)]:
            begin = time.perf_counter()
            with catalog.change(SERVICE) as tx:
                tx.add_files(dataset, pairs)
            ours.append(time.perf_counter() - begin)
            rows = _newest(Path(folder) / "catalog.db")
            begin = time.perf_counter()
            _insert(peer, rows)
            plain.append(time.perf_counter() - begin)
        catalog.close()
        peer.close()
    cost, least = (1e6 * statistics.median(seconds[4:]) / group for seconds in (ours, plain))
    note = "File + Replica + Event, synchronous=FULL; peer: the same rows by plain sqlite3, ready as tuples"
    return [Figure(f"a file, groups of {group}", cost, least, "ours <= 15", len(ours) - 4, 1, "us", note=note)]


_TABLES = ("event", "file", "replica")


def _checkpointed(path: Path) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def _plain(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = OFF", "cache_size = -65536"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _newest(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows that the last event brought."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (last,) = connection.execute("SELECT max(seq) FROM event").fetchone()
        event = connection.execute("SELECT * FROM event WHERE seq = ?", (last,)).fetchall()
        file = connection.execute("SELECT * FROM file WHERE event_seq = ?", (last,)).fetchall()
        of_those = "SELECT replica.* FROM file JOIN replica ON file_id = file.id WHERE event_seq = ?"
        return {"event": event, "file": file, "replica": connection.execute(of_those, (last,)).fetchall()}


def _insert(connection: sqlite3.Connection, rows: dict[str, list[tuple[Any, ...]]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for table in _TABLES:
        marks = ", ".join("?" * len(rows[table][0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[table])
    connection.execute("COMMIT")


def _ours(view: View) -> tuple[int, dict[str, list[tuple[str, int]]]]:
    return view.datasets(limit=0).total, view.facets()


def _brute_force(catalog: Catalog) -> tuple[int, dict[str, list[tuple[str, int]]]]:
    now = datetime.now(UTC)
    may = visible(_MEMBER, Verb.SEE, now=now)
    sql = (
        "SELECT experiment.station_id, technique, kind, format,"
        " strftime('%Y-%m', dataset.created_at / 1000000, 'unixepoch'), count(*)"
        " FROM dataset JOIN experiment ON experiment.id = dataset.experiment_id"
        f" WHERE dataset.state = 'complete' AND {may.sql} GROUP BY 1, 2, 3, 4, 5"
    )
    with catalog.engine.connect() as connection:
        rows = connection.execute(text(sql), {**may.parameters, "access_now": to_microseconds(now)}).all()
    counted: dict[str, dict[str, int]] = {name: {} for name in _FIELDS}
    for *values, n in rows:
        for name, value in zip(_FIELDS, values, strict=True):
            if value:
                counted[name][value] = counted[name].get(value, 0) + n
    order = {
        name: sorted(values.items(), key=lambda item: (-item[1], item[0])) for name, values in counted.items()
    }
    return sum(row[-1] for row in rows), order


def _million() -> Path:
    """Return a catalogue of a million datasets, made once by plain SQL."""
    path = BUILD / f"million-{schema.VERSION}.db"
    if path.exists():
        return path
    BUILD.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    begin = time.perf_counter()
    _open(part).close()
    with sqlite3.connect(part) as connection:
        connection.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144;")
        connection.executescript(_FILL.format(experiments=EXPERIMENTS, datasets=DATASETS, mine=MEMBER_OF))
        tally: dict[str, dict[int, int]] = {}
        for experiment_id, number, n in connection.execute(_TALLY):
            tally.setdefault(experiment_id, {})[number] = n
        packed = [(counts.pack(tallied), experiment_id) for experiment_id, tallied in tally.items()]
        connection.executemany("UPDATE experiment SET facets = ? WHERE id = ?", packed)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    part.rename(path)
    print(f"made {path.name} in {time.perf_counter() - begin:.0f} s")
    return path


_FILL = """
INSERT INTO person (id, name, email, is_active, password_hash, created_at)
  VALUES ('member', 'Member', '', 1, '', 0);
INSERT INTO station (id, name, techniques, created_at)
  SELECT value, '', '[]', 0 FROM json_each('["1", "2", "3", "4", "5", "6", "7", "8"]');
INSERT INTO experiment (number, id, station_id, title, state, starts_at, ends_at, identifiers, searched,
                        created_at, datasets, files, size, facets)
  WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {experiments})
  SELECT i + 1, printf('2026-%05d', i), CAST(i % 8 + 1 AS TEXT), 'Measurement', 'open', NULL, NULL,
         '{{}}', 'measurement', 1700000000000000 + i * 17280000000, 0, 0, 0, x'' FROM n;
INSERT INTO access_grant (person_id, scope, role, scope_id, created_at)
  SELECT 'member', 'experiment', 'member', id, 0 FROM experiment WHERE number % 2 = 0 LIMIT {mine};
INSERT INTO dataset
  WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {datasets})
  SELECT i + 1, printf('ds_%016d', i), printf('2026-%05d', i / ({datasets} / {experiments})),
         printf('scan_%07d', i), printf('scan_%07d', i),
         CASE WHEN i % 5 = 0 THEN 'derived' WHEN i % 17 = 0 THEN 'calibration' ELSE 'raw' END,
         CASE (i / ({datasets} / {experiments}) + (i % 3 = 0)) % 6 WHEN 0 THEN 'tomography' WHEN 1 THEN 'xpcs'
              WHEN 2 THEN 'hedm' WHEN 3 THEN 'ptychography' WHEN 4 THEN 'xrf' ELSE '' END,
         CASE WHEN i % 50 = 0 THEN 'receiving' ELSE 'complete' END,
         CASE i % 4 WHEN 0 THEN 'nexus' WHEN 1 THEN 'tiff-stack' ELSE 'data-exchange' END,
         x'', 100, 1000000000, '',
         '{{"quantities":{{"energy":[24.9,"keV",3.98941981866e-15,"J"]}},"rest":{{}},"texts":{{"sample":"gold"}}}}',
         1700000000000000 + i * 86400000, 1700000000000000 + i * 86400000, 'member' FROM n;
CREATE TEMP TABLE counted AS
  SELECT experiment_id, 'technique' AS facet, technique AS value, count(*) AS n FROM dataset
    WHERE state = 'complete' AND technique <> '' GROUP BY 1, 3
  UNION ALL SELECT experiment_id, 'kind', kind, count(*) FROM dataset WHERE state = 'complete' GROUP BY 1, 3
  UNION ALL SELECT experiment_id, 'format', format, count(*) FROM dataset WHERE state = 'complete' GROUP BY 1, 3
  UNION ALL SELECT experiment_id, 'month', strftime('%Y-%m', created_at / 1000000, 'unixepoch'), count(*)
    FROM dataset WHERE state = 'complete' GROUP BY 1, 3;
INSERT INTO facet_value SELECT row_number() OVER (), facet, value FROM (SELECT DISTINCT facet, value FROM counted);
UPDATE experiment SET (datasets, files, size) = (
  SELECT count(*), 100 * count(*), 1000000000 * count(*) FROM dataset
  WHERE experiment_id = experiment.id AND state = 'complete');
"""
_TALLY = "SELECT experiment_id, number, n FROM counted JOIN facet_value USING (facet, value)"


def _open(path: Path) -> Catalog:
    return Catalog.open(f"sqlite:///{path.absolute()}", clock=SystemClock(), ids=SystemIds())


def _dataset(catalog: Catalog) -> str:
    with catalog.change(SERVICE) as tx:
        tx.add_station(Station("2-BM"))
        tx.add_store(StoreRecord("central", "posix", "/store", "uuid"))
        tx.add_experiment(Experiment("2026-11-lee-1", "2-BM"))
        return tx.add_dataset(Dataset(catalog.ids.new("ds"), "2026-11-lee-1", "scan")).id


def _group(dataset: str, number: int, size: int) -> list[tuple[File, Replica]]:
    ids, now = SystemIds(), datetime.now(UTC)
    pairs = []
    for i in range(size):
        path = f"scan_{number:05d}/frame_{i:06d}.tif"
        file = File(ids.new("fl"), dataset, path, 16_384, hashlib.sha256(path.encode()).hexdigest(), 17, 0o644)
        key = f"{dataset}/{path}"
        pairs.append(
            (
                file,
                Replica(ids.new("rp"), file.id, "central", key, ReplicaState.VERIFIED, now, Proof.DIRECT),
            )
        )
    return pairs
