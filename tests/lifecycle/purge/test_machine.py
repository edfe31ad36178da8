"""Any order of purges, holds, readers, harm, crashes and clocks: no byte goes that a model says must stay."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.retention import holds, purge, purge_plan
from lightkeep.lifecycle.retention.purge_destroy import destroy
from lightkeep.lifecycle.retention.purger import LENGTH
from lightkeep.model.errors import LightkeepError
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import Lease, LeaseKind
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.retained import ADMIN, EXPERIMENT, MANAGER, PI, Retained, retained
from lightkeep.testing.stores import CRASH, POWER, Crashed, Fault

KEEP = timedelta(days=89)  # three months from 31 January are 89 days: the model counts for itself
UNDO = timedelta(days=14)


MOVES = (("place", "trash"), ("trash", "place"), ("trash", "gone"))


class Purges:
    """One file on three stores. The model knows when it was closed, held, read, told of and trashed."""

    moves: ClassVar[Counter[tuple[str, str]]] = Counter()

    def __init__(self, spare: timedelta) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.kept: Retained = retained(self.folder)
        self.kept.dataset("scan", {"a.h5": b"a" * 100})
        self.kept.close()
        self.closed_at = self.kept.clock.at
        (self.content,) = self.kept.bytes_on("vault")
        self.held_until: datetime | None = None
        self.told_at: datetime | None = None
        self.leased_until: datetime | None = None
        self.trashed_at: datetime | None = None
        self.doubted = False
        self.kept.clock.at += KEEP + spare
        self.people_are_told()
        self.time_passes(days=0, scrubbed=True)

    def close(self) -> None:
        self.kept.facility.close()
        shutil.rmtree(self.folder)

    # ---- what people and time do

    def time_passes(self, days: int, scrubbed: bool) -> None:
        self.kept.clock.at += timedelta(days=days, minutes=20)
        guards.confirm_clock(self.kept.facility, principal=ADMIN)
        self.doubted = False
        if scrubbed:
            self.copies_are_read_back()

    def the_clock_jumps(self, days: int) -> None:
        self.kept.clock.at += timedelta(days=days)
        with suppress(Crashed):
            guards.look(self.kept.facility)
        self.kept.clock.at -= timedelta(days=days)
        self.doubted = True

    def copies_are_read_back(self) -> None:
        view = self.kept.facility.catalog.view(SERVICE)
        for replica in view.replicas(self.kept.datasets["scan"].id):
            if replica.state in (ReplicaState.VERIFIED, ReplicaState.SUSPECT):
                state = ReplicaState.VERIFIED
                with self.kept.facility.catalog.change(SERVICE) as tx:
                    tx.set_replicas([replica], state=state, verified_at=self.kept.clock.at)

    def a_copy_is_doubted(self, store: str) -> None:
        view = self.kept.facility.catalog.view(SERVICE)
        for replica in view.replicas(self.kept.datasets["scan"].id):
            if replica.store_id == store and replica.state is ReplicaState.VERIFIED:
                with self.kept.facility.catalog.change(SERVICE) as tx:
                    tx.set_replicas([replica], state=ReplicaState.SUSPECT)

    def people_are_told(self) -> None:
        if self.told_at is None and not self.doubted:
            self.kept.told()
            self.told_at = self.kept.clock.at

    def it_is_held(self, days: int) -> None:
        until = self.kept.clock.at + timedelta(days=days)
        holds.extend(self.kept.facility, EXPERIMENT, until=until, principal=PI)
        self.held_until = max(until, self.held_until or until)
        self.told_at = None

    def somebody_reads(self) -> None:
        until = self.kept.clock.at + timedelta(hours=1)
        lease = Lease(
            self.kept.facility.ids.new("lease"), self.kept.datasets["scan"].id, LeaseKind.DOWNLOAD, "mia", until
        )
        with self.kept.facility.catalog.change(SERVICE) as tx:
            tx.add_lease(lease)
        self.leased_until = until

    # ---- the verbs, some of them killed

    def purge(self, kind: str, when: int) -> None:
        self._try(self._go, kind, when)

    def take_back(self, kind: str, when: int) -> None:
        self._try(self._undo, kind, when)

    def empty_the_trash(self, kind: str, when: int) -> None:
        self._try(self._destroy, kind, when)

    def _try(self, verb: Callable[[], None], kind: str, when: int) -> None:
        medium = self.kept.media["central"]
        if kind:
            medium.faults = [Fault("", kind, when=medium.counts[""] + when)]
        before = self._where()
        try:
            verb()
        except Crashed:
            self.kept.restart()
            self.kept.clock.at += LENGTH + timedelta(minutes=1)
            purge.recover(self.kept.facility)
        except LightkeepError:
            pass
        medium.faults = ()
        self._judge(before)

    def _go(self) -> None:
        plan = purge_plan.plan(self.kept.facility, "central", principal=ADMIN)
        purge_plan.approve(self.kept.facility, plan.id, principal=MANAGER)
        purge.run(self.kept.facility, plan.id, principal=ADMIN)

    def _undo(self) -> None:
        for item in self.kept.facility.catalog.view(SERVICE).items_in_trash():
            purge.undo(self.kept.facility, item.plan_id, principal=PI)

    def _destroy(self) -> None:
        destroy(self.kept.facility, principal=ADMIN)

    # ---- the model

    def _where(self) -> str:
        """Return where the bytes on central are: in their place, in the trash, or gone."""
        keys = [key for key, _ in self.kept.media["central"].objects() if key.endswith("a.h5")]
        return "gone" if not keys else "trash" if keys[0].startswith(".trash") else "place"

    def _judge(self, before: str) -> None:
        now, after = self.kept.clock.at, self._where()
        if before == after:
            return
        assert (before, after) in MOVES
        self.moves[before, after] += 1
        if after == "trash":
            self.trashed_at = now
        if after == "place":
            return
        assert not self.doubted
        assert now >= self.closed_at + KEEP
        assert self.held_until is None or now >= self.held_until
        assert self.leased_until is None or now >= self.leased_until
        assert self.told_at is not None
        assert any(
            replica.store_id == "vault" and replica.state is ReplicaState.VERIFIED
            for replica in self.kept.facility.catalog.view(SERVICE).replicas(self.kept.datasets["scan"].id)
        )
        if after == "gone":
            assert self.trashed_at is not None
            assert now >= self.trashed_at + UNDO - LENGTH * 2

    def the_catalogue_says_where_the_bytes_are(self) -> None:
        state = {"place": "verified", "trash": "delete_pending", "gone": "deleted"}[self._where()]
        assert self.kept.states() == [state]
        assert self.content in self.kept.bytes_on("vault")


ACTIONS = (
    *[("time_passes", days, True) for days in (0, 1, 14, 14, 31)],
    ("time_passes", 31, False),
    *[("people_are_told",)] * 4,
    *[("purge",), ("empty_the_trash",)] * 4,
    *[("take_back",), ("copies_are_read_back",)] * 2,
    ("somebody_reads",),
    ("the_clock_jumps", -200),
    ("the_clock_jumps", 400),
    ("a_copy_is_doubted", "second"),
    ("a_copy_is_doubted", "vault"),
    ("it_is_held", 1),
    ("it_is_held", 30),
)
KILLED = ("purge", "take_back", "empty_the_trash")


@pytest.mark.fault
def test_no_byte_goes_that_must_stay(figure) -> None:
    """Seeded, not drawn by Hypothesis: its short histories of few kinds never got as far as the trash."""
    Purges.moves.clear()
    histories, length = 14, 40
    for seed in range(histories):
        dice = random.Random(seed)
        world = Purges(dice.choice([timedelta(days=1), timedelta(hours=-1)]))
        for _ in range(length):
            name, *more = dice.choice(ACTIONS)
            if name in KILLED:
                more = [dice.choice(["", "", "", CRASH, POWER]), dice.randint(1, 4)]
            getattr(world, name)(*more)
            world.the_catalogue_says_where_the_bytes_are()
        world.close()
    assert all(Purges.moves[move] for move in MOVES), Purges.moves  # it got everywhere
    steps = histories * length
    figure(
        "F17", injected=f"{steps} steps of purge, undo, destroy, hold, lease, crash, clock", found="0 violations"
    )
