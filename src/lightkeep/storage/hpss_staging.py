"""The group of parts of a store on HPSS: put under part names, read back, then renamed."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from lightkeep.model.errors import Conflict, Corrupt, LightkeepError, NotFound, SourceError, StorageError
from lightkeep.model.stores import UNITS, Proof, Readable, Replicated, Verified, version_key
from lightkeep.storage.hpss_commands import Entry, Hpss, encode
from lightkeep.storage.keys import INCOMING, split_key


@dataclass(slots=True)
class _Part:
    path: str
    key: str
    sha256: str = ""
    size: int = 0


class HpssStaging:
    """Obeys `lightkeep.model.stores.Staging`; made by `HpssStore.stage` only.

    open -> synced -> verified -> published; any error of the archive's side -> failed.
    """

    def __init__(self, hpss: Hpss, store_id: str, lock: int, *, number: int = 0) -> None:
        self._hpss = hpss
        self._store_id = store_id
        self._lock = lock
        self._number = number
        self._folder = f"{INCOMING}/group-{number}"
        self._state = "open"
        self._parts: dict[str, _Part] = {}
        self._mutex = threading.Lock()
        self._numbers = itertools.count()
        made = hpss.make(self._folder)
        left = [entry.path for entry in made if not entry.is_folder and number == 0]
        remove(hpss, left)

    def beside(self) -> HpssStaging:
        """Open the writer's next group; see the protocol."""
        lock = os.dup(self._lock)
        try:
            return HpssStaging(self._hpss, self._store_id, lock, number=self._number + 1)
        except BaseException:
            os.close(lock)
            raise

    def __enter__(self) -> HpssStaging:
        return self

    def __exit__(self, *exc: object) -> None:
        """Discard what has no final name, and give the store free."""
        try:
            if self._state not in ("publishing", "published", "closed"):
                clear(self._hpss, self._folder)
        finally:
            self._state = "closed"
            os.close(self._lock)

    def write(self, key: str, source: Readable, *, size: int | None) -> Verified:
        """Put one part, straight from the source; see the protocol."""
        self._expect("open")
        split_key(key)
        encode(key)
        with self._mutex:
            part = _Part(f"{self._folder}/{next(self._numbers)}", key)
            if self._parts.setdefault(key, part) is not part:
                raise Conflict(f"the group has a part {key!r} already")
        try:
            part.sha256, part.size = self._hpss.put(part.path, source)
            if size is not None and part.size != size:
                raise SourceError(
                    f"the source of {key!r} gave {part.size} bytes, not the {size} announced",
                    remedy="wait until the file is written, then archive it again",
                )
        except BaseException:
            self.discard(key)
            raise
        return Verified(part.sha256, part.size, Proof.UNPROVEN)

    def discard(self, key: str) -> None:
        """Drop one part; see the protocol."""
        self._expect("open")
        with self._mutex:
            part = self._parts.pop(key)
        remove(self._hpss, [part.path])

    def sync(self) -> None:
        """See that the archive has every part whole: it answers a put when it has stored it."""
        self._expect("open")
        self._state = "failed"
        there = {entry.path: entry.size for entry in self._hpss.ls(self._folder, options="-lR")}
        for part in self._parts.values():
            if there.get(part.path) != part.size:
                raise StorageError(
                    f"HPSS keeps {there.get(part.path, 'nothing')} of the {part.size} bytes of {part.key!r}",
                    remedy="archive the group again from its source",
                )
        self._state = "synced"

    def verify(self) -> None:
        """Read every part back from the archive; see the protocol."""
        self._expect("synced")
        self._state = "failed"
        for part in self._parts.values():
            if read_back(self._hpss, part.path, part.size) != part.sha256:
                raise Corrupt(
                    f"{part.key!r} came back from store {self._store_id} as other bytes than were put",
                    remedy="ask the archive's operators; nothing of this group was kept, the source is untouched",
                )
        self._state = "verified"

    def publish(self) -> Sequence[Replicated]:
        """Give every part its final name; see the protocol."""
        self._expect("verified")
        self._state = "publishing"
        moves, results, taken = [], [], self._standing()
        for part in self._parts.values():
            result, path = self._place(part, taken)
            results.append(result)
            if not result.was_adopted:
                moves.append((part.path, path))
                taken |= {path: Entry(path, part.size, False)} | _folders(path)
        if moves:
            self._hpss.move(moves)
        for result in results:
            if self._hpss.place.htar and result.key.startswith(UNITS) and result.key.endswith(".tar"):
                self._hpss.index(encode(result.key))
        clear(self._hpss, self._folder)
        self._state = "published"
        return results

    def _standing(self) -> dict[str, Entry]:
        """What stands at the names that the group may want, or on the way to them."""
        wanted: set[str] = set()
        for part in self._parts.values():
            for key in (part.key, version_key(part.key, part.sha256)):
                names = encode(key).split("/")
                wanted |= {"/".join(names[:depth]) for depth in range(1, len(names) + 1)}
        return {entry.path: entry for entry in self._hpss.ls(*sorted(wanted), options="-ld")}

    def _place(self, part: _Part, taken: dict[str, Entry]) -> tuple[Replicated, str]:
        for key in (part.key, version_key(part.key, part.sha256)):
            path = encode(key)
            names = path.split("/")
            above = ["/".join(names[:depth]) for depth in range(1, len(names))]
            if any(folder in taken and not taken[folder].is_folder for folder in above):
                continue  # the path leads through a file
            standing = taken.get(path)
            if standing is None:
                return Replicated(key, part.sha256, part.size, Proof.DIRECT, asked=part.key), path
            if standing.is_folder or standing.size != part.size:
                continue
            if read_back(self._hpss, path, part.size) == part.sha256:
                adopted = Replicated(key, part.sha256, part.size, Proof.DIRECT, was_adopted=True, asked=part.key)
                return adopted, path
        raise Conflict(
            f"{part.key!r} and its version's name are taken by other content on store {self._store_id}",
            remedy="run `lightkeep doctor`; nothing was replaced",
        )

    def _expect(self, state: str) -> None:
        if self._state != state:
            raise StorageError(
                f"the group on store {self._store_id} is {self._state}, not {state}",
                remedy="nothing of it counts: copy the whole group again from its source",
            )


def _folders(path: str) -> dict[str, Entry]:
    names = path.split("/")
    above = ["/".join(names[:depth]) for depth in range(1, len(names))]
    return {folder: Entry(folder, 0, True) for folder in above}


def read_back(hpss: Hpss, path: str, size: int) -> str:
    """Read an object whole and return its SHA-256. Raises NotFound or StorageError."""
    digest = hashlib.sha256()
    hpss.get(path, digest.update, size=size)
    return digest.hexdigest()


def clear(hpss: Hpss, folder: str) -> None:
    """Remove the parts of a group: nothing that is not below `.incoming`."""
    if not folder.startswith(f"{INCOMING}/"):
        raise ValueError(folder)
    entries = [entry for entry in hpss.ls(folder, options="-lR") if entry.path.startswith(f"{folder}/")]
    remove(hpss, [entry.path for entry in entries if not entry.is_folder])


def remove(hpss: Hpss, paths: Sequence[str]) -> None:
    """Remove objects; one that is not there is no error."""
    for path in paths:
        try:
            hpss.run(f"rm {hpss.full(path)}")
        except NotFound:
            continue
        except LightkeepError as error:
            raise StorageError(error.message, remedy="repeat; a part that is left is cleared by then") from error
