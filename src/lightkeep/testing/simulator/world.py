"""The scheduler: which verb runs next, what fails meanwhile, when the process dies."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final

from lightkeep.catalog import Catalog
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.model.errors import LightkeepError
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import StoreRecord, Tier
from lightkeep.testing.simulator.operations import OPERATIONS, Operation, People
from lightkeep.testing.simulator.oracle import Oracle, Violation
from lightkeep.testing.stores import CRASH, EIO, ENOSPC, FLIP, POWER, Crashed, Fault, FaultyStore, Medium

_BEGIN: Final = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)  # the end of a month, and near midnight
_FAULTS: Final = (CRASH, CRASH, POWER, EIO, ENOSPC, FLIP)
_REMEMBERED: Final = 40  # steps told by a violation


class VirtualClock:
    """Stands until the scheduler moves it; a second passes at each look, so that order is kept."""

    def __init__(self) -> None:
        self.at = _BEGIN

    def now(self) -> datetime:
        """Return the time, and let a second pass."""
        self.at += timedelta(seconds=1)
        return self.at


class CountedIds:
    """Identifiers that count: the same in every run of one seed."""

    def __init__(self) -> None:
        self._last = 0

    def new(self, prefix: str) -> str:
        """Return the next one."""
        self._last += 1
        return f"{prefix}_{self._last:016d}"


class World:
    """One facility, its media, and everything that happens to them. Use as a context manager."""

    def __init__(self, folder: Path, *, seed: int, faults: float = 0.2) -> None:
        """Make the facility below an empty folder; `faults` is the chance of a fault in a step."""
        self.folder = folder
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = VirtualClock()
        self.ids = CountedIds()
        self.media = {name: Medium(f"medium-{name}", free=1 << 40) for name in ("central", "second", "vault")}
        self.oracle = Oracle(self.media)
        self.outcomes: Counter[str] = Counter()
        """How often each operation ended how: `ingest done`, `ingest crashed`, `purge refused: conflict`."""
        self._faults = faults
        self._told: deque[str] = deque(maxlen=_REMEMBERED)
        self.facility = self._start()
        self.people = People.arrive(self.facility)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.facility.close()

    @property
    def operations(self) -> int:
        """Store operations so far, on all media."""
        return sum(medium.counts[""] for medium in self.media.values())

    def run(self, steps: int) -> None:
        """Take steps; raise Violation when a promise is broken."""
        names = [each.name for each in OPERATIONS for _ in range(each.weight)]
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
        Violation: the audit trail is broken, or a content is gone.
        """
        self._restart()
        if problems := self.facility.catalog.verify_events():
            raise Violation(f"seed {self.seed}: audit trail: {problems[0]}")
        self.oracle.check(harm_was_done=False)

    def step(self, operation: Operation) -> None:
        """Run one operation, perhaps with a fault in it, then look at the media."""
        self._arm()
        try:
            said = operation.run(self)
            outcome = "done" if said is None else said
        except Crashed:
            outcome = "crashed"
            self._restart()
        except LightkeepError as error:
            outcome = f"refused: {error.code}"
        finally:
            for medium in self.media.values():
                medium.faults = ()
        self.outcomes[f"{operation.name} {outcome}"] += 1
        self._told.append(f"{self.clock.at:%Y-%m-%d %H:%M} {operation.name}: {outcome}")
        try:
            self.oracle.check(harm_was_done=operation.is_harm)
        except Violation as error:
            history = "\n  ".join(self._told)
            raise Violation(f"seed {self.seed}: {error}\nThe last steps:\n  {history}") from error

    def _arm(self) -> None:
        if self.random.random() < self._faults:
            medium = self.random.choice(list(self.media.values()))
            ahead = medium.counts[""] + self.random.choice((1, 2, 3, 5, 8, 13, 21, 34))
            medium.faults = [Fault("", self.random.choice(_FAULTS), when=ahead)]

    def _start(self) -> Facility:
        catalog = Catalog.open(f"sqlite:///{self.folder / 'catalog.db'}", clock=self.clock, ids=self.ids)
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
                        )
                    )
        for record in catalog.view(SERVICE).stores():
            stores[record.id].record = record
        return facility

    def _restart(self) -> None:
        """Begin again as a new process: nothing of the old one is left but the media and the catalogue's file."""
        self.facility.close()
        for medium in self.media.values():
            medium.writers.clear()
        self.facility = self._start()
