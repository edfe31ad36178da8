"""One purger at work on one plan: the decision with all its facts, and a plan's items object by object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from lightkeep.catalog.plans import list_hash
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.retention.purge_plan import admins
from lightkeep.lifecycle.retention.purger import Fence
from lightkeep.model.errors import LightkeepError
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import ItemState, PurgeItem, PurgePlan
from lightkeep.model.stores import Replica, ReplicaState, Store, split_member
from lightkeep.policy.case import Budget, Case, Guards, PlanFacts, Step, UnitFacts, Verdict
from lightkeep.policy.purge import may_delete_together

if TYPE_CHECKING:
    from lightkeep.catalog.changes import Change
    from lightkeep.facility import Facility

_PAGE: Final = 1000
_DAY: Final = timedelta(days=1)
Piece = Sequence[PurgeItem]
"""The items of one object: one, or all members of a unit."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What a run, a destruction or an undo did."""

    plan_id: str
    items: int = 0
    """Items that it moved on."""
    size: int = 0
    """Their bytes."""
    skipped: int = 0
    """Items that must stay; each says why."""
    left: int = 0
    """Items that wait: for the next day's allowance, or for a store that is away."""
    why_left: str = ""


class Session:
    """One purger at work on one plan."""

    def __init__(self, facility: Facility, plan: PurgePlan, fence: Fence, principal: Principal) -> None:
        self.facility = facility
        self.plan = plan
        self.fence = fence
        self.principal = principal
        self.store: Store = facility.stores[plan.store_id]
        self.store.check_identity()
        service = facility.catalog.view(SERVICE)
        self.hash = list_hash(all_items(facility, plan.id))
        self._admins = tuple(sorted(set(plan.approvals) & set(admins(facility))))
        self._seen = _reachable(facility)
        self._held = service.bytes_held(plan.store_id)
        self._freed_today = service.freed_since(plan.store_id, facility.clock.now() - _DAY)

    def decide(self, tx: Change, piece: Piece, step: Step) -> list[Verdict]:
        """Decide on the items of one object, in the transaction that will act on it."""
        self.fence.check(tx)
        now, said = guards.time(self.facility, tx)
        plan = tx.plan(self.plan.id)
        known = tx.cases([(item.file_id, item.replica_id) for item in piece], step=step, reason=plan.reason)
        whole = len(piece), sum(item.size for item in piece)
        cases = [
            self._complete(tx, case, item, plan, said, whole) for case, item in zip(known, piece, strict=True)
        ]
        return may_delete_together(cases, now)

    def _complete(
        self, tx: Change, case: Case, item: PurgeItem, plan: PurgePlan, said: Guards, whole: tuple[int, int]
    ) -> Case:
        settings = self.facility.config.purge
        entry = tx.item(item.plan_id, item.position)
        unit = case.unit and UnitFacts(case.unit.members, *whole)
        return replace(
            case,
            plan=PlanFacts(plan, entry, self.hash, self._admins),
            guards=said,
            budget=Budget(self._held, self._freed_today, settings.max_fraction, settings.max_bytes_per_day),
            uuid_seen=self.store.record.uuid,
            others=tuple(copy for copy in case.others if copy.store.id in self._seen),
            unit=unit,
        )

    def freed(self, size: int) -> None:
        """Count what this session took against the day's allowance."""
        self._freed_today += size
        self._held -= size


def all_items(facility: Facility, plan_id: str, state: ItemState | None = None) -> Iterator[PurgeItem]:
    """Yield a plan's items in order, page by page."""
    last = -1
    while page := facility.catalog.view(SERVICE).plan_items(plan_id, state=state, after=last, limit=_PAGE):
        yield from page
        last = page[-1].position


def pieces(items: Iterable[PurgeItem]) -> Iterator[Piece]:
    """Yield the items object by object: the members of a unit follow each other on every list."""

    def place(item: PurgeItem) -> tuple[str, str]:
        unit = split_member(item.key)
        return item.plan_id, unit[0] if unit else item.replica_id

    for _, group in groupby(items, key=place):
        yield list(group)


def replica_of(item: PurgeItem) -> Replica:
    """Return the replica that an item names."""
    return Replica(item.replica_id, item.file_id, item.store_id, item.key, ReplicaState.VERIFIED)


def _reachable(facility: Facility) -> set[str]:
    """Return the stores that are there and are themselves: a copy on another one does not count."""
    seen: set[str] = set()
    for store_id in facility.stores:
        try:
            facility.stores[store_id].check_identity()
        except LightkeepError:
            continue
        seen.add(store_id)
    return seen


def evidence_of(piece: Piece, verdicts: Sequence[Verdict]) -> dict[str, Mapping[str, Any]]:
    """Return why each item goes, or stays: every condition with what it was decided on."""
    return {
        item.replica_id: {
            **item.evidence,
            "verdict": verdict.reason,
            "rule": verdict.rule,
            "conditions": {
                each.id: [each.name, each.met, each.text, dict(each.evidence)] for each in verdict.conditions
            },
        }
        for item, verdict in zip(piece, verdicts, strict=True)
    }
