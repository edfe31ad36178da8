"""Files from their best replica to another store: what `replicate`, `repair` and `restore` have in common.

The order is that of ingest: parts, one sync for the group, each part read back past the cache, names that replace
nothing, one transaction that makes the group known. A source is hashed while it is read: one that is not what the
manifest says is marked suspect, its part is dropped, and the next replica is taken, so a bad copy never spreads.
Killed anywhere, the same call again adopts what has its name and copies the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from lightkeep.lifecycle.replicas import records
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.model.errors import Archived, LightkeepError, NotFound, SourceError, StorageError, StoreUnavailable
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import (
    Proof,
    Readable,
    RecallsUnits,
    Replica,
    ReplicaState,
    Replicated,
    Staging,
    Store,
    Tier,
    split_member,
    version_key,
)
from lightkeep.storage.threads import share

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.model.datasets import Dataset, File
    from lightkeep.model.people import Principal

_WAIT_S: Final = 600.0  # how long another writer may hold the store
READABLE: Final = (ReplicaState.VERIFIED, ReplicaState.PRESENT, ReplicaState.SUSPECT)
"""States of replicas that may be read, the best first."""
GOOD: Final = frozenset({ReplicaState.VERIFIED, ReplicaState.PRESENT})
"""States of replicas that nothing is said against."""
LIVE: Final = frozenset(READABLE)
"""States of replicas that count as copies."""


@dataclass(frozen=True, slots=True)
class Sought:
    """A file that a store should get."""

    file: File
    key: str
    """Its name there."""
    sources: tuple[Replica, ...]
    """Where its bytes can be read, the best first."""
    gone: tuple[str, ...] = ()
    """Ids of its replicas there that were deleted before: their keys are free."""


@dataclass(slots=True)
class Copied:
    """What a copying did."""

    files: int = 0
    """Files that the store got."""
    size: int = 0
    """Bytes of these."""
    suspect: list[str] = field(default_factory=list)
    """Paths with a source that was not what the manifest says: another one was taken."""
    failed: dict[str, str] = field(default_factory=dict)
    """Path -> why no source of it could be read whole."""
    unavailable: set[str] = field(default_factory=set)
    """Those of them with a source whose store was not there: later it may be."""


class Copying:
    """Copies files onto one store, group by group.

    Parameters
    ----------
    read: called with the bytes read since the last call, from any thread.
    """

    def __init__(
        self,
        facility: Facility,
        target: Store,
        *,
        principal: Principal,
        pace: Pace,
        read: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._facility = facility
        self._target = target
        self._principal = principal
        self._pace = pace
        self._read = read
        self._lock = threading.Lock()
        self._bad: list[tuple[Replica, File]] = []
        self.done = Copied()
        self.copied: set[str] = set()
        """Ids of the files that the store has got."""

    def run(self, sought: Sequence[Sought]) -> Copied:
        """Copy all of them; return what was done. A file that no source gives whole is left out and named.

        Raises
        ------
        StoreFull, StoreUnavailable, Corrupt, StorageError: the store failed; nothing of that group is kept there.
        Conflict: another writer holds the store too long, or a name on it is taken for good.
        """
        for group in split(sought, self._pace):
            self._group(group)
        return self.done

    def _group(self, group: Sequence[Sought]) -> None:
        with self._target.stage(wait_s=_WAIT_S) as staging:
            written: list[Sought] = []

            def work(waiting: Iterator[Sought]) -> None:
                written.extend(each for each in waiting if self._write(staging, each))

            try:
                share(group, work, threads=self._pace.threads)
            finally:
                mark_suspect(self._facility, self._take_bad(), principal=self._principal)
            if not written:
                return
            staging.sync()
            staging.verify()
            published = {each.asked: each for each in staging.publish()}
        self._commit([(each, published[each.key]) for each in written])

    def _write(self, staging: Staging, sought: Sought) -> bool:
        """Write a file from the first source that gives it whole; False when none does."""
        why = "it has no copy that can be read"
        for replica in sought.sources:
            try:
                source = open_source(self._facility, replica)
            except StoreUnavailable as error:
                why = error.message
                self.done.unavailable.add(sought.file.path)
                continue
            except (NotFound, StorageError) as error:
                why = error.message
                self._suspect(replica, sought.file)
                continue
            with source:
                try:
                    written = staging.write(sought.key, _Source(source, self._read), size=sought.file.size)
                except SourceError as error:
                    why = error.message
                    self._suspect(replica, sought.file)
                    continue
            if written.sha256 == sought.file.sha256:
                return True
            staging.discard(sought.key)
            why = f"the copy on {replica.store_id} differs from its checksum"
            self._suspect(replica, sought.file)
        with self._lock:
            self.done.failed[sought.file.path] = why
        return False

    def _suspect(self, replica: Replica, file: File) -> None:
        with self._lock:
            self.done.suspect.append(file.path)
            self._bad.append((replica, file))

    def _take_bad(self) -> list[tuple[Replica, File]]:
        with self._lock:
            bad, self._bad = self._bad, []
            return bad

    def _commit(self, group: Sequence[tuple[Sought, Replicated]]) -> None:
        by_dataset: dict[str, list[tuple[Sought, Replicated]]] = {}
        for sought, published in group:
            by_dataset.setdefault(sought.file.dataset_id, []).append((sought, published))
        with self._facility.catalog.change(self._principal) as tx:
            for dataset_id, pairs in by_dataset.items():
                rows = [
                    new_replica(self._facility, sought.file, self._target, key=each.key, proof=each.proof)
                    for sought, each in pairs
                ]
                tx.add_replicas(dataset_id, rows, gone=[each for sought, _ in pairs for each in sought.gone])
        self.copied.update(sought.file.id for sought, _ in group)
        self.done.files += len(group)
        self.done.size += sum(sought.file.size for sought, _ in group)


class _Source:
    """A replica's bytes, with its own store's errors told from those of the store that is written."""

    def __init__(self, source: BinaryIO, read: Callable[[int], None]) -> None:
        self._source = cast(Readable, source)
        self._read = read

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; 0 at the end."""
        try:
            count = self._source.readinto(buffer) or 0
        except LightkeepError as error:
            raise SourceError(error.message, remedy=error.remedy) from error
        self._read(count)
        return count


def split(sought: Sequence[Sought], pace: Pace) -> Iterator[list[Sought]]:
    """Cut into groups."""
    group: list[Sought] = []
    size = 0
    for each in sought:
        if group and (len(group) == pace.files or size + each.file.size > pace.size):
            yield group
            group, size = [], 0
        group.append(each)
        size += each.file.size
    if group:
        yield group


def seek(
    dataset: Dataset,
    station_id: str,
    files: Iterable[File],
    replicas: Mapping[str, Sequence[Replica]],
    *,
    stores: Mapping[str, Store],
    target_id: str,
) -> list[Sought]:
    """Return what a store lacks of some files, with where to read it and the name that it gets there.

    Parameters
    ----------
    replicas: of each file, by its id, in any state.
    """
    sought = []
    for file in files:
        known = replicas.get(file.id, ())
        here = [each for each in known if each.store_id == target_id]
        if any(each.state in LIVE and split_member(each.key) is None for each in here):
            continue
        taken = {each.key for each in here if each.state is not ReplicaState.DELETED}
        key = free_key(f"{station_id}/{dataset.experiment_id}/{dataset.name}/{file.path}", file, taken)
        gone = tuple(each.id for each in here if each.state is ReplicaState.DELETED)
        sought.append(Sought(file, key, sources_of(known, stores=stores), gone))
    return sought


def free_key(key: str, file: File, taken: set[str]) -> str:
    """Return the first name for a file that no other replica of it has: its own, then those of versions.

    A name in use is never given twice: what stands under it may be bad, or on its way out.
    """
    found, number = key, 1
    while found in taken:
        found = version_key(key if number == 1 else f"{number}/{key}", file.sha256)
        number += 1
    return found


def sources_of(replicas: Iterable[Replica], *, stores: Mapping[str, Store]) -> tuple[Replica, ...]:
    """Return the replicas that may be read, the best first: near before tape, then by their state."""

    def rank(replica: Replica) -> tuple[bool, int, str]:
        is_far = stores[replica.store_id].record.tier is Tier.TAPE
        return is_far, READABLE.index(replica.state), replica.id

    return tuple(sorted((each for each in replicas if each.state in LIVE), key=rank))


def is_near(replica: Replica, stores: Mapping[str, Store]) -> bool:
    """Return whether a replica can be read without somebody fetching a tape."""
    return replica.state in LIVE and stores[replica.store_id].record.tier is not Tier.TAPE


def archived(file: File) -> Archived:
    """Return what to say of a file that is in the archive only."""
    return Archived(
        f"{file.path} of dataset {file.dataset_id} is in the archive only",
        remedy=f"bring it near: lightkeep restore {file.dataset_id}",
        dataset_id=file.dataset_id,
    )


def open_source(facility: Facility, replica: Replica) -> BinaryIO:
    """Open a replica whose store is there. Raises NotFound, StoreUnavailable, StorageError."""
    return facility.stores[replica.store_id].open(replica.key)


def expect(replicas: Iterable[Replica], *, stores: Mapping[str, Store]) -> None:
    """Tell the stores which copies will be read soon: a unit on tape comes once for all of its members."""
    keys: dict[str, list[str]] = {}
    for each in replicas:
        keys.setdefault(each.store_id, []).append(each.key)
    for store_id, wanted in keys.items():
        store = stores[store_id]
        if isinstance(store, RecallsUnits):
            store.expect(wanted)


def new_replica(facility: Facility, file: File, store: Store, *, key: str, proof: Proof) -> Replica:
    """Return the row of a copy that was written and read back just now."""
    is_proven = proof is not Proof.UNPROVEN
    now = facility.clock.now()
    return Replica(
        id=facility.ids.new("replica"),
        file_id=file.id,
        store_id=store.record.id,
        key=key,
        state=ReplicaState.VERIFIED if is_proven else ReplicaState.PRESENT,
        verified_at=now if is_proven else None,
        proof=proof,
        created_at=now,
    )


def mark_suspect(
    facility: Facility, bad: Sequence[tuple[Replica, File]], *, principal: Principal = SERVICE
) -> None:
    """Mark replicas that were not what their manifest says, and that counted as good: `verify` decides."""
    for dataset_id in sorted({file.dataset_id for _, file in bad}):
        replicas = [replica for replica, file in bad if file.dataset_id == dataset_id]
        with facility.catalog.change(principal) as tx:
            tx.set_replicas(replicas, state=ReplicaState.SUSPECT, only=GOOD)


def by_file(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    """Return file id -> its replicas."""
    found: dict[str, list[Replica]] = {}
    for replica in replicas:
        found.setdefault(replica.file_id, []).append(replica)
    return found


def keep_document(
    facility: Facility, dataset: Dataset, store: Store, *, principal: Principal, is_news: bool
) -> None:
    """Keep the document of a dataset on a store that holds all of it: a lost catalogue is rebuilt from there.

    Parameters
    ----------
    is_news: False: only when the store has none.
    """
    if not is_news:
        try:
            store.read_record(records.document_name(dataset))
        except NotFound:
            pass
        else:
            return
    with facility.catalog.change(principal) as tx:
        records.write_dataset(facility, tx, dataset, store=store)
