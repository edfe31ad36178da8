"""A run's parameters as they read on a page: named, with units, and how those found from the data were found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from lightkeep import techniques
from lightkeep.catalog import View
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import NotFound
from lightkeep.model.runs import Run
from lightkeep.portal import forms, words

_FACTS = "process/facts/"
_PER_METHOD = "_per_method"


@dataclass(frozen=True)
class Parameter:
    """One parameter, ready to print."""

    label: str
    value: Markup
    """With its uncertainty, where one is known."""
    unit: str
    is_derived: bool
    """True when nobody gave it: it was found from the data."""
    is_default: bool
    """True when nobody gave it: it is what the technique usually takes."""
    methods: tuple[tuple[str, str], ...] = ()
    """(method, value) where several ways of finding it were compared."""


def parameters(run: Run, result: Dataset | None = None, *, view: View | None = None) -> list[Parameter]:
    """Return a run's parameters in force; as asked for, until the preflight has said more.

    Parameters
    ----------
    result: the derived dataset, whose file may say how the values were found: the facts `<name>_per_method` and
        `sigma`, of the same parameter.
    view: of who reads it: datasets that parameters name are shown by name, where that person may see them.
    """
    known = {field.name: field for field in _fields(run.technique)}
    facts = _facts(result)
    found = []
    values = run.resolved or run.params
    for name in dict.fromkeys([*known, *values]):
        value = values.get(name)
        if value is None:
            continue
        field = known.get(name) or forms.field(name, {})
        is_given = run.params.get(name) is not None
        is_derived = field.is_derived and not is_given
        is_usual = name in known and not (is_given or is_derived)
        methods = _numbers(facts.get(name + _PER_METHOD)) if is_derived else {}
        if methods and isinstance(value, float):
            found.append(_compared(field, value, _numbers(facts).get("sigma", 0.0), methods))
        else:
            shown = _named(view, value) if field.input and view else words.plain(value)
            found.append(Parameter(field.label, shown, field.unit, is_derived, is_usual))
    return found


def _fields(technique: str) -> list[forms.Field]:
    if technique not in techniques.names():
        return []
    return forms.fields(techniques.get(technique).Params.model_json_schema())


def _facts(result: Dataset | None) -> dict[str, Any]:
    rest = {} if result is None else result.metadata.rest
    return {key.removeprefix(_FACTS): _decoded(value) for key, value in rest.items() if key.startswith(_FACTS)}


def _decoded(value: Any) -> Any:
    """Return what a fact was before it became text in the file."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _numbers(values: Any) -> dict[str, float]:
    """Return those of a mapping's values that are finite numbers; a file may say anything."""
    items = values.items() if isinstance(values, Mapping) else ()
    return {str(name): value for name, value in items if isinstance(value, float) and math.isfinite(value)}


def _compared(field: forms.Field, value: float, sigma: float, methods: Mapping[str, float]) -> Parameter:
    text = words.rounded(value, sigma) + (f" ± {words.rounded(sigma, sigma)}" if sigma > 0 else "")
    each = tuple((method, words.rounded(at, sigma)) for method, at in methods.items())
    return Parameter(field.label, escape(text), field.unit, True, False, each)


def _named(view: View, dataset_id: Any) -> Markup:
    try:
        name = view.dataset(str(dataset_id)).name
    except NotFound:
        return words.plain(dataset_id)
    return Markup('<a href="/datasets/{}">{}</a>').format(dataset_id, name)
