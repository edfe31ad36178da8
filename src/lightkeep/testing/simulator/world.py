"""The scheduler: which verb runs next, what fails meanwhile, when the process dies."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final

from sqlalchemy import Engine, event

from lightkeep.catalog import Catalog, migrate
from lightkeep.catalog.sqlite import Sqlite
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.health.doctor import examine
from lightkeep.lifecycle.health.findings import Severity
from lightkeep.lifecycle.replicas.scrub import scrub
from lightkeep.lifecycle.retention import purge
from lightkeep.model.errors import LightkeepError
from lightkeep.model.mail import Mail
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import PlanReason
from lightkeep.model.stores import StoreRecord, Tier
from lightkeep.testing.simulator.operations import ANNA, KEEP, NOTICE, OPERATIONS, UNDO, Operation, found, promises
from lightkeep.testing.simulator.oracle import Oracle, Violation
from lightkeep.testing.stores import CRASH, EIO, ENOSPC, FLIP, POWER, Crashed, Fault, FaultyStore, Medium

_BEGIN: Final = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)  # the end of a month, and near midnight
_FAULTS: Final = (CRASH, CRASH, POWER, EIO, ENOSPC, FLIP)
_REMEMBERED: Final = 40  # steps told by a violation


class VirtualClock:
    """Stands until the scheduler moves it; a second passes at each look, so that order is kept."""

    def __init__(self) -> None:
        self.true = _BEGIN
        self.looks = 0
        self.offset = timedelta(0)
        """By how much the facility's clock is wrong."""

    def now(self) -> datetime:
        """Return what the facility's clock shows, and let a second pass."""
        self.true += timedelta(seconds=1)
        self.looks += 1
        return self.true + self.offset


class KeptMail:
    """A mailer that delivers everything, and tells the oracle who was told about what."""

    def __init__(self, oracle: Oracle, clock: VirtualClock) -> None:
        self._oracle = oracle
        self._clock = clock

    def send(self, mail: Mail) -> tuple[str, ...]:
        """See the protocol."""
        for experiment_id, promise in self._oracle.promises.items():
            if experiment_id in mail.subject + mail.text and promise.told_at is None:
                promise.told_at = self._clock.true
        return ()


_CAPACITY = 1 << 20
"""Bytes of each store: room for a history, and for a plan to be more than a file."""


class CountedIds:
    """Identifiers that count: the same in every run of one seed."""

    def __init__(self) -> None:
        self.last = 0

    def new(self, prefix: str) -> str:
        """Return the next one."""
        self.last += 1
        return f"{prefix}_{self.last:016d}"


class World:
    """One facility, its media, and everything that happens to them. Use as a context manager."""

    def __init__(self, folder: Path, *, seed: int, faults: float = 0.2, engine: Engine | None = None) -> None:
        """Make the facility below an empty folder.

        Parameters
        ----------
        seed: of everything that happens. With an even seed the scheduler does no harm of its own.
        faults: the chance of a fault in a step.
        engine: of an earlier world in the same folder, which was emptied: what it compiled serves again.
        """
        self.folder = folder
        self.seed = seed
        self.random = random.Random(seed)
        self._may_harm = seed % 2 == 1
        self.clock = VirtualClock()
        self.ids = CountedIds()
        self.media = {name: Medium(f"medium-{name}", free=1 << 40) for name in ("central", "second", "vault")}
        self.oracle = Oracle(self.media, KEEP, NOTICE, UNDO, promises())
        self.mailer = KeptMail(self.oracle, self.clock)
        self.outcomes: Counter[str] = Counter()
        """How often each operation ended how: `ingest done`, `ingest crashed`, `purge refused: conflict`."""
        self.refusals: Counter[str] = Counter()
        self._faults = faults
        self._statements = 0
        self._was_harmed = False
        self._is_emergency = False
        self._told: deque[str] = deque(maxlen=_REMEMBERED)
        self.facility = self._start(self._open(engine))
        found(self.facility)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.facility.close()
        event.remove(self.facility.catalog.engine, "before_cursor_execute", self._count)

    @property
    def operations(self) -> dict[str, int]:
        """Operations at the seams so far: of stores, statements of the catalogue, looks at the clock, ids."""
        return {
            "store": sum(medium.counts[""] for medium in self.media.values()),
            "catalogue": self._statements,
            "clock": self.clock.looks,
            "ids": self.ids.last,
        }

    def run(self, steps: int) -> None:
        """Take steps; raise Violation when a promise is broken."""
        chosen = [each for each in OPERATIONS if self._may_harm or not each.is_harm]
        # Swarm: each history leaves some operations out and does others often, so that rare ones meet.
        # Every fourth seed keeps to what leads to purges, so that many of them meet.
        rare = (0,) if self.seed % 4 == 0 else (0, 0, 1, 3)
        often = {each.name: self.random.choice((1, 2) if each.is_always else rare) for each in chosen}
        names = [each.name for each in chosen for _ in range(each.weight * often[each.name])]
        table: Mapping[str, Operation] = {each.name: each for each in OPERATIONS}
        for _ in range(steps):
            self.step(table[self.random.choice(names)])

    @property
    def head(self) -> str:
        """Hash of the last event: two equal histories end with the same one."""
        return self.facility.catalog.head()[1]

    def settle(self) -> None:
        """Let the faults end and time pass: everything that began must come to its end.

        Raises
        ------
        Violation: something hangs, the audit trail is broken, a content is gone, or `doctor` finds an error that
            no harm of the scheduler explains.
        """
        self.restart()
        self.clock.offset = timedelta(0)
        self.clock.true += timedelta(days=1)
        guards.confirm_clock(self.facility, principal=ANNA)
        purge.recover(self.facility)
        for _ in range(2):
            scrub(self.facility, rate=0.0)
        problems = self.facility.catalog.verify_events()
        problems += [f"{item.plan_id} hangs" for item in self.facility.catalog.view(SERVICE).items_to_finish()]
        if not self._was_harmed:
            found = examine(self.facility, full=True)
            problems += [each.message for each in found if each.severity is Severity.ERROR]
        if problems:
            raise Violation(self._story(problems[0]))
        self._look(harm_was_done=False)

    def step(self, operation: Operation) -> None:
        """Run one operation, perhaps with a fault in it, then look at the media."""
        self._arm()
        try:
            said = operation.run(self)
            outcome = "done" if said is None else said
        except Crashed:
            outcome = "crashed"
            self.restart()
        except LightkeepError as error:
            outcome = f"refused: {error.code}"
            self.refusals[f"{operation.name}: {error.message}"] += 1
        finally:
            for medium in self.media.values():
                medium.faults = ()
        self.outcomes[f"{operation.name} {outcome}"] += 1
        self._told.append(f"{self.clock.true:%Y-%m-%d %H:%M} {operation.name}: {outcome}")
        try:
            self._was_harmed |= operation.is_harm
            self._is_emergency |= operation.name == "plan" and self._knows_emergency()
            self._look(harm_was_done=operation.is_harm)
        except Violation as error:
            raise Violation(self._story(str(error))) from error

    def _story(self, what: str) -> str:
        history = "\n  ".join(self._told)
        return f"seed {self.seed}: {what}\nThe last steps:\n  {history}"

    def _look(self, *, harm_was_done: bool) -> None:
        self.oracle.check(self.clock.true, harm_was_done=harm_was_done, is_emergency=self._is_emergency)

    def _knows_emergency(self) -> bool:
        plans = self.facility.catalog.view(SERVICE).plans(limit=10_000).items
        return any(each.reason is PlanReason.EMERGENCY for each in plans)

    def _arm(self) -> None:
        if self.random.random() < self._faults:
            medium = self.random.choice(list(self.media.values()))
            ahead = medium.counts[""] + self.random.choice((1, 2, 3, 5, 8, 13, 21, 34))
            medium.faults = [Fault("", self.random.choice(_FAULTS), when=ahead)]

    def _open(self, engine: Engine | None) -> Catalog:
        if engine is None:
            catalog = Catalog.open(f"sqlite:///{self.folder / 'catalog.db'}", clock=self.clock, ids=self.ids)
        else:
            catalog = Catalog(engine, dialect=Sqlite(), clock=self.clock, ids=self.ids)
            migrate.prepare(engine, catalog.dialect)
        event.listen(catalog.engine, "before_cursor_execute", self._count)
        return catalog

    def _start(self, catalog: Catalog) -> Facility:
        stores = {name: FaultyStore(medium, id=name) for name, medium in self.media.items()}
        facility = Facility(Config(self.folder), catalog, self.clock, self.ids, stores)
        if not catalog.view(SERVICE).stores():
            tiers = {"central": Tier.HOT, "second": Tier.WARM, "vault": Tier.TAPE}
            with catalog.change(SERVICE) as tx:
                for name, store in stores.items():
                    record = store.record
                    tx.add_store(
                        StoreRecord(
                            name,
                            record.kind,
                            record.location,
                            record.uuid,
                            tiers[name],
                            name,
                            is_durable=name == "vault",
                            capacity=_CAPACITY,
                        )
                    )
        for record in catalog.view(SERVICE).stores():
            stores[record.id].record = record
        return facility

    def _count(self, *_: object) -> None:
        self._statements += 1

    def restart(self) -> None:
        """Begin again as a new process: nothing of the old one is left but the media and the catalogue's file."""
        self.facility.close()
        for medium in self.media.values():
            medium.writers.clear()
        # The engine keeps compiled statements and nothing of the facility's; its connections were closed.
        old = self.facility.catalog
        self.facility = self._start(Catalog(old.engine, dialect=old.dialect, clock=self.clock, ids=self.ids))
