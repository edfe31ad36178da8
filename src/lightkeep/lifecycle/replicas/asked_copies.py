"""Copies and archives that somebody asked for from afar: kept in the catalogue, made by the next upkeep.

`replicate` and `archive` make it, idempotent as they are, with the rights that its asker has then. It stays while
its store is away, and goes when it is done or cannot be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.replicas.archive import archive, checked_store
from lightkeep.lifecycle.replicas.replicate import replicate, target_of
from lightkeep.model.datasets import DatasetState
from lightkeep.model.errors import Conflict, InvalidInput, LightkeepError, StoreUnavailable
from lightkeep.model.people import SERVICE, Principal, Verb

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_FACT: Final = "copies.asked"
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class AskedCopy:
    """A copy of one dataset, or units of a dataset or an experiment, that is still to be made."""

    id: str
    store_id: str
    experiment_id: str
    dataset_id: str = ""
    """Empty: all complete datasets of the experiment."""
    as_units: bool = False
    """Packed into archive units; else file by file."""
    created_by: str = ""
    created_at: datetime | None = None
    error: str = ""
    """Why it is not there yet, after the last try."""


def ask(
    facility: Facility,
    *,
    principal: Principal,
    dataset_id: str = "",
    experiment_id: str = "",
    store_id: str = "",
    as_units: bool = False,
) -> AskedCopy:
    """Ask for a copy; return the request. The same again while it waits: the same request.

    Parameters
    ----------
    dataset_id, experiment_id: one of the two; an experiment goes as units only.
    store_id: where to; empty, not for units: a store in a failure domain that has no copy of it yet.

    Raises
    ------
    As `replicate` and `archive` do before they begin. Conflict: too much waits already.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE, dataset_id=dataset_id, experiment_id=experiment_id)
    if dataset_id:
        dataset = view.dataset(dataset_id)
        experiment_id = dataset.experiment_id
        if dataset.state is not DatasetState.COMPLETE:
            raise Conflict(f"dataset {dataset.name} is {dataset.state}", remedy="complete it first")
        if not as_units:
            store_id = target_of(facility, dataset, store_id).record.id
    elif not as_units:
        raise InvalidInput("an experiment is copied as archive units", remedy="name a dataset, or archive it")
    if as_units:
        checked_store(facility, store_id)
    now = facility.clock.now()
    wanted = AskedCopy(facility.ids.new("copy"), store_id, experiment_id, dataset_id, as_units, principal.id, now)
    with facility.catalog.change(principal) as tx:
        known = _parsed(tx.fact(_FACT))
        for each in known:
            if _what(each) == _what(wanted):
                return each
        if len(known) >= _MOST:
            raise Conflict(f"{_MOST} copies wait already", remedy="try again when some are made")
        tx.set_fact(_FACT, _text([*known, wanted]))
        detail = {"store": store_id, "as_units": as_units}
        tx.record("copy.asked", dataset_id or experiment_id, experiment_id, detail)
    return wanted


def waiting(facility: Facility, *, principal: Principal) -> list[AskedCopy]:
    """Return what was asked for and is not there yet, oldest first, as far as the principal may see it."""
    view = facility.catalog.view(principal)
    found = _parsed(facility.catalog.view(SERVICE).fact(_FACT))
    return [each for each in found if view.can(Verb.MANAGE, experiment_id=each.experiment_id)]


def tick(facility: Facility) -> int:
    """Make what waits; return how many requests ended."""
    ended = 0
    for each in _parsed(facility.catalog.view(SERVICE).fact(_FACT)):
        why = ""
        try:
            _make(facility, each)
        except StoreUnavailable as error:
            _write(facility, replace(each, error=error.message))
            continue
        except LightkeepError as error:
            why = error.message
        _write(facility, each, is_over=True, why=why)
        ended += 1
    return ended


def _make(facility: Facility, asked: AskedCopy) -> None:
    principal = SERVICE if asked.created_by == SERVICE.id else Principal(asked.created_by)
    if asked.as_units:
        experiment_id = "" if asked.dataset_id else asked.experiment_id
        packed = archive(
            facility,
            principal=principal,
            store_id=asked.store_id,
            dataset_id=asked.dataset_id,
            experiment_id=experiment_id,
        )
        failed: Sequence[str] = list(packed.failed)
    else:
        failed = replicate(facility, asked.dataset_id, principal=principal, store_id=asked.store_id).failed
    if failed:
        raise Conflict(f"{failed[0]} has no copy that can be read whole", remedy="verify its dataset")


def _write(facility: Facility, asked: AskedCopy, *, is_over: bool = False, why: str = "") -> None:
    """Write down what became of a request; how it ended is in the trail."""
    with facility.catalog.change(SERVICE) as tx:
        known = _parsed(tx.fact(_FACT))
        kept = [asked if each.id == asked.id else each for each in known if not (is_over and each.id == asked.id)]
        tx.set_fact(_FACT, _text(kept))
        if is_over:
            subject = asked.dataset_id or asked.experiment_id
            detail = {"store": asked.store_id, "as_units": asked.as_units, "error": why}
            tx.record("copy.failed" if why else "copy.made", subject, asked.experiment_id, detail)


def _what(asked: AskedCopy) -> tuple[str, str, str, bool]:
    return asked.store_id, asked.experiment_id, asked.dataset_id, asked.as_units


def _parsed(text: str | None) -> list[AskedCopy]:
    found = [AskedCopy(**each) for each in json.loads(text or "[]")]
    return [replace(each, created_at=datetime.fromisoformat(str(each.created_at))) for each in found]


def _text(asked: Sequence[AskedCopy]) -> str:
    return json.dumps([asdict(each) | {"created_at": str(each.created_at)} for each in asked])
