"""Scrub: every copy is read back on a schedule, those first that wait longest, and what is bad is repaired.

One call works for a slice of time, within a limit of bytes per second, on store after store. The schedule is the
catalogue itself: what was read back longest ago is due first, so a call that is killed is continued by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.catalog.copies import Freshness, Held
from lightkeep.lifecycle.replicas.copies import LIVE
from lightkeep.lifecycle.replicas.repair import repair_files
from lightkeep.lifecycle.replicas.verify import Verification
from lightkeep.model.errors import LightkeepError, StoreUnavailable
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.stores import ReplicaState, StoreRecord, Tier, split_member
from lightkeep.storage.units import read_index

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_BATCH: Final = 1000
_SLICE: Final = timedelta(seconds=20)
"""What one tick takes at most, the object that it is reading not counted."""
_BURST: Final = timedelta(seconds=60)
"""How far the reading may run ahead of its average rate: ticks come once a minute."""
_ORDER: Final = (ReplicaState.SUSPECT, ReplicaState.PRESENT, ReplicaState.VERIFIED)
_AGAIN: Final = {
    ReplicaState.SUSPECT: timedelta(hours=1),
    ReplicaState.CORRUPT: timedelta(hours=1),
    ReplicaState.PRESENT: timedelta(days=1),
}
"""How long what a reading left in doubt, or a repair could not mend, waits for the next attempt."""
_OUTAGE: Final = 0.01
_FEW: Final = 10
"""More absent copies in a slice than these, as a part and as a number, mean that the store is not all there."""


@dataclass(slots=True)
class Scrubbed:
    """What a scrub did."""

    checked: int = 0
    """Copies found equal."""
    size: int = 0
    """Bytes read."""
    corrupt: list[str] = field(default_factory=list)
    """Paths with a copy that is absent or differs."""
    suspect: list[str] = field(default_factory=list)
    disputed: list[str] = field(default_factory=list)
    """Paths whose copies agree with each other and not with the manifest: nothing was repaired."""
    repaired: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Paths that are corrupt and could not be repaired now."""
    stopped: dict[str, str] = field(default_factory=dict)
    """Store id -> why it was left: not there, or more of it is absent than files go missing by themselves."""
    is_over: bool = True
    """False: more was due than the slice or the rate allowed."""


@dataclass(slots=True)
class Throttle:
    """A limit on bytes per second, kept by when the bytes so far are paid for.

    Parameters
    ----------
    rate: bytes per second; 0: no limit.
    free_at: when all that was read is paid for.
    """

    rate: float
    free_at: datetime

    def took(self, size: int, *, now: datetime) -> None:
        """Count bytes that were read."""
        if self.rate:
            self.free_at = max(self.free_at, now) + timedelta(seconds=size / self.rate)

    def delay(self, now: datetime) -> timedelta:
        """Return how long to wait before reading on, without any burst."""
        return max(timedelta(0), self.free_at - now)


def scrub(
    facility: Facility,
    *,
    principal: Principal = SERVICE,
    store_ids: Sequence[str] = (),
    rate: float | None = None,
    slice_: timedelta | None = None,
    wait: Callable[[float], None] | None = None,
    repair: bool = True,
    told: Callable[[int], None] = lambda _size: None,
) -> Scrubbed:
    """Read back what is due, for a while.

    Parameters
    ----------
    store_ids: only these stores; all when empty.
    rate: bytes per second and store; the configured one when None, 0 for no limit.
    slice_: stop after so long; None: when nothing is due any more.
    wait: sleeps for some seconds; without it, the call ends where it would have to wait.
    repair: replace what is corrupt by new copies.
    told: called with the bytes of each object read.

    Raises
    ------
    Forbidden: the principal may not manage the facility. NotFound: there is no such store.
    """
    facility.catalog.view(principal).require(Verb.MANAGE)
    records = {record.id: record for record in facility.catalog.view(SERVICE).stores()}
    done = Scrubbed()
    until = None if slice_ is None else facility.clock.now() + slice_
    for store_id in store_ids or sorted(records):
        record = records.get(store_id) or facility.stores[store_id].record
        limit = facility.config.scrub.rate if rate is None else rate
        throttle = Throttle(limit, _free_at(facility, store_id))
        work = _Scrub(facility, principal, record, throttle, until, wait, repair, told, done)
        work.run()
        if throttle.rate and throttle.free_at > facility.clock.now():
            with facility.catalog.change(principal) as tx:
                tx.set_fact(_fact(store_id), throttle.free_at.isoformat())
    return done


def tick(facility: Facility) -> int:
    """Read back a slice of what is due, within the configured rate; return how many copies were looked at."""
    done = scrub(facility, slice_=_SLICE)
    return done.checked + len(done.corrupt) + len(done.suspect) + len(done.disputed)


def freshness(facility: Facility) -> Mapping[str, Freshness]:
    """Return store id -> how old the proofs of its copies are (V2)."""
    view = facility.catalog.view(SERVICE)
    return {record.id: view.freshness(record.id, before=due_before(facility, record)) for record in view.stores()}


def due_before(facility: Facility, record: StoreRecord) -> datetime:
    """Return the time before which a proof on a store is too old."""
    days = facility.config.scrub.tape_days if record.tier is Tier.TAPE else facility.config.scrub.days
    return facility.clock.now() - timedelta(days=days)


@dataclass(slots=True)
class _Scrub:
    """One store's part of a scrub."""

    facility: Facility
    principal: Principal
    record: StoreRecord
    throttle: Throttle
    until: datetime | None
    wait: Callable[[float], None] | None
    repair: bool
    told: Callable[[int], None]
    done: Scrubbed

    def run(self) -> None:
        """Read back what is due until it is over, the time is up, or the store gives cause to stop."""
        try:
            self.facility.stores[self.record.id].check_identity()
        except StoreUnavailable as error:
            self.done.stopped[self.record.id] = error.message
            return
        is_over = all(self._state(state) for state in _ORDER if self._is_time_for(state))
        self.done.is_over &= is_over
        if not self.repair or self.record.id in self.done.stopped:
            return
        if self.done.corrupt or self._is_time_for(ReplicaState.CORRUPT):
            self._repair()

    def _state(self, state: ReplicaState) -> bool:
        """Read back the replicas in one state that are due; False when the time, the rate or the store ended."""
        view = self.facility.catalog.view(SERVICE)
        before = due_before(self.facility, self.record) if state is ReplicaState.VERIFIED else None
        tried: set[str] = set()
        offset = 0
        while found := view.due(self.record.id, state, before=before, limit=_BATCH, offset=offset):
            due = [each for each in found if each.replica.id not in tried]
            if not due:
                offset += len(found)  # they stay as they are: the medium does not give them, or proves nothing
                continue
            if not self._may_go_on():
                return False
            tried.update(each.replica.id for each in due)
            if not self._batch(with_their_units(self.facility, due)):
                return False
        return True

    def _is_time_for(self, state: ReplicaState) -> bool:
        """Return whether a state is looked at now: what stays in doubt is not read minute by minute."""
        if state not in _AGAIN or self.wait is not None:
            return True
        name = f"scrub.{state}.{self.record.id}"
        last = self.facility.catalog.view(SERVICE).fact(name)
        now = self.facility.clock.now()
        if last is not None and now < datetime.fromisoformat(last) + _AGAIN[state]:
            return False
        if self.facility.catalog.view(SERVICE).due(self.record.id, state, before=None, limit=1):
            with self.facility.catalog.change(self.principal) as tx:
                tx.set_fact(name, now.isoformat())
        return True

    def _batch(self, due: Sequence[Held]) -> bool:
        """Read replicas back; False when the time or the rate was used up before the last."""
        work = Verification(self.facility, principal=self.principal, spent=self._spend)
        is_done = True
        for _ in work.check(due):
            if self.record.id in work.unavailable:
                self.done.stopped[self.record.id] = f"store {self.record.id} went away"
                break
            if work.absent > max(_FEW, _OUTAGE * len(due)):
                self._alarm(work.absent)
                break
            if not self._may_go_on():
                is_done = False
                break
        self.done.checked += work.checked
        self.done.size += work.size
        self.done.corrupt += work.corrupt
        self.done.suspect += work.suspect
        self.done.disputed += work.disputed
        return is_done

    def _spend(self, size: int) -> None:
        self.throttle.took(size, now=self.facility.clock.now())
        self.told(size)

    def _may_go_on(self) -> bool:
        now = self.facility.clock.now()
        if self.until is not None and now >= self.until:
            return False
        delay = self.throttle.delay(now)
        if self.wait is None:
            return delay <= _BURST
        if delay:
            self.wait(delay.total_seconds())
        return True

    def _alarm(self, absent: int) -> None:
        why = f"{absent} copies are absent from store {self.record.id}: is all of it mounted?"
        self.done.stopped[self.record.id] = why
        with self.facility.catalog.change(self.principal) as tx:
            tx.record("store.copies_absent", self.record.id, "", {"absent": absent})

    def _repair(self) -> None:
        broken: dict[str, list[str]] = {}
        for each in self.facility.catalog.view(SERVICE).corrupt(self.record.id):
            broken.setdefault(each.file.dataset_id, []).append(each.file.id)
        for dataset_id, file_ids in broken.items():
            try:
                done = repair_files(self.facility, dataset_id, principal=self.principal, file_ids=file_ids)
            except LightkeepError as error:  # of one dataset: the others may be repaired
                self.done.failed.append(f"{dataset_id}: {error.message}")
                continue
            self.done.repaired += done.repaired
            self.done.failed += done.failed


def with_their_units(facility: Facility, due: Sequence[Held]) -> list[Held]:
    """Return the replicas, and with a member of an archive unit all others of it: one reading proves all."""
    known = {each.replica.id: each for each in due}
    units = {(each.replica.store_id, unit[0]) for each in due if (unit := split_member(each.replica.key))}
    for store_id, key in sorted(units):
        try:
            index = read_index(facility.stores[store_id], key)
        except LightkeepError:  # the unit is damaged: its members are read one by one
            continue
        for each in facility.catalog.view(SERVICE).held([member.file_id for member in index.members]):
            unit = split_member(each.replica.key)
            if each.replica.state in LIVE and unit and (each.replica.store_id, unit[0]) == (store_id, key):
                known.setdefault(each.replica.id, each)
    return list(known.values())


def _fact(store_id: str) -> str:
    return f"scrub.free_at.{store_id}"


def _free_at(facility: Facility, store_id: str) -> datetime:
    kept = facility.catalog.view(SERVICE).fact(_fact(store_id))
    return datetime.fromisoformat(kept) if kept else facility.clock.now()
