"""Restore drill: a backup counts only after something came back from it.

    restore      a few datasets of every store, each file read from its replica there, compared with its checksum
    rebuild      the whole catalogue, from the records on the stores, into an empty database that is thrown away

The result is an event; a drill that failed or is overdue is a finding of `doctor` and holds purges back.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lightkeep.lifecycle.health.findings import Finding, Severity
from lightkeep.model.errors import LightkeepError, NotFound
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.stores import ReplicaState, Store
from lightkeep.model.techniques import Report

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.model.datasets import Dataset

EVERY: Final = timedelta(days=30)
"""How often upkeep holds a drill."""
_LATE: Final = timedelta(days=90)
_FACT: Final = "drill.last"
_DATASETS: Final = 3  # from each store
_LOOKED_AT: Final = 50  # datasets, at random, to find them
_BLOCK: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Drill:
    """What a drill showed."""

    at: str
    """When it began, ISO 8601."""
    datasets: int = 0
    files: int = 0
    size: int = 0
    """Bytes that came back equal."""
    seconds: float = 0.0
    rebuilt_datasets: int = 0
    """Datasets that a rebuild from the stores brought back ..."""
    expected_datasets: int = 0
    """... of so many."""
    rebuild_seconds: float = 0.0
    failures: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """True when every byte and every dataset came back."""
        return not self.failures


def drill(facility: Facility, *, principal: Principal, report: Report | None = None) -> Drill:
    """Read some datasets back from every store and rebuild the catalogue beside; keep the result as an event.

    Needs `manage` on the facility. Nothing of the facility is changed but that event.
    """
    facility.catalog.view(principal).require(Verb.MANAGE)
    begin = facility.clock.now()
    work = _Drill(facility, begin)
    started = time.monotonic()
    chosen = work.choose()
    for number, (store, dataset) in enumerate(chosen):
        work.restore(store, dataset)
        if report is not None:
            report((number + 1) / (len(chosen) + 1), f"{dataset.name} from {store.record.id}")
    seconds, started = time.monotonic() - started, time.monotonic()
    rebuilt, expected = work.rebuild()
    done = Drill(
        begin.isoformat(),
        work.datasets,
        work.files,
        work.size,
        round(seconds, 3),
        rebuilt,
        expected,
        round(time.monotonic() - started, 3),
        tuple(work.failures),
    )
    with facility.catalog.change(principal) as tx:
        tx.set_fact(_FACT, json.dumps(asdict(done)), verb="drill.passed" if done.passed else "drill.failed")
    return done


def last(facility: Facility) -> Drill | None:
    """Return the last drill, or None when there was none."""
    kept = facility.catalog.view(SERVICE).fact(_FACT)
    if kept is None:
        return None
    values: dict[str, Any] = json.loads(kept)
    return Drill(**{**values, "failures": tuple(values["failures"])})


def tick(facility: Facility) -> int:
    """Hold a drill when one is due; return 1 when one was held."""
    before = last(facility)
    now = facility.clock.now()
    if before is not None and now - datetime.fromisoformat(before.at) < EVERY:
        return 0
    if before is None and now - _oldest(facility, now) < EVERY:
        return 0
    drill(facility, principal=SERVICE)
    return 1


def overdue(facility: Facility) -> Iterator[Finding]:
    """Find that the last drill failed, or is long ago."""
    before, now = last(facility), facility.clock.now()
    if before is not None and not before.passed:
        message = f"the restore drill of {before.at[:10]} failed: {before.failures[0]}"
        yield Finding(Severity.ERROR, "drill", message, "mend it, then run: lightkeep drill")
    since = _oldest(facility, now) if before is None else datetime.fromisoformat(before.at)
    if now - since > _LATE:
        message = f"nothing was restored for a trial since {since:%Y-%m-%d}"
        yield Finding(Severity.WARNING, "drill", message, "run: lightkeep drill")


def _oldest(facility: Facility, now: datetime) -> datetime:
    """Return when the facility got its first store."""
    made = [each.created_at for each in facility.catalog.view(SERVICE).stores() if each.created_at]
    return min(made, default=now)


class _Drill:
    """One call of `drill`."""

    def __init__(self, facility: Facility, at: datetime) -> None:
        self._facility = facility
        self._random = random.Random(at.isoformat())
        self.datasets = self.files = self.size = 0
        self.failures: list[str] = []

    def choose(self) -> list[tuple[Store, Dataset]]:
        """Return a few datasets of every store that answers."""
        view = self._facility.catalog.view(SERVICE)
        chosen: dict[str, list[tuple[Store, Dataset]]] = {}
        for store_id in self._facility.stores:
            try:
                self._facility.stores[store_id].check_identity()
                chosen[store_id] = []
            except LightkeepError as error:
                self.failures.append(error.message)
        total = view.datasets(limit=1).total
        for offset in self._random.sample(range(total), min(_LOOKED_AT, total)):
            for dataset in view.datasets(limit=1, offset=offset, order="name").items:
                replicas = view.replicas(dataset.id)
                for store_id in {each.store_id for each in replicas if each.state is ReplicaState.VERIFIED}:
                    if len(chosen.get(store_id, (None,) * _DATASETS)) < _DATASETS:
                        chosen[store_id].append((self._facility.stores[store_id], dataset))
        return [each for pairs in chosen.values() for each in pairs]

    def restore(self, store: Store, dataset: Dataset) -> None:
        """Read every file of a dataset from its replica on a store, and compare."""
        view = self._facility.catalog.view(SERVICE)
        files = {each.id: each for each in view.files(dataset.id, limit=10_000).items}
        for replica in view.replicas(dataset.id):
            file = files.get(replica.file_id)
            if file is None or replica.store_id != store.record.id or replica.state is not ReplicaState.VERIFIED:
                continue
            where = f"{dataset.name}/{file.path} on store {store.record.id}"
            try:
                sha256, size = _read(store, replica.key)
            except (LightkeepError, OSError) as error:
                self.failures.append(f"{where} could not be read: {error}")
                continue
            if (sha256, size) != (file.sha256, file.size):
                self.failures.append(f"{where} came back as other bytes")
                continue
            self.files += 1
            self.size += size
        self.datasets += 1

    def rebuild(self) -> tuple[int, int]:
        """Rebuild the catalogue into a database that is thrown away; return datasets found, and expected."""
        from lightkeep.facility import empty_facility
        from lightkeep.lifecycle.replicas.rebuild import rebuild_from

        facility = self._facility
        expected = facility.catalog.view(SERVICE).datasets(limit=1).total
        stores = {}
        for store_id in facility.stores:
            store = facility.stores[store_id]
            try:
                store.check_identity()
                stores[store_id] = store
            except LightkeepError:  # told by `choose`
                continue
        with tempfile.TemporaryDirectory(prefix="drill-", dir=facility.scratch) as folder:
            config = replace(facility.config, root=Path(folder), catalog_url="sqlite:///catalog.db")
            with empty_facility(config, clock=facility.clock, ids=facility.ids) as trial:
                try:
                    rebuild_from(trial, stores)
                    found = trial.catalog.view(SERVICE).datasets(limit=1).total
                except NotFound as error:
                    self.failures.append(error.message)
                    found = 0
        if found != expected:
            self.failures.append(f"a rebuilt catalogue has {found} of {expected} datasets")
        return found, expected


def _read(store: Store, key: str) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with store.open(key) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
