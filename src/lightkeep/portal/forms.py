"""A technique's form, made from the JSON Schema of its parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lightkeep.model.errors import InvalidInput

_KINDS = {
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "object": "mapping",
}
"""The kind of field for each type of JSON."""


@dataclass(frozen=True)
class Field:
    """One parameter, ready to draw."""

    name: str
    label: str
    kind: str
    """`number`, `integer`, `boolean`, `choice`, `dataset`, `list`, `mapping` or `text`."""
    help: str
    unit: str
    default: Any
    """None: derived from the data."""
    is_derived: bool
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    is_open: bool = False
    """True when `low` itself is not allowed."""
    input: str = ""
    """Format of the dataset that the parameter names, when it names one."""
    datasets: tuple[tuple[str, str], ...] = ()
    """(id, name) of the datasets that it may name."""
    reads: str = ""
    """Format of the measurements that it is about, when it is not about all."""
    is_required: bool = False
    """True when nothing stands in for it."""
    group: str = ""
    """Title under which it is folded away; empty for what most people set."""

    @property
    def range(self) -> str:
        """The allowed values in words."""
        if self.low is not None and self.high is not None:
            return f"From {self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"{'More than' if self.is_open else 'At least'} {self.low:g}"
        return f"At most {self.high:g}" if self.high is not None else ""


def is_told(field: Field, typed: Mapping[str, str]) -> bool:
    """Return whether something else than the default was typed in."""
    text = typed.get(field.name, "").strip()
    if field.kind == "boolean":
        return bool(typed) and (text == "on") != bool(field.default)
    return text not in ("", str(field.default))


def fields(schema: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a schema, in its order."""
    definitions, required = schema.get("$defs", {}), schema.get("required", ())
    found = (field(name, each, definitions) for name, each in schema.get("properties", {}).items())
    return [replace(each, is_required=True) if each.name in required else each for each in found]


def field(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> Field:
    """Return one field from its own schema; an empty one when nothing is known but the name."""
    options = [_resolved(each, definitions or {}) for each in schema.get("anyOf", [schema])]
    main = next((each for each in options if each.get("type") != "null"), {})
    choices = tuple(str(each) for each in main.get("enum", ([main["const"]] if "const" in main else [])))
    kind = "list" if main.get("items", {}).get("type") == "string" else _KINDS.get(main.get("type", ""), "text")
    unit = schema.get("unit", main.get("unit", ""))
    return Field(
        name,
        _label(name, schema.get("title", ""), unit),
        "dataset" if schema.get("input") else "choice" if choices else kind,
        schema.get("description", ""),
        unit,
        schema.get("default"),
        len(options) > 1 and any(each.get("type") == "null" for each in options),
        choices,
        main.get("minimum", main.get("exclusiveMinimum")),
        main.get("maximum", main.get("exclusiveMaximum")),
        "exclusiveMinimum" in main,
        schema.get("input", ""),
        reads=schema.get("reads", ""),
        group=schema.get("group", ""),
    )


def _label(name: str, title: str, unit: str) -> str:
    """Return the title that the technique gave; otherwise the name, without the unit that stands beside it.

    >>> _label("pixel_size_um", "Pixel Size Um", "um"), _label("center", "Rotation centre", "px")
    ('Pixel size', 'Rotation centre')
    """
    spaced = name.replace("_", " ")
    if title and title != spaced.title():  # which pydantic makes of the name
        return title
    return spaced.removesuffix(f" {unit}").capitalize()


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return {**definitions.get(name, {}), **schema} if name else schema


def values(wanted: list[Field], typed: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that were typed in; empty ones are left to their defaults.

    Raises
    ------
    InvalidInput: a field's text is not of its kind; `data["field"]` names it.
    """
    found: dict[str, Any] = {}
    for field in wanted:
        text = typed.get(field.name, "").strip()
        if field.kind == "boolean":
            found[field.name] = text == "on"
        elif text:
            found[field.name] = _value(field, text)
    return found


def _value(field: Field, text: str) -> Any:
    if field.kind == "list" and not text.startswith("["):
        return text.split()
    if field.kind == "mapping" and not text.startswith("{"):
        pairs = [line.partition("=") for line in text.splitlines() if line.strip()]
        return {name.strip(): value.strip() for name, _, value in pairs}
    if field.kind in ("text", "choice", "dataset", "list", "mapping"):
        if text[0] in "[{":
            try:
                return json.loads(text)
            except ValueError:
                return text
        return text
    try:
        return int(text) if field.kind == "integer" else float(text.replace(",", "."))
    except ValueError as error:
        noun = "a whole number" if field.kind == "integer" else "a number"
        message = f"{field.label}: `{text[:40]}` is not {noun}"
        raise InvalidInput(message, remedy="correct it, or leave it empty", field=field.name) from error
