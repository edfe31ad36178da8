"""Killed before or after any step of a run, an undo or a destruction: started again, nothing is lost."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from lightkeep.catalog import Catalog
from lightkeep.facility import Facility
from lightkeep.lifecycle.retention import purge, purge_plan
from lightkeep.lifecycle.retention.purge_destroy import destroy
from lightkeep.lifecycle.retention.purger import LENGTH
from lightkeep.model.errors import Conflict, NotFound
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import ItemState
from lightkeep.model.stores import ReplicaState, split_member
from lightkeep.testing.retained import ADMIN, MANAGER, PI, Retained
from lightkeep.testing.stores import CRASH, POWER, Crashed, Fault, FaultyStore


class CrashingCatalog:
    """A catalogue whose user dies at the n-th commit: just before it, or just after."""

    def __init__(self, catalog: Catalog, *, at: int, after: bool) -> None:
        self._catalog = catalog
        self._at = at
        self._after = after
        self.commits = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._catalog, name)

    @contextmanager
    def change(self, principal: Principal) -> Iterator[object]:
        with self._catalog.change(principal) as tx:
            yield tx
            self.commits += 1
            if self.commits == self._at and not self._after:
                raise Crashed
        if self.commits == self._at:
            raise Crashed


@dataclass
class Scene:
    """A facility as it stands before the verb, to be had again and again."""

    kept: Retained
    folder: Path
    plan_id: str
    store: str
    count: int = 0

    def again(self) -> Retained:
        """Return it anew: the same catalogue, the same media."""
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        shutil.copy(self.folder / "catalog.db", folder)
        media = {name: copy.deepcopy(_without_lock(medium)) for name, medium in self.kept.media.items()}
        clock = copy.copy(self.kept.clock)
        catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}", clock=clock, ids=self.kept.facility.ids)
        stores = {}
        for name, medium in media.items():
            stores[name] = FaultyStore(medium, id=name)
            stores[name].record = self.kept.facility.stores[name].record
        facility = replace(self.kept.facility, catalog=catalog, stores=stores, clock=clock)
        return Retained(facility, clock, media, self.kept.datasets)


def _without_lock(medium: object) -> object:
    import threading

    made = copy.copy(medium)
    made.lock = threading.RLock()
    return _Copied(made)


class _Copied:
    """Copies a medium deeply, but for its lock."""

    def __init__(self, medium: object) -> None:
        self.medium = medium

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        lock = self.medium.lock
        memo[id(lock)] = lock
        return copy.deepcopy(self.medium, memo)


def run(facility: Facility, plan_id: str) -> None:
    purge.run(facility, plan_id, principal=ADMIN)


def undo(facility: Facility, plan_id: str) -> None:
    purge.undo(facility, plan_id, principal=PI)


def empty(facility: Facility, plan_id: str) -> None:
    destroy(facility, principal=ADMIN, plan_id=plan_id)


@pytest.fixture(params=["run", "undo", "empty"])
def verb(request: pytest.FixtureRequest) -> Callable[[Facility, str], None]:
    return globals()[request.param]


@pytest.fixture(params=["central", "second"], ids=["files", "a unit"])
def scene(request: pytest.FixtureRequest, verb, new_kept, new_packed, tmp_path: Path) -> Scene:
    store = request.param
    kept = new_packed() if store == "second" else new_kept()
    plan = purge_plan.plan(kept.facility, store, principal=ADMIN)
    purge_plan.approve(kept.facility, plan.id, principal=MANAGER)
    if verb is not run:
        run(kept.facility, plan.id)
    if verb is empty:
        kept.clock.at += timedelta(days=14)
        kept.verified()
        kept.trust_clock()
    kept.facility.close()
    shutil.copy(kept.facility.config.root / "catalog.db", tmp_path)
    return Scene(kept, tmp_path, plan.id, store)


def settle(kept: Retained, verb: Callable[[Facility, str], None], plan_id: str) -> None:
    """Begin again as a new process, after the dead one's lease has run out."""
    kept.restart()
    kept.clock.at += LENGTH + timedelta(minutes=1)
    purge.recover(kept.facility)
    try:
        verb(kept.facility, plan_id)
    except (Conflict, NotFound):  # it had got to its end before it died
        return


def check(kept: Retained, plan_id: str, store: str, contents: set[str]) -> list[str]:
    """Nothing that the catalogue calls verified is absent, nothing is left half done; return the items' states."""
    facility = kept.facility
    view = facility.catalog.view(SERVICE)
    there = {key for key, _ in kept.media[store].objects()}
    for dataset in kept.datasets.values():
        for replica in view.replicas(dataset.id):
            if replica.store_id != store:
                continue
            unit = split_member(replica.key)
            key = unit[0] if unit else replica.key
            if replica.state is ReplicaState.VERIFIED:
                assert key in there
            if replica.state is ReplicaState.DELETED:
                assert key not in there
    assert not view.items_to_finish()
    in_trash = {item.trash_key for item in view.items_in_trash()}
    assert in_trash == {key for key in there if key.startswith(".trash")}
    assert kept.bytes_on("vault") == contents
    assert not facility.catalog.verify_events()
    return sorted({item.state.value for item in view.plan_items(plan_id)})


ENDS = {"run": ["trashed"], "undo": ["undone"], "empty": ["destroyed"]}


@pytest.mark.fault
def test_killed_at_any_operation_of_the_store(scene, verb, figure):
    made = scene
    killed = 0
    for kind in (CRASH, POWER):
        for when in range(1, 100):
            kept = made.again()
            contents = kept.bytes_on("vault")
            medium = kept.media[made.store]
            medium.faults = [Fault("", kind, when=medium.counts[""] + when)]
            try:
                verb(kept.facility, made.plan_id)
            except Crashed:
                killed += 1
                settle(kept, verb, made.plan_id)
                assert check(kept, made.plan_id, made.store, contents) == ENDS[verb.__name__], (kind, when)
                kept.facility.close()
            else:
                kept.facility.close()
                break
    assert killed >= (12 if made.store == "central" else 4)
    figure(
        "F3",
        injected=f"{verb.__name__}: killed, and power cut, at every store operation",
        found=f"{killed} points, 0 lost, 0 not converged",
    )


@pytest.mark.fault
def test_killed_before_and_after_any_commit(scene, verb, figure):
    made = scene
    killed = 0
    for after in (False, True):
        for at in range(1, 100):
            kept = made.again()
            contents = kept.bytes_on("vault")
            crashing = replace(kept.facility, catalog=CrashingCatalog(kept.facility.catalog, at=at, after=after))
            try:
                verb(crashing, made.plan_id)
            except Crashed:
                killed += 1
                settle(kept, verb, made.plan_id)
                assert check(kept, made.plan_id, made.store, contents) == ENDS[verb.__name__], (at, after)
                kept.facility.close()
            else:
                kept.facility.close()
                break
    assert killed >= (14 if made.store == "central" else 8)
    figure(
        "F1",
        injected=f"{verb.__name__}: killed before and after every commit",
        found=f"{killed} points, 0 lost, 0 not converged",
    )


def test_a_crash_and_then_a_hold_brings_the_bytes_back(new_kept):
    from lightkeep.lifecycle.retention import holds

    kept = new_kept()
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    purge_plan.approve(kept.facility, plan.id, principal=MANAGER)
    medium = kept.media["central"]
    medium.faults = [Fault("sync-names", CRASH, when=medium.counts["sync-names"] + 1)]
    with pytest.raises(Crashed):
        run(kept.facility, plan.id)
    kept.restart()
    kept.clock.at += LENGTH + timedelta(minutes=1)
    holds.extend(kept.facility, "2026-1-lee-81234", until=kept.clock.at + timedelta(days=9), principal=PI)
    assert purge.recover(kept.facility) == 1
    assert kept.states() == ["verified"] * 3
    items = kept.facility.catalog.view(SERVICE).plan_items(plan.id)
    assert [item.state for item in items] == [ItemState.UNDONE, ItemState.PLANNED, ItemState.PLANNED]
