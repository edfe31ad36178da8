"""One dataset: what it is, what it looks like, what was made of it, and whether it is safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from lightkeep.lifecycle.pictures import curves, slices
from lightkeep.lifecycle.pictures.preview import Stack
from lightkeep.lifecycle.processing import process
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import LightkeepError, NotFound
from lightkeep.model.people import Verb
from lightkeep.model.stores import Replica, ReplicaState
from lightkeep.portal import keeping, words
from lightkeep.portal.page import Here, Name, Number, Text, Visit, pages
from lightkeep.portal.parameters import parameters

router = APIRouter()
_FILES = 200
_SOUND = (ReplicaState.VERIFIED, ReplicaState.PRESENT)


@router.get("/datasets/{dataset_id}")
def overview(here: Here, dataset_id: Name, i: Annotated[int, Query(ge=1, le=10**9)] | None = None) -> Response:
    """What it is, at a glance: the picture, the facts, what can be done."""
    dataset = here.view.dataset(dataset_id)
    if dataset.format == curves.FORMAT:
        return _correlation(here, dataset)
    stack, why = _stack(here, dataset)
    index = None if stack is None else min((i or stack.count // 2 + 1) - 1, stack.count - 1)
    made = _made_by(here, dataset)
    return tabbed(
        here, dataset, "overview", stack=stack, why=why, index=index, **_at_a_glance(here, dataset), **made
    )


@router.get("/datasets/{dataset_id}/view")
def view(here: Here, dataset_id: Name) -> Response:
    """The whole content of the main file, in the h5web viewer."""
    dataset = here.view.dataset(dataset_id)
    here.view.require(Verb.READ, dataset_id=dataset_id)
    return tabbed(here, dataset, "view")


@router.get("/datasets/{dataset_id}/results")
def results(here: Here, dataset_id: Name) -> Response:
    """What was made of it, and by which runs."""
    dataset = here.view.dataset(dataset_id)
    runs = here.view.runs(dataset_id=dataset_id, limit=100)
    return tabbed(here, dataset, "results", runs=runs)


@router.get("/datasets/{dataset_id}/files")
def files(here: Here, dataset_id: Name, prefix: Text = "", page: Number = 1) -> Response:
    """The manifest."""
    dataset = here.view.dataset(dataset_id)
    found = here.view.files(dataset_id, limit=_FILES, offset=(page - 1) * _FILES, prefix=prefix)
    turner = pages(found.total, page, keep={"prefix": prefix}, size=_FILES)
    return tabbed(
        here, dataset, "files", files=found, skipped=here.view.skipped(dataset_id), prefix=prefix, turner=turner
    )


@router.get("/datasets/{dataset_id}/metadata")
def metadata(here: Here, dataset_id: Name) -> Response:
    """What the file says of the measurement: typed fields with units first."""
    return tabbed(here, here.view.dataset(dataset_id), "metadata")


@router.get("/datasets/{dataset_id}/provenance")
def provenance(here: Here, dataset_id: Name) -> Response:
    """What it was made from, by what, and what was made of it."""
    dataset = here.view.dataset(dataset_id)
    parents = [found for each in dataset.parents if (found := _dataset(here, each)) is not None]
    events = here.view.events(subject=dataset_id, limit=100)
    return tabbed(here, dataset, "provenance", parents=parents, events=events, **_made_by(here, dataset))


@router.get("/datasets/{dataset_id}/safety")
def safety(here: Here, dataset_id: Name) -> Response:
    """Where its bytes are, until when and why, and when each copy was last proved."""
    dataset = here.view.dataset(dataset_id)
    return tabbed(here, dataset, "safety", safety=_safety(here, dataset), **keeping.context(here, dataset_id))


def tabbed(here: Visit, dataset: Dataset, tab: str, **context: Any) -> Response:
    """Return a tab of the dataset's page, with what all tabs show."""
    try:
        experiment = here.view.experiment(dataset.experiment_id)
    except NotFound:
        experiment = None
    offered = []
    if here.view.can(Verb.PROCESS, dataset_id=dataset.id):
        offered = process.accepting(dataset)
    children = here.view.children(dataset.id)
    left_out = set() if dataset.main_file else {"view"}
    if dataset.kind is DatasetKind.DERIVED and not children and not offered:
        left_out.add("results")
    return here.render(
        "dataset.html",
        dataset=dataset,
        experiment=experiment,
        tab=tab,
        offered=offered,
        children=children,
        left_out=left_out,
        looks=_looks(dataset),
        far=keeping.far(here, dataset),
        **context,
    )


def _looks(dataset: Dataset) -> str:
    """Return the word of the tab that shows tomography; empty where there is none."""
    if dataset.format in slices.SCANS:
        return "Projections"
    return "Slices" if dataset.technique in slices.TECHNIQUES and dataset.kind is DatasetKind.DERIVED else ""


def _correlation(here: Visit, dataset: Dataset) -> Response:
    """Return the overview of a correlation result: its curves."""
    found, why, tables = None, "your role does not include reading the data", []
    if here.view.can(Verb.READ, dataset_id=dataset.id):
        try:
            found = curves.curves(here.facility, dataset)
            tables = [(name, word) for name, word, is_there in _tables(found) if is_there]
        except LightkeepError as error:
            why = error.message
    made = _made_by(here, dataset)
    safe = _at_a_glance(here, dataset)
    return tabbed(here, dataset, "xpcs", curves=found, why=why, tables=tables, **safe, **made)


def _tables(found: curves.Curves) -> list[tuple[str, str, bool]]:
    """Return what can be had as CSV: name, words, and whether it is there."""
    return [
        ("g2", "g\u2082", bool(found.g2)),
        ("g2_twotime", "g\u2082 from two times", bool(found.two_time_bins)),
        ("saxs_1d", "Static curve", bool(found.saxs_1d)),
        ("intensity", "Intensity over time", bool(found.intensity)),
    ]


def _stack(here: Visit, dataset: Dataset) -> tuple[Stack | None, str]:
    """Return what there is to look at, or why there is nothing."""
    if not here.view.can(Verb.READ, dataset_id=dataset.id):
        return None, "your role does not include reading the data"
    if keeping.far(here, dataset) is not None:  # what the previews remember of it cannot be drawn any more
        return None, "its files are not near"
    try:
        return here.house.previews.describe(here.facility, dataset), ""
    except LightkeepError as error:
        return None, error.message


def _dataset(here: Visit, dataset_id: str) -> Dataset | None:
    try:
        found: Dataset = here.view.dataset(dataset_id)
    except NotFound:
        return None
    return found


def _made_by(here: Visit, dataset: Dataset) -> dict[str, Any]:
    """Return the run that made a dataset, where there was one that may be seen, and its parameters."""
    try:
        run = here.view.run(dataset.run_id) if dataset.run_id else None
    except NotFound:
        run = None
    return {"run": run, "parameters": parameters(run, dataset, view=here.view) if run else []}


@dataclass(frozen=True)
class Copy:
    """A dataset's replicas on one store, taken together."""

    store_id: str
    tier: str
    states: tuple[tuple[str, int], ...]
    """State -> files, most frequent first."""
    files: int
    verified_at: datetime | None
    """When the copy that was proved longest ago was last read back; None when any never was."""
    proofs: tuple[str, ...]
    is_sound: bool


@dataclass(frozen=True)
class Safety:
    """Where a dataset's bytes are."""

    sentence: str
    hue: str
    copies: tuple[Copy, ...]


def _at_a_glance(here: Visit, dataset: Dataset) -> dict[str, Any]:
    """Return whether it is safe, and until when."""
    return {"safety": _safety(here, dataset), "leaving": keeping.leaving(here, dataset)}


def _safety(here: Visit, dataset: Dataset) -> Safety:
    stores = {record.id: record for record in here.view.stores()}
    by_store: dict[str, list[Replica]] = {}
    for replica in here.view.replicas(dataset.id):
        by_store.setdefault(replica.store_id, []).append(replica)
    copies = []
    for store_id, replicas in sorted(by_store.items()):
        tier = str(stores[store_id].tier) if store_id in stores else ""
        copies.append(_copy(store_id, tier, replicas, dataset.files))
    return Safety(*_sentence(copies), tuple(copies))


def _copy(store_id: str, tier: str, replicas: Sequence[Replica], files: int) -> Copy:
    times = [replica.verified_at for replica in replicas]
    return Copy(
        store_id,
        tier,
        tuple((str(state), n) for state, n in Counter(replica.state for replica in replicas).most_common()),
        len(replicas),
        None if None in times else min((each for each in times if each), default=None),
        tuple(sorted({str(replica.proof) for replica in replicas})),
        len(replicas) >= files and all(replica.state in _SOUND for replica in replicas),
    )


def _sentence(copies: Sequence[Copy]) -> tuple[str, str]:
    """Return the answer in one sentence, and its hue."""
    bad = [copy for copy in copies if any(state in ("suspect", "corrupt") for state, _ in copy.states)]
    sound = [copy for copy in copies if copy.is_sound]
    verified = [copy for copy in sound if all(state == "verified" for state, _ in copy.states)]
    numbers = {1: "One", 2: "Two", 3: "Three"}
    if bad:
        return f"The copy on {bad[0].store_id} is in doubt: bytes differ from their checksum.", "bad"
    if verified:
        copies_of = (
            f"{numbers.get(len(verified), len(verified))} verified cop{'y' if len(verified) == 1 else 'ies'}"
        )
        return f"{copies_of}, on {words.listed([copy.store_id for copy in verified])}.", "good"
    if sound:
        return f"On {words.listed([copy.store_id for copy in sound])}, not yet read back and proved.", "waiting"
    return "No complete copy is recorded.", "bad" if copies else "waiting"
