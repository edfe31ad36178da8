"""Nouns to rows and back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import RowMapping

from lightkeep.catalog.sources import SourceKey
from lightkeep.catalog.text import encode_path, folded, json_safe, to_json, words
from lightkeep.model.datasets import Dataset, DatasetKind, DatasetState, File, Metadata, SkippedFile
from lightkeep.model.events import Event
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import Grant, Person, Role, Scope
from lightkeep.model.quantity import Quantity
from lightkeep.model.runs import Run, RunState
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord, Tier

_MOST_FIELDS = 2_000  # per dataset in the index of metadata; what is beyond stays in its JSON
_MOST_WORDS = 5_000  # per dataset in the full-text index


def station_of(row: Mapping[Any, Any]) -> Station:
    """Return the station of a row."""
    return Station(row["id"], row["name"], tuple(json.loads(row["techniques"])), row["created_at"])


def experiment_of(row: Mapping[Any, Any]) -> Experiment:
    """Return the experiment of a row."""
    return Experiment(
        id=row["id"],
        station_id=row["station_id"],
        title=row["title"],
        state=ExperimentState(row["state"]),
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        identifiers=json.loads(row["identifiers"]),
        policy_id=row["policy_id"],
        created_at=row["created_at"],
        closed_at=row["closed_at"],
        released_at=row["released_at"],
        datasets=row["datasets"],
        files=row["files"],
        size=row["size"],
    )


def person_of(row: Mapping[Any, Any]) -> Person:
    """Return the person of a row."""
    return Person(row["id"], row["name"], row["email"], row["created_at"], row["is_active"])


def grant_of(row: Mapping[Any, Any]) -> Grant:
    """Return the grant of a row."""
    return Grant(
        row["person_id"],
        Role(row["role"]),
        Scope(row["scope"]),
        row["scope_id"],
        created_at=row["created_at"],
        origin=row["origin"],
    )


def store_of(row: Mapping[Any, Any]) -> StoreRecord:
    """Return the store of a row."""
    return StoreRecord(
        id=row["id"],
        kind=row["kind"],
        location=os.fsdecode(row["location"]),
        uuid=row["uuid"],
        tier=Tier(row["tier"]),
        failure_domain=row["failure_domain"],
        is_managed=row["is_managed"],
        is_durable=row["is_durable"],
        capacity=row["capacity"],
        high=row["high"],
        low=row["low"],
        created_at=row["created_at"],
    )


def dataset_of(row: RowMapping, parents: tuple[str, ...]) -> Dataset:
    """Return the dataset of a row and of its rows in dataset_parent."""
    return Dataset(
        id=row["id"],
        experiment_id=row["experiment_id"],
        name=row["name"],
        kind=DatasetKind(row["kind"]),
        technique=row["technique"],
        state=DatasetState(row["state"]),
        format=row["format"],
        main_file=os.fsdecode(row["main_file"]),
        files=row["files"],
        size=row["size"],
        parents=parents,
        run_id=row["run_id"],
        metadata=metadata_of(row["metadata"]),
        created_at=row["created_at"],
        completed_at=row["completed_at"],
        created_by=row["created_by"],
    )


def file_of(row: Mapping[Any, Any]) -> File:
    """Return the file of a row."""
    return File(
        id=row["id"],
        dataset_id=row["dataset_id"],
        path=os.fsdecode(row["path"]),
        size=row["size"],
        sha256=bytes(row["sha256"]).hex(),
        mtime_ns=row["mtime_ns"],
        mode=row["mode"],
        version=row["version"],
    )


def replica_of(row: Mapping[Any, Any]) -> Replica:
    """Return the replica of a row."""
    return Replica(
        id=row["id"],
        file_id=row["file_id"],
        store_id=row["store_id"],
        key=os.fsdecode(row["key"]),
        state=ReplicaState(row["state"]),
        verified_at=row["verified_at"],
        proof=Proof(row["proof"]),
        created_at=row["created_at"],
    )


def skipped_of(row: Mapping[Any, Any]) -> SkippedFile:
    """Return the skipped file of a row."""
    return SkippedFile(
        row["dataset_id"], os.fsdecode(row["path"]), row["kind"], row["reason"], os.fsdecode(row["target"])
    )


def run_of(row: Mapping[Any, Any]) -> Run:
    """Return the run of a row."""
    values = dict(row)
    values["params"] = json.loads(row["params"])
    values["resolved"] = json.loads(row["resolved"])
    values["placement"] = json.loads(row["placement"])
    values["state"] = RunState(row["state"])
    return Run(**values)


def event_of(row: Mapping[Any, Any]) -> Event:
    """Return the event of a row."""
    return Event(**{**row, "detail": json.loads(row["detail"])})


def dataset_row(dataset: Dataset) -> dict[str, Any]:
    """Return the columns that are known when a dataset is added."""
    return {
        "id": dataset.id,
        "experiment_id": dataset.experiment_id,
        "name": dataset.name,
        "name_folded": folded(dataset.name),
        "kind": dataset.kind.value,
        "technique": dataset.technique,
        "state": DatasetState.RECEIVING.value,
        "format": dataset.format,
        "main_file": encode_path(dataset.main_file),
        "files": 0,
        "size": 0,
        "run_id": dataset.run_id,
        "metadata": metadata_json(dataset.metadata),
        "created_at": dataset.created_at,
        "completed_at": None,
        "created_by": dataset.created_by,
    }


def metadata_json(metadata: Metadata) -> str:
    """Return metadata as it is kept. A quantity that is not finite becomes text: no search can compare it."""
    finite = {k: q for k, q in metadata.quantities.items() if math.isfinite(q.value) and math.isfinite(q.value_si)}
    strange = {k: str(q) for k, q in metadata.quantities.items() if k not in finite}
    return to_json(
        {
            "quantities": {k: [float(q.value), q.unit, float(q.value_si), q.unit_si] for k, q in finite.items()},
            "texts": {**strange, **metadata.texts},
            "rest": metadata.rest,
        }
    )


def metadata_of(text: str) -> Metadata:
    """Return the metadata of its JSON."""
    kept = json.loads(text)
    return Metadata({k: Quantity(*q) for k, q in kept["quantities"].items()}, kept["texts"], kept["rest"])


def field_rows(dataset_id: str, metadata: Metadata) -> list[dict[str, Any]]:
    """Return what the index of metadata holds: typed fields first, then the rest under its path, `a.b.c`."""
    rows: dict[str, dict[str, Any]] = {}

    def put(key: str, text: str | None, quantity: Quantity | None) -> None:
        key = folded(key)
        if key in rows or len(rows) >= _MOST_FIELDS:
            return
        number = (quantity.value, quantity.unit, quantity.value_si, quantity.unit_si) if quantity else (None,) * 4
        names = ("value", "unit", "si_value", "si_unit")
        rows[key] = {
            "dataset_id": dataset_id,
            "key": key,
            "text_value": text,
            **dict(zip(names, number, strict=True)),
        }

    for key, quantity in metadata.quantities.items():
        put(key, None, quantity)
    for key, text in metadata.texts.items():
        put(key, folded(text), None)
    for key, leaf in _leaves("", metadata.rest):
        if isinstance(leaf, str | bool):
            put(key, folded(str(leaf)), None)
        elif isinstance(leaf, int | float) and abs(leaf) < 1e300:
            put(key, None, Quantity.of(float(leaf)))
    return list(rows.values())


def dataset_words(dataset: Dataset, experiment: Experiment) -> list[str]:
    """Return the words that full text finds a dataset by."""
    texts = [
        dataset.name,
        dataset.id,
        dataset.technique,
        dataset.format,
        os.fsencode(dataset.main_file).decode(errors="replace"),
        experiment.id,
        experiment.title,
        experiment.station_id,
        *experiment.identifiers.values(),
        *dataset.metadata.texts.values(),
        *(leaf for _, leaf in _leaves("", dataset.metadata.rest) if isinstance(leaf, str)),
    ]
    return words("\n".join(texts))[:_MOST_WORDS]


def experiment_searched(experiment: Experiment) -> str:
    """Return what a search for experiments looks into."""
    return " ".join(words(" ".join([experiment.id, experiment.title, *experiment.identifiers.values()])))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), item)
    elif not isinstance(value, list):
        yield path, json_safe(value)


def source_of(row: Mapping[Any, Any]) -> SourceKey:
    """Return the source key of a row."""
    values = dict(row)
    values["root"], values["path"] = os.fsdecode(row["root"]), os.fsdecode(row["path"])
    return SourceKey(**values)
