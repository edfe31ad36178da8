"""A tape archive under HPSS as a store, through its commands `hsi` and `htar`.

    <root>/.lightkeep-store-<uuid>   who this store is: by its name, so that no tape is mounted to ask
    <root>/.incoming/group-0/        parts being put: cleared by the next writer
    <root>/units/<unit>.tar          objects, under their keys; odd characters as %XX
    <root>/.trash/<bin>/<key>        objects on their way out
    <root>/.lightkeep/records/       <name>~<number>: the highest number counts

An object is put under a part name, read back whole, and only then renamed: a put that dies half-way leaves nothing
under a final name. HPSS has no rename that refuses to replace, so that the writer's lock has to suffice: one
machine writes to a store (the lock is a file there), any number read.

Opening an object recalls it to this machine. Who wants several members of a unit says so with `expect`: the unit
comes once, and is kept in the spool for a while. Unannounced, the second member of a unit brings all of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final

from lightkeep.model.clock import Ids
from lightkeep.model.errors import Conflict, NotFound, StorageError, StoreUnavailable
from lightkeep.model.stores import ObjectStat, Proof, Staging, StoreRecord, Tier, Verified, split_member
from lightkeep.storage.hpss_commands import Entry, Hpss, Place, decode, encode, spool
from lightkeep.storage.hpss_recall import Recalls
from lightkeep.storage.hpss_staging import HpssStaging, read_back, remove
from lightkeep.storage.keys import (
    IDENTITY,
    INCOMING,
    OWN,
    RECORDS,
    RESERVED,
    TRASH,
    split_key,
    split_record,
    split_trashed,
    trash_name,
)
from lightkeep.storage.members import open_member
from lightkeep.storage.seekable_zstd import COMPRESSED
from lightkeep.storage.unit_index import UnitIndex, index_key

_POLL_S: Final = 0.05
_HTAR_INDEX: Final = ".tar.idx"
"""What htar keeps beside a tar: derived from it, and no object of ours."""
_RECORD: Final = re.compile(r"(.*)~(\d+)")


class HpssStore:
    """A folder on HPSS as a store; obeys `lightkeep.model.stores.Store`.

    Parameters
    ----------
    record: what the catalogue knows; `location` is `/path/on/the/archive?option=value` (see `Place`).
    """

    def __init__(self, record: StoreRecord) -> None:
        self.record = record
        self.hpss = Hpss(Place.parse(record.location), record.id)
        self._recalls = Recalls(self.hpss)
        self._indexes: dict[str, UnitIndex] = {}

    @classmethod
    def initialise(
        cls,
        location: str,
        id: str,  # noqa: A002
        *,
        ids: Ids,
        tier: Tier = Tier.TAPE,
        failure_domain: str = "",
    ) -> StoreRecord:
        """Make a folder on HPSS into a store and return its record; one that is a store keeps its identity.

        Raises Conflict when it holds other things, StorageError when it cannot be made, ConfigError for a location
        that is none.
        """
        place = Place.parse(location)
        hpss = Hpss(place, id)
        hpss.run(f"mkdir -p {place.root}/{INCOMING}")
        names = {entry.path.partition("/")[0] for entry in hpss.ls("", options="-lR")}
        uuid = _identity(names)
        if not uuid:
            if others := sorted(names - {INCOMING}):
                raise Conflict(f"{place.root} is not empty: it holds {others[0]!r}", remedy="name an empty folder")
            uuid = ids.new("store")
            hpss.put(f"{INCOMING}/marker", _Bytes(json.dumps({"lightkeep_store": 1, "uuid": uuid}).encode()))
            hpss.move([(f"{INCOMING}/marker", IDENTITY + uuid)])
        return StoreRecord(
            id, "hpss", location, uuid, tier=tier, failure_domain=failure_domain or uuid, is_durable=True
        )

    def check_identity(self) -> None:
        """Raise StoreUnavailable unless the archive itself says that it is this store."""
        if self.hpss.find(IDENTITY + self.record.uuid) is not None:
            return
        found = _identity({entry.path for entry in self.hpss.ls("", options="-l")})
        what = f"is another store ({found})" if found else "carries no store marker"
        raise StoreUnavailable(
            f"{self.hpss.place.root} {what}, not {self.record.id} ({self.record.uuid})",
            remedy="correct the location of the store, or ask the archive's operators",
        )

    def stage(self, *, wait_s: float = 0.0) -> Staging:
        """Open a group of parts, holding the lock of this machine; see the protocol."""
        self.check_identity()
        lock = os.open(
            spool(self.hpss.place) / f"{self.record.uuid}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            self._hold(lock, wait_s)
            return HpssStaging(self.hpss, self.record.id, lock)
        except BaseException:
            os.close(lock)
            raise

    def _hold(self, lock: int, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise Conflict(
                        f"store {self.record.id} is being written by another process",
                        remedy="wait until it is done, then try again",
                    ) from error
            time.sleep(_POLL_S)

    # ---- reading

    def open(self, key: str) -> BinaryIO:
        """Recall an object, or one member, to this machine and open it; see the protocol."""
        if member := split_member(key):
            return self._open_member(key, *member)
        return self._recalls.whole(self._entry(key))

    def expect(self, keys: Iterable[str]) -> None:
        """Say which objects will be opened soon; see `model.stores.RecallsUnits`."""
        units = Counter(member[0] for key in keys if (member := split_member(key)))
        self._recalls.expect(encode(unit) for unit, count in units.items() if count > 1)

    def stat(self, key: str) -> ObjectStat:
        """Size of an object, without a recall; see the protocol."""
        if member := split_member(key):
            entry = self._entry(member[0])
            if member[0].endswith(COMPRESSED):
                self.open(key).close()
            elif member[1] + member[2] > entry.size:
                raise self._absent(key)
            return ObjectStat(key, member[2])
        return ObjectStat(key, self._entry(key).size)

    def verify(self, key: str) -> Verified:
        """Read a whole object from the archive and hash it; see the protocol."""
        if split_member(key):
            digest, size = hashlib.sha256(), 0
            with self.open(key) as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    size += len(block)
            return Verified(digest.hexdigest(), size, Proof.DIRECT)
        entry = self._entry(key)
        return Verified(read_back(self.hpss, entry.path, entry.size), entry.size, Proof.DIRECT)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Every published object below a prefix, in the order of keys; see the protocol."""
        self.check_identity()
        for key, size in self._below("", prefix):
            top = key.partition("/")[0]
            if top not in RESERVED and not top.startswith(IDENTITY) and not key.endswith(_HTAR_INDEX):
                yield ObjectStat(key, size)

    def free_bytes(self) -> int | None:
        """None: an archive does not say."""
        self.check_identity()
        return None

    def _open_member(self, key: str, unit: str, offset: int, size: int) -> BinaryIO:
        entry = self._entry(unit)
        is_compressed = unit.endswith(COMPRESSED)
        if not is_compressed and offset + size > entry.size:
            raise self._absent(key)
        is_alone = self.hpss.place.htar and not is_compressed and not self._recalls.is_expected(entry.path)
        if is_alone and (file := self._extracted(key, unit, entry.path)):
            return file
        whole = self._recalls.unit(entry, must=is_compressed)
        return self._recalls.range(entry, start=offset, size=size) if whole is None else open_member(whole, key)

    def _extracted(self, key: str, unit: str, path: str) -> BinaryIO | None:
        """Take a member out with htar; None where htar, or the unit's index, does not know it."""
        if unit not in self._indexes:
            try:
                with self.open(index_key(unit)) as file:
                    self._indexes[unit] = UnitIndex.from_json(file.read())
            except NotFound:
                return None
        index = self._indexes[unit]
        member = next((each for each in index.members if index.key_of(each) == key), None)
        if member is None:
            return None
        with tempfile.TemporaryDirectory(dir=spool(self.hpss.place)) as folder:
            name = f"{index.id}/{member.name}"
            place = os.path.join(folder, name)
            if self.hpss.extract(path, name, folder) and os.path.isfile(place):
                return open(place, "rb") if os.path.getsize(place) == member.size else None
        return None

    def _entry(self, key: str) -> Entry:
        split_key(key)
        entry = self.hpss.find(encode(key))
        if entry is None or entry.is_folder:
            raise self._absent(key)
        return entry

    def _below(self, folder: str, prefix: str) -> Sequence[tuple[str, int]]:
        """Return (key, size) of the objects below a folder whose key begins with prefix, in the order of keys."""
        entries = self.hpss.ls(folder, options="-lR")
        keys = {decode(entry.path): entry.size for entry in entries if not entry.is_folder}
        found = [(key, size) for key, size in keys.items() if key.startswith(prefix)]
        return sorted(found, key=lambda pair: os.fsencode(pair[0]))

    def _absent(self, key: str) -> NotFound:
        self.check_identity()
        return NotFound(f"no object {key!r} on store {self.record.id}", remedy="run `lightkeep doctor`")

    # ---- the trash

    def trash(self, key: str, *, bin: str, size: int) -> str:  # noqa: A002
        """Move an object into the trash; see the protocol."""
        split_key(key)
        target = trash_name(bin, key)
        self.check_identity()
        self._move(key, target, size=size)
        if self.hpss.place.htar and key.endswith(".tar"):
            remove(self.hpss, [f"{encode(key)}.idx"])
        return target

    def recover(self, trashed: str, key: str) -> None:
        """Move an object back to its key; see the protocol."""
        split_trashed(trashed)
        split_key(key)
        self.check_identity()
        self._move(trashed, key, size=None)

    def _move(self, source: str, target: str, *, size: int | None) -> None:
        old, new = encode(source), encode(target)
        names = new.split("/")
        way = ["/".join(names[:depth]) for depth in range(1, len(names))]
        there = {entry.path: entry for entry in self.hpss.ls(old, new, *way, options="-ld")}
        standing, moved = there.get(old), there.get(new)
        if standing is None and moved is None:
            raise NotFound(f"no object {source!r} on store {self.record.id}", remedy="run `lightkeep doctor`")
        for each in (standing, moved):
            if size is not None and each is not None and each.size != size:
                raise Conflict(
                    f"{source!r} has {each.size} bytes, not {size}: it was not moved", remedy="verify it"
                )
        if standing is None:
            return
        is_same = moved is not None and size is None and self._are_equal(standing, moved)
        if (moved is not None and not is_same) or any(f in there and not there[f].is_folder for f in way):
            raise Conflict(f"{target!r} is taken: {source!r} was not moved", remedy="run `lightkeep doctor`")
        if moved is None:
            self.hpss.move([(old, new)])

    def _are_equal(self, one: Entry, other: Entry) -> bool:
        if one.is_folder or other.is_folder or one.size != other.size:
            return False
        return read_back(self.hpss, one.path, one.size) == read_back(self.hpss, other.path, other.size)

    def destroy(self, trashed: str) -> None:
        """Remove an object of the trash; see the protocol."""
        split_trashed(trashed)
        self.check_identity()
        path = encode(trashed)
        entry = self.hpss.find(path)
        if entry is not None and not entry.is_folder:
            remove(self.hpss, [path])

    def trashed(self, bin: str = "") -> Iterator[ObjectStat]:  # noqa: A002
        """Every object in the trash; see the protocol."""
        self.check_identity()
        folder = f"{TRASH}/{bin}" if bin else TRASH
        for key, size in self._below(encode(folder), f"{folder}/"):
            yield ObjectStat(key, size)

    # ---- records

    def write_record(self, name: str, content: bytes) -> None:
        """Keep a small document under the next number of its name, then drop the older ones; see the protocol."""
        record = RECORDS + encode("/".join(split_record(name)))
        self.check_identity()
        with self._record_lock():
            older = self._numbers(record)
            part = f"{OWN}/record.new"
            remove(self.hpss, [part])
            self.hpss.run(f"mkdir -p {self.hpss.full(OWN)}")
            sha256, size = self.hpss.put(part, _Bytes(content))
            if read_back(self.hpss, part, size) != sha256:
                raise StorageError(f"record {name!r} came back as other bytes", remedy="repeat")
            self.hpss.move([(part, f"{record}~{max(older, default=0) + 1}")])
            remove(self.hpss, [f"{record}~{number}" for number in older])

    def read_record(self, name: str) -> bytes:
        """Return a record; see the protocol."""
        record = RECORDS + encode("/".join(split_record(name)))
        numbers = self._numbers(record)
        if not numbers:
            self.check_identity()
            raise NotFound(f"no record {name!r} on store {self.record.id}")
        number = max(numbers)
        with self._recalls.whole(Entry(f"{record}~{number}", numbers[number], False)) as file:
            return file.read()

    def records(self, prefix: str = "") -> Iterator[str]:
        """Names of records; see the protocol."""
        self.check_identity()
        names = {
            decode(found[1]).removeprefix(RECORDS)
            for entry in self.hpss.ls(RECORDS.rstrip("/"), options="-lR")
            if not entry.is_folder and (found := _RECORD.fullmatch(entry.path))
        }
        yield from sorted((name for name in names if name.startswith(prefix)), key=os.fsencode)

    def _numbers(self, record: str) -> dict[int, int]:
        """Return number -> bytes of what is kept of a record."""
        kept: dict[int, int] = {}
        for entry in self.hpss.ls(record.rpartition("/")[0], options="-lR"):
            found = _RECORD.fullmatch(entry.path)
            if found and found[1] == record:
                kept[int(found[2])] = entry.size
        return kept

    @contextlib.contextmanager
    def _record_lock(self) -> Iterator[None]:
        path = spool(self.hpss.place) / f"{self.record.uuid}.records"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._hold(lock, self.hpss.place.deadline_s)
            yield
        finally:
            os.close(lock)


class _Bytes:
    """A document as a source."""

    def __init__(self, content: bytes) -> None:
        self._left = memoryview(content)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer."""
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _identity(names: set[str]) -> str:
    """Return the uuid that a marker among some names has; "" without one."""
    return next((name.removeprefix(IDENTITY) for name in sorted(names) if name.startswith(IDENTITY)), "")
