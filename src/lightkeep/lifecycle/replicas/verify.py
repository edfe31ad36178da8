"""Read bytes back from their stores, past the cache, and compare them with the manifest.

    verified ──differs──> suspect ──read again: equal──> verified
                             └──────read again: differs──> corrupt

Nothing is repaired or deleted here: a replica that differs twice is marked corrupt, at once, and everybody can see
it. Where copies on two stores have the same other content and none has the manifest's, the manifest itself is in
doubt: they stay suspect, and nobody repairs anything (invariants V1, V3, V4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

from lightkeep.catalog.copies import Held
from lightkeep.lifecycle.replicas.copies import GOOD, LIVE
from lightkeep.model.errors import Corrupt, NotFound, StorageError, StoreUnavailable
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.stores import Proof, Replica, ReplicaState, Verified, split_member
from lightkeep.model.techniques import Report

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_GROUP: Final = 1000  # replicas whose outcome is written in one transaction
_GROUP_BYTES: Final = 256 << 20
"""Bytes read after which it is written: a good outcome is lost by a kill, no more."""
_WHOLE: Final = 0.5
"""Part of a unit's bytes from which on reading all of it in one go is cheaper than member by member."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification found."""

    checked: int
    """Replicas read in full and found equal."""
    corrupt: tuple[str, ...] = ()
    """Paths with a replica that is absent, or differs from the manifest."""
    suspect: tuple[str, ...] = ()
    """Paths with a replica that the medium could not read this time; verify again decides."""
    unproven: tuple[str, ...] = ()
    """Paths found equal where the bytes may have come from this machine's memory: not counted as verified."""
    unavailable: tuple[str, ...] = ()
    """Stores that could not be asked: nothing is known, nothing is marked."""
    disputed: tuple[str, ...] = ()
    """Paths whose copies on two or more stores agree with each other, and not with the manifest."""
    repaired: tuple[str, ...] = ()
    """Paths of which a new copy replaces one that is corrupt."""


def verify(
    facility: Facility,
    dataset_id: str,
    *,
    principal: Principal,
    repair: bool = False,
    report: Report | None = None,
) -> VerifyReport:
    """Re-read each replica of a dataset and record when that was, and what it proved (invariants V1, V3).

    Parameters
    ----------
    repair: afterwards replace what is corrupt by new copies; see `lifecycle.replicas.repair`.

    Raises
    ------
    NotFound, Forbidden: the principal may not see or read the dataset, or, to repair, not manage it.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE if repair else Verb.READ, dataset_id=dataset_id)
    dataset = view.dataset(dataset_id)
    held = facility.catalog.view(SERVICE).held_of(dataset_id)
    work = Verification(facility, principal=principal)
    total = sum(each.file.size for each in held if each.replica.state in LIVE) or 1
    for _ in work.check([each for each in held if each.replica.state in LIVE]):
        if report is not None:
            report(min(1.0, work.size / total), f"{work.size / 1e6:,.0f} of {total / 1e6:,.0f} MB read back")
    repaired: Sequence[str] = ()
    if repair:
        from lightkeep.lifecycle.replicas.repair import repair_files

        repaired = repair_files(facility, dataset.id, principal=principal).repaired
    return work.report(repaired)


@dataclass(frozen=True, slots=True)
class _Look:
    """What one reading of a replica told."""

    state: ReplicaState
    """Verified; suspect: the medium could not read it; corrupt: absent, or other bytes; present: nothing new."""
    proof: Proof
    found: tuple[str, int] | None = None
    """SHA-256 and length of other bytes."""
    is_absent: bool = False


@dataclass(slots=True)
class Verification:
    """Reads replicas back and writes down what was found.

    Raises StoreUnavailable never: a store that is not there is left alone.
    """

    facility: Facility
    principal: Principal
    spent: Callable[[int], None] = lambda _size: None
    """Called after each replica, or unit, with the bytes that were read."""
    checked: int = 0
    size: int = 0
    """Bytes read."""
    absent: int = 0
    """Replicas that were not on their store."""
    corrupt: list[str] = field(default_factory=list)
    suspect: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    disputed: list[str] = field(default_factory=list)
    unavailable: set[str] = field(default_factory=set)
    corrupted: list[Held] = field(default_factory=list)
    """What became corrupt: what `repair` takes up."""
    _good: list[tuple[Held, Proof]] = field(default_factory=list)
    _good_bytes: int = 0
    _judged: set[str] = field(default_factory=set)
    """Replicas that were read together with a bad one of the same file."""

    def report(self, repaired: Iterable[str] = ()) -> VerifyReport:
        """Return what was found."""
        return VerifyReport(
            self.checked,
            tuple(self.corrupt),
            tuple(self.suspect),
            tuple(self.unproven),
            tuple(sorted(self.unavailable)),
            tuple(self.disputed),
            tuple(repaired),
        )

    def check(self, held: Sequence[Held]) -> Iterator[int]:
        """Read replicas back, one after the other; yield after each, or each unit, how many these were.

        What is good is written in groups, what is bad at once. Leaving the iteration early keeps all of it.
        """
        try:
            for (store_id, unit), group in groupby(sorted(held, key=_unit_last), key=_unit_of):
                members = list(group)
                if unit and self._unit_is_whole(store_id, unit, members):
                    yield len(members)
                    continue
                for each in members:
                    if each.replica.id not in self._judged:
                        self._one(each)
                    yield 1
        finally:
            self._flush()

    # ---- one replica

    def _one(self, held: Held) -> None:
        look = self._look(held)
        if look.state is ReplicaState.CORRUPT:
            self._judge(held, look)
        elif look.state is ReplicaState.SUSPECT:
            self.suspect.append(held.file.path)
            self._mark([held], ReplicaState.SUSPECT)
        elif look.state is ReplicaState.VERIFIED:
            self._keep_good(held, look.proof)

    def _look(self, held: Held) -> _Look:
        """Read a replica, and once more when it was not right."""
        look = self._read(held)
        if look.state in (ReplicaState.CORRUPT, ReplicaState.SUSPECT):
            self._mark([held], ReplicaState.SUSPECT)
            look = self._read(held)
        return look

    def _read(self, held: Held) -> _Look:
        replica, file = held.replica, held.file
        try:
            store = self.facility.stores[replica.store_id]
            store.check_identity()
            found = store.verify(replica.key)
        except StoreUnavailable:
            self.unavailable.add(replica.store_id)
            return _Look(ReplicaState.PRESENT, replica.proof)
        except NotFound:
            return _Look(ReplicaState.CORRUPT, Proof.DIRECT, is_absent=True)
        except Corrupt:  # a compressed unit that cannot be unpacked there
            return _Look(ReplicaState.CORRUPT, Proof.DIRECT)
        except StorageError:
            return _Look(ReplicaState.SUSPECT, Proof.UNPROVEN)
        self._spend(found.size)
        if (found.sha256, found.size) != (file.sha256, file.size):
            return _Look(ReplicaState.CORRUPT, found.proof, (found.sha256, found.size))
        return self._equal(held, found)

    def _equal(self, held: Held, found: Verified) -> _Look:
        self.checked += 1
        if found.proof is Proof.UNPROVEN:
            self.unproven.append(held.file.path)
            return _Look(ReplicaState.PRESENT, found.proof)
        return _Look(ReplicaState.VERIFIED, found.proof)

    def _spend(self, size: int) -> None:
        self.size += size
        self.spent(size)

    # ---- a bad one

    def _judge(self, bad: Held, look: _Look) -> None:
        """Say which replicas of a file are corrupt, after all of them were read; or that the manifest is."""
        others = self.facility.catalog.view(SERVICE).held([bad.file.id])
        others = [each for each in others if each.replica.state in LIVE and each.replica.id != bad.replica.id]
        looks = [(bad, look), *((each, self._look(each)) for each in others)]
        self._judged.update(each.replica.id for each, _ in looks)
        wrong = [(each, found) for each, found in looks if found.state is ReplicaState.CORRUPT]
        for each, found in looks:
            if found.state is ReplicaState.VERIFIED:
                self._keep_good(each, found.proof)
            elif found.state is ReplicaState.SUSPECT:
                self.suspect.append(each.file.path)
        is_known_good = any(found.state is ReplicaState.VERIFIED for _, found in looks)
        if not is_known_good and self._agree(wrong):
            self._dispute(bad, wrong)
            return
        for each, found in wrong:
            self.absent += found.is_absent
            self.corrupt.append(each.file.path)
            self.corrupted.append(each)
            self._mark([each], ReplicaState.CORRUPT, found.proof)

    def _agree(self, wrong: Sequence[tuple[Held, _Look]]) -> bool:
        """Return whether stores that fail apart hold the same other content (V4)."""
        homes: dict[tuple[str, int], set[str]] = {}
        for each, look in wrong:
            if look.found is not None:
                homes.setdefault(look.found, set()).add(each.replica.store_id)
        return any(len(stores) > 1 for stores in homes.values())

    def _dispute(self, bad: Held, wrong: Sequence[tuple[Held, _Look]]) -> None:
        self.disputed.append(bad.file.path)
        detail = {
            "path": bad.file.path,
            "sha256": bad.file.sha256,
            "found": {each.replica.store_id: look.found[0] for each, look in wrong if look.found},
        }
        with self.facility.catalog.change(self.principal) as tx:
            tx.record("file.disputed", bad.file.dataset_id, bad.experiment_id, detail)

    # ---- a unit at once

    def _unit_is_whole(self, store_id: str, unit: str, members: Sequence[Held]) -> bool:
        """Prove all of a unit's members that were asked for with one reading of the unit, when that is cheaper.

        False when it is not, or when the unit is not what it was: then each member is read on its own.
        """
        try:
            known = self.facility.catalog.view(SERVICE).unit_at(store_id, unit)
            if sum(each.file.size for each in members) < _WHOLE * known.content_size:
                return False
            store = self.facility.stores[store_id]
            store.check_identity()
            found = store.verify(unit)
        except StoreUnavailable:
            self.unavailable.add(store_id)
            return True
        except (NotFound, StorageError):
            return False
        self._spend(found.size)
        if (found.sha256, found.size) != (known.sha256, known.size):
            return False
        for each in members:
            if self._equal(each, found).state is ReplicaState.VERIFIED:
                self._keep_good(each, found.proof)
        return True

    # ---- writing it down

    def _keep_good(self, held: Held, proof: Proof) -> None:
        self._good.append((held, proof))
        self._good_bytes += held.file.size
        if len(self._good) >= _GROUP or self._good_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        good, self._good, self._good_bytes = self._good, [], 0
        if not good:
            return
        now = self.facility.clock.now()
        groups: dict[tuple[str, Proof], list[Replica]] = {}
        for held, proof in good:
            groups.setdefault((held.file.dataset_id, proof), []).append(held.replica)
        with self.facility.catalog.change(self.principal) as tx:
            for (_, proof), replicas in groups.items():
                tx.set_replicas(replicas, state=ReplicaState.VERIFIED, verified_at=now, proof=proof, only=LIVE)

    def _mark(self, held: Sequence[Held], state: ReplicaState, proof: Proof | None = None) -> None:
        only = LIVE if state is ReplicaState.CORRUPT else GOOD
        with self.facility.catalog.change(self.principal) as tx:
            tx.set_replicas([each.replica for each in held], state=state, proof=proof, only=only)


def _unit_of(held: Held) -> tuple[str, str]:
    member = split_member(held.replica.key)
    return (held.replica.store_id, member[0]) if member else ("", "")


def _unit_last(held: Held) -> tuple[str, str, int]:
    """Members of a unit next to each other, in the order in which they lie; other replicas as they come."""
    member = split_member(held.replica.key)
    return (held.replica.store_id, member[0], member[1]) if member else ("", "", 0)
