"""What a run's parameters say beside numbers: other datasets that it is given, and how its own file is read.

A field of a technique's `Params` with `json_schema_extra={"input": FORMAT}` names one: by id, by EXPERIMENT/NAME,
or by its name in the experiment of the dataset. The run keeps the id, so its command can be repeated anywhere.
One with `{"reads": FORMAT}` is an option of that format's `open`, for what such files do not say themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightkeep.facility import Facility
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset, DatasetState
from lightkeep.model.errors import InvalidInput, NotFound
from lightkeep.model.people import SERVICE, Principal, Verb


def formats_of(technique: str) -> dict[str, str]:
    """Return parameter -> format of the dataset that it names, for the parameters that name one."""
    return _marked(technique, "input")


def reading(technique: str, params: Mapping[str, Any], format_name: str) -> dict[str, Any]:
    """Return the options of a format's `open` that the parameters give.

    Raises
    ------
    InvalidInput: one of them is for files of another format.
    """
    from lightkeep import techniques

    chosen = techniques.get(technique).Params(**params)
    found = {name: getattr(chosen, name) for name in _marked(technique, "reads")}
    for name, wanted in _marked(technique, "reads").items():
        if found[name] is not None and wanted != format_name:
            raise InvalidInput(
                f"{name} is for files of format {wanted}, this one is {format_name or 'unknown'}",
                remedy=f"leave {name} out",
                field=name,
            )
    return {name: value for name, value in found.items() if value is not None}


def _marked(technique: str, key: str) -> dict[str, str]:
    """Return parameter -> what its schema says under a key, for the parameters that say it."""
    from lightkeep import techniques

    fields = techniques.get(technique).Params.model_fields
    extras = {name: field.json_schema_extra for name, field in fields.items()}
    return {name: str(extra[key]) for name, extra in extras.items() if isinstance(extra, dict) and key in extra}


def identified(
    facility: Facility, technique: str, params: Mapping[str, Any], *, experiment_id: str, principal: Principal
) -> dict[str, Any]:
    """Return the parameters with ids where they name datasets.

    Raises
    ------
    NotFound: there is no such dataset, or the principal may not see it. Forbidden: sees it, may not read it.
    InvalidInput: it is not complete, or of another format than the technique needs.
    """
    found = dict(params)
    for name, wanted in formats_of(technique).items():
        if params.get(name):
            dataset = _find(facility, str(params[name]), experiment_id, principal)
            _check(dataset, name, wanted)
            found[name] = dataset.id
    return found


def _find(facility: Facility, asked: str, experiment_id: str, principal: Principal) -> Dataset:
    view = facility.catalog.view(principal)
    found: Dataset | None = None
    if asked.startswith("ds_"):
        found = view.dataset(asked)
    else:
        place, slash, name = asked.partition("/")
        found = view.dataset_named(place, name) if slash else view.dataset_named(experiment_id, asked)
    if found is None:
        raise NotFound(
            f"dataset `{asked}` does not exist", remedy=f"`lightkeep ls --experiment {experiment_id}` lists them"
        )
    view.require(Verb.READ, dataset_id=found.id)
    return found


def _check(dataset: Dataset, name: str, wanted: str) -> None:
    if dataset.state is not DatasetState.COMPLETE:
        raise InvalidInput(f"{name}: dataset {dataset.name} is {dataset.state}", remedy="choose a complete one")
    if dataset.format != wanted:
        raise InvalidInput(
            f"{name}: dataset {dataset.name} is of format {dataset.format or 'unknown'}, not {wanted}",
            remedy=f"choose a dataset of format {wanted}",
            field=name,
        )


def readable(
    facility: Facility, technique: str, params: Mapping[str, Any], *, created_by: str
) -> dict[str, Dataset]:
    """Return parameter -> dataset of what a run was given, as long as who asked for the run may still read it.

    Raises
    ------
    NotFound, Forbidden: may not any more.
    """
    principal = SERVICE if created_by == SERVICE.id else Principal(created_by)
    names = [name for name in formats_of(technique) if params.get(name)]
    return {name: _find(facility, str(params[name]), "", principal) for name in names}


def places(facility: Facility, inputs: Mapping[str, Dataset]) -> dict[str, tuple[str, str]]:
    """Return parameter -> (path on this machine, format) of each input's main file."""
    return {
        name: (str(local_path(facility, each.id, each.main_file)), each.format) for name, each in inputs.items()
    }
