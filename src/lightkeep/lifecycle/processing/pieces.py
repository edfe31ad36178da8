"""What an engine runs for a run: the preflight, the pieces, the result. Each is one task in any process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lightkeep import formats, techniques
from lightkeep.lifecycle.processing import run_log
from lightkeep.lifecycle.processing.scratch import Plan, Scratch, storage_error
from lightkeep.model.datasets import Metadata
from lightkeep.model.engines import Task
from lightkeep.model.errors import RunFailed
from lightkeep.model.formats import Array, Output, Result, Source
from lightkeep.model.techniques import OutputSpec, Preflight, Technique

BLOCK_BYTES = 64 << 20
"""What an incremental technique is handed at once."""


@dataclass(frozen=True)
class Job:
    """What every task of a run needs to know; picklable."""

    path: str
    """The input's main file, on this machine."""
    format: str
    technique: str
    folder: str
    """The run's scratch folder."""
    beside: tuple[str, ...] = ()
    """Further files of the input on this machine, which the main file may refer to."""
    inputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Parameter -> (main file on this machine, format) of the other datasets that the run was given."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """Options of the format's `open`; see `lifecycle.processing.inputs.reading`."""

    def task(self, function: str, **arguments: Any) -> Task:
        """Return the task that calls one of this module's functions."""
        named = f"{__name__}:{function}"
        return Task(named, {"job": self, **arguments}, reads=self.files(), works_in=self.folder)

    def files(self) -> tuple[str, ...]:
        """Return every file on this machine that the tasks read."""
        return (self.path, *self.beside, *(path for path, _format in self.inputs.values()))

    def open(self) -> Source:
        """Open the measurement, with the other datasets that the run was given in `inputs`."""
        return with_inputs(self.open_alone(), self.inputs)

    def open_alone(self) -> Source:
        """Open the measurement without them."""
        opener: Callable[..., Source] = formats.get(self.format).open
        return opener(Path(self.path), **self.reading)


def with_inputs(source: Source, places: Mapping[str, tuple[str, str]]) -> Source:
    """Return the source with its inputs opened, by parameter from (path, format); none stays open on an error."""
    with ExitStack() as opened:
        opened.callback(source.close)
        inputs = {
            name: opened.enter_context(formats.get(kind).open(Path(path))) for name, (path, kind) in places.items()
        }
        opened.pop_all()
    return replace(source, inputs=inputs) if inputs else source


def preflight(job: Job, params: dict[str, Any]) -> Preflight:
    """Ask the technique what will happen."""
    technique = techniques.get(job.technique)
    with run_log.task(Path(job.folder), "preflight"), job.open() as source:
        found: Preflight = technique.preflight(source, technique.Params(**params))
        return found


def compute(job: Job, index: int) -> None:
    """Compute one piece into the run's scratch folder and mark it as done."""
    scratch = Scratch(Path(job.folder))
    if not scratch.is_finished(index):
        with run_log.task(scratch.folder, f"piece-{index:05d}"):
            _compute(job, index, scratch)


def _compute(job: Job, index: int, scratch: Scratch) -> None:
    plan = scratch.saved_plan()
    technique: Any = techniques.get(job.technique)
    params = technique.Params(**plan.params)
    begin, end = plan.cuts[index]
    progress = scratch.progress()

    def report(fraction: float, _text: str = "") -> None:
        progress[index] = fraction

    with job.open() as source:
        if is_incremental(technique):
            scratch.finish_piece(index, _push_blocks(technique, source, params, begin, end, report))
        else:
            outputs = technique.run(source, params, report, begin, end)
            _fill(scratch, technique, outputs, begin, end)
            scratch.finish_piece(index)
    progress[index] = 1.0


def is_incremental(technique: Any) -> bool:
    """True for a technique with start, push, merge and finish."""
    return hasattr(technique, "start")


def _push_blocks(technique: Any, source: Source, params: Any, begin: int, end: int, report: Any) -> Any:
    state = technique.start(source, params, begin, end)
    for block, first, done in blocks(technique, source, params, begin, end):
        state = technique.push(state, block, first)
        report(done, "")
    return state


def blocks(technique: Any, source: Source, params: Any, begin: int, end: int) -> Iterator[tuple[Any, int, float]]:
    """What one piece is pushed: (block, its first frame, fraction done after it); see `model.techniques`."""
    frames = source.arrays["frames" if "frames" in source.arrays else "projections"]
    if technique.SPLIT == "frames":
        size = max(1, BLOCK_BYTES // max(1, int(np.prod(frames.shape[1:])) * frames.dtype.itemsize))
        for first in range(begin, end, size):
            last = min(first + size, end)
            yield frames[first:last], first, (last - begin) / (end - begin)
    else:
        for block in technique.blocks(source, params):
            yield block, block.begin, block.begin / max(1, frames.shape[0])


def _fill(scratch: Scratch, technique: Technique, outputs: dict[str, Any], begin: int, end: int) -> None:
    """Copy a piece's values into their places. An output without the axis SPLIT is taken from the first piece."""
    for name in scratch.saved_plan().shapes:
        spec = technique.OUTPUTS[name]
        whole = scratch.array(name)
        part = part_of(whole, spec, technique.SPLIT, begin, end)
        if part is None:
            continue
        values = np.asarray(outputs[name])
        if values.shape != part.shape:
            raise RunFailed(
                f"{technique.__name__}: output `{name}` of {begin}:{end} has the shape {values.shape}, "
                f"its preflight said {part.shape}"
            )
        part[...] = values
        scratch.sync(name)


def part_of(
    whole: npt.NDArray[Any], spec: OutputSpec, split: str | None, begin: int, end: int
) -> npt.NDArray[Any] | None:
    """Return the view of an output that one piece fills, or None when it fills none of it."""
    if split in spec.axes:
        axis = spec.axes.index(split)
        return whole[(slice(None),) * axis + (slice(begin, end),)]
    return whole if begin == 0 else None


def write(
    job: Job, title: str, software: str, inputs: dict[str, str], command: str, metadata: Metadata | None = None
) -> list[str]:
    """Write the result's files in every format that the technique names; see `model.formats.Result`.

    Returns
    -------
    : their paths inside `Scratch.result`, main file first. Files that are there already are not written again:
        a writer may put the time of day into a file, and one run has one result.
    """
    scratch = Scratch(Path(job.folder))
    if scratch.result.is_dir():
        return scratch.written()
    technique: Any = techniques.get(job.technique)
    plan = scratch.saved_plan()
    values, flags = _finished(technique, scratch, plan)
    outputs = {name: _output(values[name], technique.OUTPUTS[name], plan, name) for name in values}
    if metadata is None:
        with job.open_alone() as source:
            metadata = source.metadata
    result = Result(
        technique=job.technique,
        title=title,
        outputs=outputs,
        default=next(iter(outputs)),
        params=plan.params,
        facts={**plan.facts, **({"flags": flags} if flags else {})},
        software=software,
        inputs=inputs,
        command=command,
        previews=_previews(technique, outputs),
        metadata=metadata,
    )
    write_result(scratch, technique, result, flags)
    return scratch.written()


def write_result(scratch: Scratch, technique: Any, result: Result, flags: Sequence[str]) -> None:
    """Write a result in every format that the technique names, and give the folder its name when all are there."""
    part = scratch.folder / "result.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        names = technique.RESULTS
        if hasattr(technique, "results"):
            names = technique.results(technique.Params(**result.params))
        files = [file for name in names for file in formats.get(name).write(part, result)]
    except OSError as error:
        raise storage_error(error, "the result") from error
    scratch.publish(part, [file.relative_to(part).as_posix() for file in files], flags)


def _output(values: Any, spec: OutputSpec, plan: Plan, name: str) -> Output:
    if isinstance(values, Output):
        return values
    steps = {axis: plan.steps[axis] for axis in spec.axes if axis in plan.steps}
    scales = {axis: step * np.arange(values.shape[spec.axes.index(axis)]) for axis, (step, _) in steps.items()}
    units = {axis: unit for axis, (_, unit) in steps.items()}
    return Output(values, spec.axes, plan.units.get(name, spec.unit), spec.label, scales, units)


def _finished(technique: Any, scratch: Scratch, plan: Plan) -> tuple[dict[str, Any], list[str]]:
    """Return the whole outputs, those that the pieces filled or those of the merged states; and the flags."""
    if not is_incremental(technique):
        return {name: scratch.array(name) for name in technique.OUTPUTS if name in plan.shapes}, []
    params = technique.Params(**plan.params)
    state = reduce(technique.merge, (scratch.state(index) for index in range(len(plan.cuts))))
    return technique.finish(state, params), flags_of(technique, state, params)


def flags_of(technique: Any, state: Any, params: Any) -> list[str]:
    """Return what a technique has to say about the data that it saw; nothing for one without `flags`."""
    return list(technique.flags(state, params)) if hasattr(technique, "flags") else []


def _previews(technique: Any, outputs: Mapping[str, Output]) -> dict[str, Any]:
    if hasattr(technique, "previews"):
        return dict(technique.previews(outputs))
    return {name: image for name, output in outputs.items() if (image := middle(output.data)) is not None}


def middle(array: Array) -> npt.NDArray[Any] | None:
    """Return the image in the middle of a stack, for a preview; None for what has fewer than two axes.

    >>> middle(np.arange(12).reshape(3, 2, 2)).tolist()
    [[4, 5], [6, 7]]
    """
    if len(array.shape) < 2:
        return None
    image: npt.NDArray[Any] = array[tuple(length // 2 for length in array.shape[:-2])]
    return image
