"""Copies of data: archive units, restores, and how fresh the proofs of each store are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from lightkeep.http.desk import AtDesk, Limit, Name, Offset, Seen, Who, Word
from lightkeep.http.shapes import PageOf, Shape, Shown
from lightkeep.lifecycle.replicas import asked_copies, scrub
from lightkeep.lifecycle.replicas import restore as lifecycle
from lightkeep.model.people import Verb
from lightkeep.model.retention import RestoreState

router = APIRouter(tags=["copies"])


class UnitShape(Shape):
    """One write-once tar with members of one experiment."""

    id: str
    store_id: str
    key: Shown
    experiment_id: str
    size: int = Field(description="Bytes on the store.")
    sha256: str
    members: int
    content_size: int = Field(description="Bytes of the members.")
    created_at: datetime | None
    state: str = Field(description="verified; delete_pending: in the trash; deleted.")


class CopyRequest(BaseModel):
    """Where a copy shall be."""

    store: str = Field("", max_length=200, description="Empty: a store that fails apart from those with a copy.")


class ArchiveRequest(BaseModel):
    """Where archive units shall be."""

    store: str = Field(min_length=1, max_length=200)


class CopyShape(Shape):
    """A copy, or archive units, that somebody asked for and that are still to be made."""

    id: str
    store_id: str
    experiment_id: str
    dataset_id: str = Field(description="Empty: all complete datasets of the experiment.")
    as_units: bool
    created_by: str
    created_at: datetime | None
    error: Shown = Field(description="Why it is not there yet, after the last try.")


class RestoreRequest(BaseModel):
    """What shall be near again."""

    paths: list[Annotated[str, Field(max_length=4096)]] = Field(
        [], max_length=10_000, description="Files; empty: all."
    )
    store: str = Field("", max_length=200, description="Where to; empty: the store of new datasets.")
    days: int | None = Field(None, ge=1, le=366, description="How long it stays; 30 when not said otherwise.")


class RestoreShape(Shape):
    """A request, and how far it is."""

    id: str
    dataset_id: str
    target_id: str
    cache_until: datetime
    paths: list[Shown]
    state: RestoreState
    files_done: int
    error: Shown
    created_by: str
    created_at: datetime | None
    ended_at: datetime | None


class FreshnessShape(Shape):
    """How long ago the replicas of a store were read back."""

    store_id: str
    replicas: int
    overdue: int
    overdue_fraction: float
    corrupt: int
    oldest_at: datetime | None


@router.get("/units")
def units(
    view: Seen, experiment: Word = "", store: Word = "", limit: Limit = 100, offset: Offset = 0
) -> PageOf[UnitShape]:
    """Archive units of experiments that one may see, oldest first."""
    return PageOf[UnitShape].model_validate(
        view.units(experiment_id=experiment, store_id=store, limit=limit, offset=offset)
    )


@router.get("/restores")
def restores(
    view: Seen, dataset: Word = "", state: RestoreState | None = None, limit: Limit = 50, offset: Offset = 0
) -> PageOf[RestoreShape]:
    """Requests to have archived data near, newest first."""
    states = [] if state is None else [state]
    return PageOf[RestoreShape].model_validate(
        view.restores(dataset_id=dataset, states=states, limit=limit, offset=offset)
    )


@router.get("/restores/{restore_id}")
def restore(view: Seen, restore_id: Name) -> RestoreShape:
    """One request."""
    return RestoreShape.model_validate(view.restore(restore_id))


@router.post("/datasets/{dataset_id}/restores", status_code=202)
def request_restore(
    desk: AtDesk, who: Who, dataset_id: Name, asked: RestoreRequest, response: Response
) -> RestoreShape:
    """Ask for an archived dataset to be near again; who asked gets a mail when it is."""
    (made,) = lifecycle.request(
        desk.facility,
        principal=who,
        dataset_id=dataset_id,
        paths=asked.paths,
        store_id=asked.store,
        days=asked.days,
    )
    response.headers["Location"] = f"/api/v1/restores/{made.id}"
    return RestoreShape.model_validate(made)


@router.post("/experiments/{experiment_id}/restores", status_code=202)
def request_restores(desk: AtDesk, who: Who, experiment_id: Name, asked: RestoreRequest) -> list[RestoreShape]:
    """Ask for every archived dataset of an experiment to be near again."""
    made = lifecycle.request(
        desk.facility,
        principal=who,
        experiment_id=experiment_id,
        paths=asked.paths,
        store_id=asked.store,
        days=asked.days,
    )
    return [RestoreShape.model_validate(each) for each in made]


@router.get("/copies")
def copies(desk: AtDesk, who: Who) -> list[CopyShape]:
    """What one asked to be copied or archived and is not there yet, of experiments that one manages."""
    return [CopyShape.model_validate(each) for each in asked_copies.waiting(desk.facility, principal=who)]


@router.post("/datasets/{dataset_id}/copies", status_code=202)
def request_copy(desk: AtDesk, who: Who, dataset_id: Name, asked: CopyRequest) -> CopyShape:
    """Ask for a verified copy of a dataset on another store, file by file."""
    made = asked_copies.ask(desk.facility, principal=who, dataset_id=dataset_id, store_id=asked.store)
    return CopyShape.model_validate(made)


@router.post("/datasets/{dataset_id}/archive", status_code=202)
def archive_dataset(desk: AtDesk, who: Who, dataset_id: Name, asked: ArchiveRequest) -> CopyShape:
    """Ask for a dataset to be packed into archive units."""
    made = asked_copies.ask(
        desk.facility, principal=who, dataset_id=dataset_id, store_id=asked.store, as_units=True
    )
    return CopyShape.model_validate(made)


@router.post("/experiments/{experiment_id}/archive", status_code=202)
def archive_experiment(desk: AtDesk, who: Who, experiment_id: Name, asked: ArchiveRequest) -> CopyShape:
    """Ask for the complete datasets of an experiment to be packed into archive units."""
    made = asked_copies.ask(
        desk.facility, principal=who, experiment_id=experiment_id, store_id=asked.store, as_units=True
    )
    return CopyShape.model_validate(made)


@router.get("/freshness")
def freshness(desk: AtDesk, view: Seen) -> list[FreshnessShape]:
    """How old the proofs of each store's replicas are; for who manages the facility."""
    view.require(Verb.MANAGE)
    return [
        FreshnessShape(
            store_id=store_id,
            replicas=each.replicas,
            overdue=each.overdue,
            overdue_fraction=each.overdue_fraction,
            corrupt=each.corrupt,
            oldest_at=each.oldest_at,
        )
        for store_id, each in scrub.freshness(desk.facility).items()
    ]
