"""What can happen to a facility: verbs of people and of upkeep, the passing of time, and harm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle import outbox
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments
from lightkeep.lifecycle.replicas import records
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.replicas.replicate import replicate
from lightkeep.lifecycle.replicas.scrub import scrub
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.lifecycle.retention import holds, notices, purge, purge_destroy, purge_plan
from lightkeep.lifecycle.retention.purge_session import Purged
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Conflict, LightkeepError
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.retention import HoldScope, NoticeState, PlanReason, PlanState, PurgePlan
from lightkeep.testing.simulator.oracle import Acknowledged, Promise

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.testing.simulator.world import World

_ALONE: Final = Pace(threads=1)
KEEP: Final = timedelta(days=10)
NOTICE: Final = timedelta(days=3)
UNDO: Final = timedelta(days=2)
POLICY: Final = """
id = "simulated"
stations = ["*"]

[[rule]]
name = "last-copies-may-go"
match = { station = ["8-ID"] }
copies = ["warm"]
notice_days = [3, 1]
undo_days = 2
final_days = 5
hot = { keep = "10 days", min_copies = 1, last_copy = true }
warm = { keep = "10 days", min_copies = 1, last_copy = true }

[[rule]]
name = "everything-else"
copies = ["warm", "tape"]
notice_days = [3, 1]
undo_days = 2
hot = { keep = "10 days", min_copies = 1 }
warm = { keep = "10 days", min_copies = 1 }
tape = { keep = "10 days", min_copies = 1 }
"""
"""Harsh on purpose: everything expires everywhere, and copies are all that stands between a purge and a loss."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of step."""

    name: str
    run: Callable[[World], str | None]
    """Returns what came of it, in a few words; None means done."""
    weight: int
    is_always: bool = False
    """False: some histories leave it out."""
    is_harm: bool = False
    """The scheduler itself destroys bytes: what is lost by it is not the program's fault."""


ANNA: Final = Principal("anna")
BORIS: Final = Principal("boris")
LAST_COPIES_MAY_GO: Final = "8-ID"
EXPERIMENTS: Final = tuple(f"{station}-{number}" for station in ("2-BM", "8-ID") for number in range(3))


def promises() -> dict[str, Promise]:
    """Return what holds for each experiment at the beginning."""
    return {each: Promise(last_copy=each.startswith(LAST_COPIES_MAY_GO)) for each in EXPERIMENTS}


def found(facility: Facility) -> None:
    """Make accounts, stations and experiments, and adopt the policy."""
    with facility.catalog.change(ANNA) as tx:
        for who in (ANNA.id, BORIS.id):
            tx.add_person(Person(who, who.title(), f"{who}@facility.example"))
            tx.add_grant(Grant(who, Role.FACILITY_ADMIN, Scope.FACILITY))
        for station in ("2-BM", "8-ID"):
            tx.add_station(Station(station))
        for experiment_id in EXPERIMENTS:
            tx.add_experiment(Experiment(experiment_id, experiment_id[:4]))
            tx.add_grant(Grant(BORIS.id, Role.PI, Scope.EXPERIMENT, experiment_id))
        tx.adopt_policy(POLICY)
    guards.confirm_clock(facility, principal=ANNA)


# ---- what users and the beamline do


def _ingest(world: World) -> None:
    source = world.folder / "sources" / world.ids.new("src")
    source.mkdir(parents=True)
    for name in range(world.random.choice((1, 2, 5, 30))):
        size = world.random.choice((0, 1, 100, 1000, 5000))
        path = source / f"scan_{name:02d}.dat"
        path.write_bytes(world.random.randbytes(size))
        os.utime(path, (world.clock.true.timestamp(),) * 2)  # an archive unit keeps the time
    open_ones = [each for each, promise in sorted(world.oracle.promises.items()) if promise.closed_at is None]
    experiment_id = world.random.choice(open_ones or EXPERIMENTS)
    try:
        for _ in range(2):  # a person tries again once
            taken = ingest(
                world.facility, source, experiment_id=experiment_id, principal=SERVICE, quiet_s=0.0, pace=_ALONE
            )
        _acknowledge(world, taken.dataset)
    finally:
        shutil.rmtree(source)


def _acknowledge(world: World, dataset: Dataset) -> None:
    for file in world.facility.catalog.view(SERVICE).files(dataset.id).items:
        world.oracle.acknowledge(Acknowledged(file.sha256, dataset.id, dataset.experiment_id, file.path))


def _close(world: World) -> None:
    experiment_id = world.random.choice(EXPERIMENTS)
    promise = world.oracle.promise(experiment_id)
    was = promise.closed_at
    promise.closed_at = was or world.clock.true
    try:
        experiments.close(world.facility, experiment_id, principal=ANNA, anyway=True)
    except LightkeepError:
        promise.closed_at = was
        raise


def _reopen(world: World) -> str | None:
    experiment_id = world.random.choice(EXPERIMENTS)
    if world.facility.catalog.view(SERVICE).experiment(experiment_id).state is ExperimentState.OPEN:
        return "was open"
    experiments.open_(world.facility, experiment_id, principal=ANNA)
    world.oracle.promise(experiment_id).closed_at = None
    return None


def _hold(world: World) -> None:
    _hold_one(world, world.random.choice(EXPERIMENTS))


def _hold_one(world: World, experiment_id: str) -> None:
    made = holds.add(world.facility, HoldScope.EXPERIMENT, experiment_id, reason="still needed", principal=BORIS)
    world.oracle.promise(experiment_id).holds.add(made.id)


def _release_hold(world: World) -> str | None:
    standing = _standing(world)
    if not standing:
        return "nothing held"
    _release_one(world, world.random.choice(standing))
    return None


def _standing(world: World) -> list[str]:
    return sorted(hold_id for promise in world.oracle.promises.values() for hold_id in promise.holds)


def _release_one(world: World, hold_id: str) -> None:
    for promise in world.oracle.promises.values():
        promise.holds.discard(hold_id)
    holds.release(world.facility, hold_id, principal=ANNA)


def _acknowledge_notice(world: World) -> str | None:
    waiting = [
        each for each in world.facility.catalog.view(SERVICE).notices().items if each.state is NoticeState.SENT
    ]
    if not waiting:
        return "nothing announced"
    notice = world.random.choice(waiting)
    notices.acknowledge(world.facility, notice.id, principal=BORIS)
    return None


# ---- what the facility's upkeep does


def _verify(world: World) -> str | None:
    dataset = _any_dataset(world)
    if dataset is None:
        return "nothing there"
    verify(world.facility, dataset.id, principal=SERVICE, repair=world.random.random() < 0.5)
    return None


def _scrub(world: World) -> None:
    scrub(world.facility, rate=0.0)


def _replicate(world: World) -> str | None:
    dataset = _any_dataset(world)
    if dataset is None:
        return "nothing there"
    store_id = world.random.choice(("", "", "central", "second", "second", "vault"))
    replicate(world.facility, dataset.id, principal=SERVICE, store_id=store_id, pace=_ALONE)
    return None


def _archive(world: World) -> None:
    archive(
        world.facility,
        principal=SERVICE,
        store_id="vault",
        experiment_id=world.random.choice(EXPERIMENTS),
        pace=_ALONE,
    )


def _announce(world: World) -> None:
    notices.announce(world.facility)
    outbox.send_waiting(world.facility, mailer=world.mailer)


def _anchor(world: World) -> str | None:
    return "behind" if records.anchor(world.facility) else None


# ---- purges


def _plan(world: World) -> None:
    store_id = world.random.choice(("central", "second", "vault"))
    reason = world.random.choice((PlanReason.EXPIRY, PlanReason.EXPIRY, PlanReason.EMERGENCY))
    purge_plan.plan(world.facility, store_id, principal=ANNA, reason=reason)


def _approve(world: World) -> str | None:
    plan = _any_plan(world, PlanState.FROZEN)
    if plan is None:
        return "no plan"
    who = world.random.choice((ANNA, BORIS))
    if who is BORIS:
        for experiment_id in world.facility.catalog.view(SERVICE).plan_experiments(plan.id):
            world.oracle.promise(experiment_id).is_approved = True
    purge_plan.approve(world.facility, plan.id, principal=who)
    return None


def _run(world: World) -> str | None:
    plan = _any_plan(world, PlanState.APPROVED, PlanState.RUNNING)
    if plan is None:
        return "no plan"
    done = purge.run(world.facility, plan.id, principal=ANNA)
    return f"{'some' if done.items else 'nothing'} trashed"


def _campaign(world: World) -> str:
    """Two weeks of a data manager with full disks: notices in time, then a store is purged, or two at once."""
    for hold_id in _standing(world):
        if world.random.random() < 0.8:  # who asked for it is asked, and needs it no more
            _release_one(world, hold_id)
    for days in (6, 2, 2, 1):
        world.clock.true += timedelta(days=days)
        world.clock.offset = timedelta(0)
        guards.confirm_clock(world.facility, principal=ANNA)
        _announce(world)
    stores = world.random.sample(("central", "second", "vault"), world.random.choice((1, 2, 2)))
    plans = [plan for store_id in stores if (plan := _planned(world, store_id)) is not None]
    if plans and world.random.random() < 0.5:  # somebody needs what is about to go
        _hold_one(world, world.random.choice(world.facility.catalog.view(SERVICE).plan_experiments(plans[-1].id)))
    return ", ".join(_ran(world, plan) for plan in plans) or "nothing to purge"


def _planned(world: World, store_id: str) -> PurgePlan | None:
    """Make a plan for a store and have it approved; None: there is nothing to purge."""
    try:
        plan = purge_plan.plan(world.facility, store_id, principal=ANNA)
    except Conflict:
        return None
    for experiment_id in world.facility.catalog.view(SERVICE).plan_experiments(plan.id):
        world.oracle.promise(experiment_id).is_approved = True
    for who in (BORIS, ANNA):
        if plan.state is PlanState.FROZEN:
            plan = purge_plan.approve(world.facility, plan.id, principal=who)
    return plan


def _ran(world: World, plan: PurgePlan) -> str:
    done = purge.run(world.facility, plan.id, principal=ANNA)
    return f"{'some' if done.items else 'nothing'} trashed"


def _undo(world: World) -> str | None:
    plan = _any_plan(world, PlanState.RUNNING, PlanState.DONE)
    if plan is None:
        return "no plan"
    purge.undo(world.facility, plan.id, principal=ANNA)
    return None


def _destroy(world: World) -> str:
    return "some destroyed" if sum(each.items for each in _destroyed(world)) else "nothing destroyed"


def _destroyed(world: World) -> list[Purged]:
    return purge_destroy.destroy(world.facility, principal=ANNA)


def _recover(world: World) -> None:
    purge.recover(world.facility)


# ---- time, and what goes wrong


def _wait(world: World) -> None:
    world.clock.true += timedelta(minutes=world.random.choice((1, 60, 1440, 1440, 2880, 10080)))
    if world.random.random() < 0.9:  # somebody looks at the clock, sets it right, and says so
        world.clock.offset = timedelta(0)
        guards.confirm_clock(world.facility, principal=ANNA)


def _jump(world: World) -> None:
    hours = world.random.choice((-87_600, -2, 2, 24 * 40, 87_600))
    world.clock.offset += timedelta(hours=hours)


def _flip(world: World) -> str | None:
    medium = world.random.choice(list(world.media.values()))
    names = [name for name in sorted(medium.names) if not name.startswith(".") and medium.names[name].now]
    if not names:
        return "nothing there"
    inode = medium.names[world.random.choice(names)]
    changed = bytearray(inode.now)
    changed[world.random.randrange(len(changed))] ^= 1 << world.random.randrange(8)
    inode.now = changed
    inode.durable = bytes(changed)
    return None


def _cut_power(world: World) -> None:
    for medium in world.media.values():
        medium.cut_power()
    world.restart()


def _swap(world: World) -> None:
    """Mount the wrong disk for a moment, while a plan runs."""
    medium = world.random.choice(list(world.media.values()))
    right, medium.uuid = medium.uuid, "another-disk"
    try:
        if (plan := _any_plan(world, PlanState.APPROVED, PlanState.RUNNING)) is not None:
            purge.run(world.facility, plan.id, principal=ANNA)
        _destroyed(world)
        scrub(world.facility, rate=0.0)
    finally:
        medium.uuid = right


def _any_dataset(world: World) -> Dataset | None:
    page = world.facility.catalog.view(SERVICE).datasets(limit=10_000, order="name").items
    return world.random.choice(page) if page else None


def _any_plan(world: World, *states: PlanState) -> PurgePlan | None:
    plans = [each for each in world.facility.catalog.view(SERVICE).plans().items if each.state in states]
    return world.random.choice(plans) if plans else None


OPERATIONS: Final = (
    Operation("ingest", _ingest, 12, is_always=True),
    Operation("close", _close, 10, is_always=True),
    Operation("open again", _reopen, 4),
    Operation("hold", _hold, 2),
    Operation("release a hold", _release_hold, 4),
    Operation("acknowledge a notice", _acknowledge_notice, 4),
    Operation("verify", _verify, 6),
    Operation("scrub", _scrub, 4),
    Operation("replicate", _replicate, 16, is_always=True),
    Operation("archive", _archive, 4),
    Operation("announce", _announce, 4),
    Operation("anchor", _anchor, 2),
    Operation("plan", _plan, 4),
    Operation("approve", _approve, 4),
    Operation("run a plan", _run, 4),
    Operation("campaign", _campaign, 12, is_always=True),
    Operation("undo", _undo, 2),
    Operation("destroy", _destroy, 12, is_always=True),
    Operation("recover", _recover, 2),
    Operation("wait", _wait, 8),
    Operation("jump the clock", _jump, 2),
    Operation("flip a bit", _flip, 3, is_harm=True),
    Operation("power cut", _cut_power, 2),
    Operation("wrong disk", _swap, 2),
)
