"""What a technique offers. A technique is one module; the module itself is the object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lightkeep.model.datasets import Dataset
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity

Report = Callable[[float, str], None]
"""Called with the fraction done (0 to 1) and one line of what is being done."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What an output is, before it exists."""

    axes: tuple[str, ...]
    """Names of the axes, slowest first. The axis named as SPLIT is the one that pieces share out."""
    unit: str
    label: str
    """What the values are."""
    view: str = "image"
    """Preferred view: `image`, `stack`, `curve`."""


@dataclass(frozen=True)
class Preflight:
    """What will happen if this is run: known within seconds."""

    params: Mapping[str, Any]
    """Every parameter's value in force: those given, and the defaults derived from the data."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each output that will be made."""
    dtypes: Mapping[str, str]
    """numpy dtype name of each output."""
    length: int
    """Number of indices along the axis SPLIT (1 when it is None)."""
    memory_bytes: int
    """Peak memory of one piece."""
    seconds: float
    """Estimated time on one core."""
    warnings: Sequence[str] = field(default_factory=tuple)
    """What the user should know, e.g. `4 of 10 flats are empty and were left out`."""
    piece: int = 0
    """Preferred number of indices per piece; 0: let the engine choose."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON-safe facts about how the defaults were found, e.g. the rotation centre per method."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Unit of an output, where the data decide it; the one of its `OutputSpec` otherwise."""
    steps: Mapping[str, Quantity] = field(default_factory=dict)
    """Distance between neighbours along an axis, by its name, e.g. the pixel size; absent: not known."""


class Technique(Protocol):
    """The members of a technique's module. Incremental techniques have start/push/merge/finish, others run.

    run(source, params, report, begin, end) -> {output: array of indices begin..end along SPLIT}

    start(source, params, begin, end) -> state of the piece begin..end along SPLIT
    push(state, block, begin) -> state;  merge(state, state) -> state
    finish(state, params) -> {output: array, or an `Output` whose scales and unit come from the computation}

    With SPLIT = "frames" each piece is pushed arrays of its own frames. With any other SPLIT each piece is pushed
    every block of `blocks(source, params)`, which have `begin`, and takes its own share of each. An output that
    the preflight does not name is not made.

    Optional: `flags(state, params)` -> sentences for the run's message about what was found in the data;
    `results(params)` -> those of RESULTS that these parameters ask for; all of them without it;
    `previews(outputs)` -> {name: 2-D array} for thumbnails, where the middle of each output would not do;
    `snapshot(state, params)` -> what a page shows of a measurement that is being followed, small and JSON-safe:
    an incremental technique that has it can work live;
    `idle(state)` -> state: called while it follows and no frame comes, to have less to do after the last one;
    `enough(state, params)` -> why the measurement may end, JSON-safe, or nothing: it goes on. An acquisition whose
    series it follows then tells the detector.

    A field of Params with `json_schema_extra={"input": FORMAT}` names another dataset of that format, by id or by
    name. It is found and opened for the run, and stands in `Source.inputs` under the field's name. One with
    `{"reads": FORMAT}` and None as its default is handed to that format's `open` by its name, and refused where a
    measurement is of another format: for what such files do not say themselves. Forms fold those with
    `{"group": TITLE}` away under that title; what most people set has none.
    """

    __name__: str
    Params: Any
    """pydantic model: units, ranges and help text in its fields; CLI, HTTP and portal forms come from it."""
    OUTPUTS: Mapping[str, OutputSpec]
    RESULTS: Sequence[str]
    """Names of the formats that its results are written in; the first one is the main file."""
    SPLIT: str | None
    """The axis along which the work may be cut."""

    def accepts(self, dataset: Dataset) -> bool:
        """True when the technique can work on this dataset, from its record alone."""
        ...

    def preflight(self, source: Source, params: Any) -> Preflight:
        """Sizes, time, memory, warnings, and the parameters in force. MUST raise InvalidInput for data or
        parameters that cannot work, before anything is spent."""
        ...
