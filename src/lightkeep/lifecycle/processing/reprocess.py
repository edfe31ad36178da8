"""Reprocess: one technique again on everything that a search finds, behind all other work.

What is archived is asked for in one recall, and its runs wait for it; see `lifecycle.processing.awaited`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from lightkeep.catalog.query import parse
from lightkeep.lifecycle.processing import awaited, process
from lightkeep.lifecycle.replicas import restore
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import InvalidInput, LightkeepError
from lightkeep.model.people import Principal, Verb
from lightkeep.model.runs import Priority, RunState

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_MANY: Final = 500
_PAST: Final = 50  # runs that the estimate looks at


@dataclass(frozen=True, slots=True)
class Reprocessed:
    """What a reprocessing asks, or would ask, for."""

    datasets: int
    """That the technique can work on."""
    size: int
    """Bytes in them."""
    left_out: int
    """Found, but nothing for this technique or not this person's to process."""
    seconds: float | None
    """Time to compute them one after the other, by the past runs here; None: there was none yet."""
    far: int = 0
    """In the archive only: their runs wait until they are near again, which is asked for in one recall."""
    far_size: int = 0
    """Bytes in these."""
    runs: tuple[str, ...] = ()
    """Runs that were asked for."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Dataset -> why no run could be asked for."""


def reprocess(
    facility: Facility,
    find: str,
    technique: str,
    params: Mapping[str, Any] | None = None,
    *,
    principal: Principal,
    engine: str = "",
    dry_run: bool = False,
) -> Reprocessed:
    """Ask for a run on every dataset that a search finds; the caller queues them.

    Parameters
    ----------
    find: as in `find`; raw datasets only, unless it names a kind.
    dry_run: only look.

    Raises
    ------
    InvalidInput: the search is empty or wrong, there is no such technique, or a parameter is wrong.
    """
    from lightkeep import techniques

    if not find.strip():
        raise InvalidInput("reprocess what?", remedy="give a search: --find 'technique:xpcs created:2026-11..'")
    if technique not in techniques.names():
        names = ", ".join(techniques.names())
        raise InvalidInput(f"there is no technique {technique!r}", remedy=f"one of: {names}")
    process.check_params(technique, params or {})
    accepts = techniques.get(technique).accepts
    view = facility.catalog.view(principal)
    found = list(_found(facility, find, principal))
    fit = [each for each in found if accepts(each) and view.can(Verb.PROCESS, dataset_id=each.id)]
    size = sum(each.size for each in fit)
    far = awaited.far(facility, fit)
    if not dry_run:
        restore.request_many(facility, [each.id for each in far], principal=principal)
    asked: list[str] = []
    refused: dict[str, str] = {}
    for each in () if dry_run else fit:
        try:
            run = process.request(
                facility,
                each.id,
                technique,
                params,
                principal=principal,
                engine=engine,
                usual=Priority.AGAIN,
            )
        except LightkeepError as error:
            refused[each.id] = error.message
        else:
            asked.append(run.id)
    seconds = _estimate(facility, technique, size, principal)
    return Reprocessed(
        len(fit),
        size,
        len(found) - len(fit),
        seconds,
        far=len(far),
        far_size=sum(each.size for each in far),
        runs=tuple(asked),
        refused=refused,
    )


def _found(facility: Facility, find: str, principal: Principal) -> Iterator[Dataset]:
    view = facility.catalog.view(principal)
    query = parse(find)
    kind = None if "kind:" in find else DatasetKind.RAW
    offset = 0
    while page := view.datasets(query, kind=kind, limit=_MANY, offset=offset).items:
        offset += len(page)
        yield from page


def _estimate(facility: Facility, technique: str, size: int, principal: Principal) -> float | None:
    """Return seconds for so many bytes, at the median rate of the last runs of the technique that one may see."""
    view = facility.catalog.view(principal)
    rates: list[float] = []
    for run in view.runs(state=RunState.DONE, limit=10 * _PAST).items:
        if run.technique == technique and run.started_at and run.ended_at and len(rates) < _PAST:
            took = (run.ended_at - run.started_at).total_seconds()
            rates.append(took / max(1, view.dataset(run.dataset_id).size))
    return median(rates) * size if rates else None
