"""Where copies of a dataset should lie."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lightkeep.model.stores import StoreRecord
from lightkeep.policy.retention import Facts, Policy, Target


@dataclass(frozen=True, slots=True)
class Wanted:
    """A copy that a rule asks for and that is not there."""

    target: Target
    store_id: str
    """Where it should go; empty: no store fits."""
    text: str
    """One sentence: which rule asks for it, and what is missing where no store fits."""
    policy: str
    """Stamp `id@version`."""
    rule: str


def place(
    facts: Facts, policy: Policy | None, stores: Iterable[StoreRecord], *, present: Collection[str] = ()
) -> tuple[Wanted, ...]:
    """Return the copies that the policy wants and that are missing, in the order of the rule.

    Parameters
    ----------
    stores: all stores of the facility; those that are not managed are never written to.
    present: ids of the stores that hold, or are getting, a good copy of the whole dataset.

    Notes: each target needs a store of its own. Where several fit, one in a failure domain without a copy comes
    first, then the first by id: so that two planners choose the same.
    """
    rule = policy.rule_for(facts) if policy else None
    if policy is None or rule is None:
        return ()
    known = {store.id: store for store in stores if store.is_managed}
    free = [known[store_id] for store_id in sorted(set(present)) if store_id in known]
    domains = {store.failure_domain for store in free}
    taken = set(present)
    wanted = []
    for target in sorted(rule.copies, key=lambda each: not each.store_id):
        have = next((store for store in free if _fits(store, target)), None)
        if have is not None:
            free.remove(have)
            continue
        candidates = [store for store in known.values() if _fits(store, target) and store.id not in taken]
        named = f"rule {rule.name} of {policy.stamp} asks for a copy on {_shown(target)}"
        if not candidates:
            wanted.append(Wanted(target, "", f"{named}, but no store fits", policy.stamp, rule.name))
            continue
        best = min(candidates, key=lambda store: (store.failure_domain in domains, store.id))
        taken.add(best.id)
        domains.add(best.failure_domain)
        wanted.append(Wanted(target, best.id, named, policy.stamp, rule.name))
    return tuple(wanted)


def _fits(store: StoreRecord, target: Target) -> bool:
    return store.id == target.store_id if target.store_id else store.tier is target.tier


def _shown(target: Target) -> str:
    return f"store {target.store_id}" if target.store_id else f"a {target.tier} store"
