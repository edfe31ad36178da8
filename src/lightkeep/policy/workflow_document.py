"""The text of a workflow: TOML in, `Workflow` out, and back; every mistake named with its line and its remedy."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from typing import Any, NoReturn

from lightkeep.model.errors import InvalidInput
from lightkeep.model.workflows import (
    Input,
    RunsIf,
    Stage,
    Trigger,
    TriggerKind,
    Workflow,
    WorkflowVersion,
)

RESERVED = ("input", "folder", "output")
"""Placeholders that every command has: main file and folder of what it works on, and the folder to write in."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,40}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_ADDRESS = re.compile(r"[!-?A-~]+@[!-?A-~]+")
_TOP = ("id", "description", "stations", "enabled", "trigger", "stage", "notify")
_TRIGGER = ("on", "find", "every_s", "daily_at")
_TECHNIQUE = ("technique", "params", "engine")
_COMMAND = ("command", "inputs", "outputs")
_STAGE = ("name", "source", "after", "when", "runs_if", "retries", "pause_s", "timeout_s", *_TECHNIQUE, *_COMMAND)
_INPUT = ("type", "default", "low", "high", "choices")
_TYPES = ("number", "integer", "text")
_MOST_STAGES = 100


def adopted(version: WorkflowVersion) -> Workflow:
    """Return the workflow of a version in the catalogue."""
    return parse(version.text, version=version.version, author=version.author)


def parse(text: str, *, version: int = 0, author: str = "") -> Workflow:
    """Return the workflow of a text.

    Raises
    ------
    InvalidInput: the text is no TOML, a key is unknown or missing, or a value cannot be meant so; with the line,
        also in `data["line"]`.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"the workflow is no TOML: {error}", remedy="correct the line that it names") from error
    return _Reader(text, tree).workflow(version, author)


class _Reader:
    """One document being read: knows on which line a key stands."""

    def __init__(self, text: str, tree: Mapping[str, Any]) -> None:
        self._lines = text.splitlines()
        self._tree = tree

    def workflow(self, version: int, author: str) -> Workflow:
        tree = self._tree
        self._known(tree, _TOP, "")
        if not isinstance(tree.get("id"), str) or not _NAME.fullmatch(tree["id"]):
            self._refuse("", "id", "`id` is missing or no name", 'write id = "a-name": lower case, digits, dash')
        stages = tuple(self._stage(table, number) for number, table in enumerate(self._tables("stage")))
        if not stages or len(stages) > _MOST_STAGES:
            self._refuse("", "stage", f"a workflow has 1 to {_MOST_STAGES} stages", "add a table [[stage]]")
        self._check_order(stages)
        notify = tree.get("notify", {})
        if not isinstance(notify, dict):
            self._refuse("", "notify", "`notify` must be a table", "write [notify]")
        self._known(notify, ("to", "on"), "notify")
        addresses = self._texts(notify, "to", "notify")
        for each in addresses:
            if not _ADDRESS.fullmatch(each):
                self._refuse("notify", "to", f"{each!r} is no address", "write name@host")
        on = self._texts(notify, "on", "notify") or ("failed",)
        if bad := [each for each in on if each not in ("done", "failed", "cancelled")]:
            self._refuse("notify", "on", f"{bad[0]!r} is no end of a flow", "one of done, failed, cancelled")
        enabled = tree.get("enabled", True)
        if not isinstance(enabled, bool):
            self._refuse("", "enabled", "`enabled` must be true or false", "write enabled = true")
        return Workflow(
            tree["id"],
            stages,
            tuple(self._trigger(table, number) for number, table in enumerate(self._tables("trigger"))),
            self._texts(tree, "stations", ""),
            addresses,
            on,
            enabled,
            self._text(tree, "description", ""),
            version,
            author,
        )

    # ---- parts

    def _trigger(self, table: Mapping[str, Any], number: int) -> Trigger:
        where = f"trigger {number}"
        self._known(table, _TRIGGER, where)
        on = self._choice(table, "on", tuple(TriggerKind), "", where)
        if not on:
            self._refuse(where, "on", "`on` is missing", 'write on = "dataset" or on = "schedule"')
        every, daily = self._count(table, "every_s", 0, where), self._text(table, "daily_at", where)
        if daily and not _CLOCK.fullmatch(daily):
            self._refuse(where, "daily_at", f"{daily!r} is no time of day", 'write daily_at = "03:00" (UTC)')
        if (on == TriggerKind.SCHEDULE) is not (bool(every) is not bool(daily)) or (every and daily):
            self._refuse(where, "on", "a schedule has `every_s` or `daily_at`, nothing else has", "give just one")
        return Trigger(TriggerKind(on), self._text(table, "find", where), every, daily)

    def _stage(self, table: Mapping[str, Any], number: int) -> Stage:
        where = f"stage {number}"
        self._known(table, _STAGE, where)
        name = self._text(table, "name", where)
        if not _NAME.fullmatch(name):
            self._refuse(where, "name", f"`name` is {name!r}", 'write name = "a-name": lower case, digits, dash')
        technique, command = self._text(table, "technique", where), self._arguments(table, where)
        if bool(technique) is bool(command):
            self._refuse(where, "name", f"stage {name} has a `technique` or a `command`", "give just one of them")
        for key in _COMMAND if technique else _TECHNIQUE:
            if key in table:
                kind = "technique" if technique else "command"
                self._refuse(where, key, f"a {kind} takes no `{key}`", f"remove `{key}`")
        stage = Stage(
            name,
            technique,
            self._table(table, "params", where),
            command,
            {key: self._input(key, value, where) for key, value in self._table(table, "inputs", where).items()},
            self._outputs(table, where),
            self._text(table, "source", where),
            self._texts(table, "after", where),
            self._text(table, "when", where),
            RunsIf(self._choice(table, "runs_if", tuple(RunsIf), RunsIf.SUCCESS, where)),
            self._count(table, "retries", 0, where, most=20),
            self._count(table, "pause_s", 10, where),
            self._count(table, "timeout_s", 0, where),
            self._text(table, "engine", where),
        )
        if command:
            self._check_places(stage, where)
        return stage

    def _arguments(self, table: Mapping[str, Any], where: str) -> tuple[str, ...]:
        value = table.get("command")
        if value is None:
            return ()
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
            self._refuse(
                where, "command", "`command` must be a list of texts", 'write ["program", "argument", "{input}"]'
            )
        return tuple(value)

    def _outputs(self, table: Mapping[str, Any], where: str) -> dict[str, str]:
        found = self._table(table, "outputs", where)
        for key, value in found.items():
            if (
                not _KEY.fullmatch(key)
                or key in RESERVED
                or not isinstance(value, str)
                or not _FILE.fullmatch(value)
            ):
                self._refuse(
                    where, "outputs", f"output `{key}` names no file", 'write outputs = {mask = "mask.h5"}'
                )
        if "command" in table and not found:
            self._refuse(where, "command", "a command without outputs makes no dataset", "add outputs = {...}")
        return dict(found)

    def _input(self, key: str, table: Any, where: str) -> Input:
        place = f"input `{key}`"
        if not _KEY.fullmatch(key) or key in RESERVED or not isinstance(table, dict):
            self._refuse(where, "inputs", f"{place} is no declaration", 'write {sigma = {type = "number"}}')
        self._known(table, _INPUT, where, at="inputs")
        if table.get("type") not in _TYPES:
            self._refuse(where, "inputs", f"{place} has no type", f"one of {', '.join(_TYPES)}")
        found = Input(
            table["type"],
            table.get("default"),
            table.get("low"),
            table.get("high"),
            tuple(table.get("choices", ())),
        )
        if found.default is not None and (why := wrong(found, found.default)):
            self._refuse(where, "inputs", f"{place}: its default {why}", "correct it")
        return found

    def _check_places(self, stage: Stage, where: str) -> None:
        """Every placeholder means something, and everything that is declared is used."""
        known = {*RESERVED, *stage.inputs, *stage.outputs}
        if both := set(stage.inputs) & set(stage.outputs):
            self._refuse(where, "outputs", f"`{min(both)}` is input and output", "give it another name")
        used: set[str] = set()
        for argument in stage.command:
            for found in _PLACE.finditer(argument):
                if found[1] is None and found[0] in "{}":
                    self._refuse(
                        where, "command", f"a brace stands alone in {argument!r}", "write {{ or }} for it"
                    )
                if found[1] is not None and found[1] not in known:
                    meant = _meant(found[1], known)
                    self._refuse(where, "command", f"nothing is called {{{found[1]}}}{meant}", "declare it")
                used.add(found[1] or "")
        if not used & {*stage.outputs, "output"}:
            self._refuse(where, "command", "it is not told where to write", "use {output} or an output's name")
        if unused := set(stage.inputs) - used:
            self._refuse(
                where, "inputs", f"input `{min(unused)}` is not used", "use it in `command`, or remove it"
            )

    def _check_order(self, stages: Sequence[Stage]) -> None:
        """Each stage needs only stages before it: so there is no cycle."""
        before: list[str] = []
        names = [each.name for each in stages]
        for number, stage in enumerate(stages):
            where = f"stage {number}"
            if stage.name in before:
                self._refuse(where, "name", f"there are two stages named {stage.name}", "give each its own name")
            for key, needed in (("source", (stage.source,) if stage.source else ()), ("after", stage.after)):
                for name in needed:
                    if name not in before:
                        why = "comes later" if name in names else f"does not exist{_meant(name, names)}"
                        self._refuse(where, key, f"stage {name!r} {why}", "name a stage that stands above")
            if stage.runs_if is not RunsIf.SUCCESS and stage.source:
                self._refuse(
                    where, "runs_if", "what has failed has no result to work on", "use `after`, no `source`"
                )
            if stage.runs_if is not RunsIf.SUCCESS and not stage.after:
                self._refuse(where, "runs_if", "there is no stage to look at", "name it in `after`")
            before.append(stage.name)

    # ---- kinds of values

    def _tables(self, key: str) -> list[Mapping[str, Any]]:
        found = self._tree.get(key, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self._refuse("", key, f"`{key}` must be a list of tables", f"write [[{key}]]")
        return found

    def _known(self, table: Mapping[str, Any], keys: Collection[str], where: str, *, at: str = "") -> None:
        for key in table:
            if key not in keys:
                remedy = f"keys here: {', '.join(keys)}"
                self._refuse(where, at or key, f"`{key}` is not a key{_meant(key, keys)}", remedy)

    def _table(self, table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            self._refuse(where, key, f"`{key}` must be a table", f"write {key} = {{...}}")
        return value

    def _text(self, table: Mapping[str, Any], key: str, where: str) -> str:
        value = table.get(key, "")
        if not isinstance(value, str) or (key in table and not value.strip()) or not value.isprintable():
            self._refuse(where, key, f"`{key}` must be a text on one line", "write it in quotes")
        return value.strip()

    def _texts(self, table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
        value = table.get(key, [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(each, str) and each.strip() for each in listed):
            self._refuse(where, key, f"`{key}` must be a list of texts", 'write ["one", "two"]')
        return tuple(each.strip() for each in listed)

    def _choice(self, table: Mapping[str, Any], key: str, among: Sequence[str], default: str, where: str) -> str:
        value = table.get(key, default)
        if value != default and value not in among:
            self._refuse(where, key, f"{value!r} is no `{key}`", f"one of {', '.join(among)}")
        return str(value)

    def _count(
        self, table: Mapping[str, Any], key: str, default: int, where: str, *, most: int = 31_536_000
    ) -> int:
        value = table.get(key, default)
        if type(value) is not int or not 0 <= value <= most:
            self._refuse(where, key, f"`{key}` must be a whole number from 0 to {most}", f"e.g. {key} = {default}")
        return value

    def _refuse(self, where: str, key: str, why: str, remedy: str) -> NoReturn:
        line = self._line(where, key)
        raise InvalidInput(f"line {line}: {why}", remedy=remedy, line=line)

    def _line(self, where: str, key: str) -> int:
        """Return where a key stands in a table, `stage 2` counted from 0; else the table's own line."""
        kind, _, number = where.partition(" ")
        seen, inside, begin = -1, not where, 1
        for at, line in enumerate(self._lines, 1):
            head = re.match(r"\s*\[\[?\s*([\w.\" -]+?)\s*\]", line)
            if head:
                name = head[1].replace('"', "").replace(" ", "")
                if name == kind and kind:
                    seen += 1
                    inside = seen == int(number or 0)
                    begin = at if inside else begin
                elif inside and kind and name.startswith(f"{kind}."):
                    if name.split(".")[1] == key:
                        return at
                else:
                    inside = False
                if not where and name.split(".")[0] == key:
                    return at
            elif inside and re.match(rf"\s*\"?{re.escape(key)}\"?\s*[=.]", line):
                return at
        return begin


def _meant(word: str, words: Collection[str]) -> str:
    close = get_close_matches(word, list(words), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


# ---- values of a command


def wrong(declared: Input, value: Any) -> str:
    """Return what is wrong with a value of an input; empty: nothing."""
    kinds: dict[str, Any] = {"number": (int, float), "integer": (int,), "text": (str,)}
    if isinstance(value, bool) or not isinstance(value, kinds[declared.type]):
        return f"is no {declared.type}"
    if isinstance(value, str):
        if not value.isprintable() or value.startswith("-") or len(value) > 1_000:
            return "is no plain text of one line that does not begin with a dash"
        is_allowed = not declared.choices or value in declared.choices
        return "" if is_allowed else f"is none of {', '.join(declared.choices)}"
    number = float(value)
    if not isfinite(number):
        return "is not finite"
    if declared.low is not None and number < declared.low:
        return f"is less than {declared.low}"
    return f"is more than {declared.high}" if declared.high is not None and number > declared.high else ""


def values_of(stage: Stage, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a command's inputs, defaults included.

    Raises
    ------
    InvalidInput: one is missing, unknown, or not what was declared.
    """
    for key in given:
        if key not in stage.inputs:
            raise InvalidInput(
                f"stage {stage.name} has no input `{key}`{_meant(key, stage.inputs)}",
                remedy=f"its inputs: {', '.join(stage.inputs) or 'none'}",
                field=key,
            )
    values = {key: given.get(key, declared.default) for key, declared in stage.inputs.items()}
    for key, value in values.items():
        why = "is missing" if value is None else wrong(stage.inputs[key], value)
        if why:
            raise InvalidInput(f"stage {stage.name}: input `{key}` {why}", remedy="correct it", field=key)
    return values


def filled(command: Sequence[str], places: Mapping[str, Any]) -> list[str]:
    """Return a command with its placeholders filled in. Each argument stays one argument, whatever is in it.

    >>> filled(["cp", "{input}", "{{{n}}}"], {"input": "a b;c", "n": 2})
    ['cp', 'a b;c', '{2}']
    """

    def fill(found: re.Match[str]) -> str:
        return found[0][0] if found[1] is None else str(places[found[1]])

    return [_PLACE.sub(fill, argument) for argument in command]


# ---- back to text


def dump(workflow: Workflow) -> str:
    """Return the text of a workflow that was made as an object; `parse` gives the same object back."""
    lines = [f"id = {_toml(workflow.id)}"]
    lines += _pairs({"description": workflow.description, "stations": workflow.stations})
    if not workflow.enabled:
        lines.append("enabled = false")
    if workflow.notify:
        lines += ["", "[notify]", *_pairs({"to": workflow.notify, "on": workflow.notify_on})]
    for trigger in workflow.triggers:
        lines += ["", "[[trigger]]", f"on = {_toml(trigger.on.value)}"]
        lines += _pairs({"find": trigger.find, "every_s": trigger.every_s, "daily_at": trigger.daily_at})
    for stage in workflow.stages:
        lines += ["", "[[stage]]", f"name = {_toml(stage.name)}"]
        inputs = {key: _declared(each) for key, each in stage.inputs.items()}
        lines += _pairs({key: getattr(stage, key) for key in _STAGE if key not in ("name", "inputs", "pause_s")})
        lines += [*_pairs({"inputs": inputs}), f"pause_s = {stage.pause_s}"]
    return "\n".join(lines) + "\n"


def _declared(each: Input) -> dict[str, Any]:
    found = {key: getattr(each, key) for key in _INPUT}
    return {key: value for key, value in found.items() if value is not None and value != ()}


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in values.items() if value]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)
