"""Copies of data: archive units, restores, and how fresh the proofs of each store are."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from lightkeep.http.desk import AtDesk, Limit, Name, Offset, Seen, Who, Word
from lightkeep.http.shapes import PageOf, Shape, Shown
from lightkeep.lifecycle import restore as lifecycle
from lightkeep.lifecycle import scrub
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
