"""Experiments: the list, and one with its datasets, people and runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from lightkeep.catalog import query
from lightkeep.portal.page import PAGE_SIZE, Here, Name, Number, Text, pages

router = APIRouter()
Word = Annotated[str, Query(max_length=200)]


@router.get("/experiments")
def experiments(here: Here, q: Text = "", station: Word = "", page: Number = 1) -> Response:
    """The experiments that one may see, newest first."""
    found = here.view.experiments(station_id=station, text=q, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    turner = pages(found.total, page, keep={"q": q, "station": station})
    return here.render(
        "experiments.html", experiments=found, q=q, station=station, stations=here.view.stations(), turner=turner
    )


@router.get("/experiments/{experiment_id}")
def experiment(here: Here, experiment_id: Name, q: Text = "", page: Number = 1) -> Response:
    """One experiment: its datasets, and how they divide."""
    found = here.view.experiment(experiment_id)
    asked = query.parse(q)
    datasets = here.view.datasets(
        asked, experiment_id=experiment_id, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE
    )
    return here.render(
        "experiment.html",
        experiment=found,
        tab="datasets",
        q=q,
        datasets=datasets,
        facets=here.view.facets(asked, experiment_id=experiment_id),
        turner=pages(datasets.total, page, keep={"q": q}),
    )


@router.get("/experiments/{experiment_id}/people")
def people(here: Here, experiment_id: Name) -> Response:
    """Who has which role on an experiment."""
    found = here.view.experiment(experiment_id)
    known = {person.id: person for person in here.view.people()}
    members = [(known.get(grant.person_id), grant) for grant in here.view.grants(experiment_id)]
    return here.render("experiment.html", experiment=found, tab="people", members=members)


@router.get("/experiments/{experiment_id}/runs")
def runs(here: Here, experiment_id: Name) -> Response:
    """The runs of an experiment, newest first."""
    found = here.view.experiment(experiment_id)
    page = here.view.runs(experiment_id=experiment_id, limit=100)
    names = {run.dataset_id: here.view.dataset(run.dataset_id).name for run in page}
    return here.render("experiment.html", experiment=found, tab="runs", runs=page, names=names)
