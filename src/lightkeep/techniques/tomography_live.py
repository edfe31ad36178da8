"""Tomography while it is measured: slices and their quality after every few projections, and when it is enough.

A few rows, spread over the detector, are reconstructed as the frames come. Two halves of the angles tell the
quality without the truth; a scan that has what its user asked for may be ended (`analysis.tomography.stop_rule`).
The whole volume is then made by `tomography` from what was measured.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Output, Source
from lightkeep.model.techniques import OutputSpec, Preflight

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lightkeep.analysis.tomography.stop_rule import Check, StopRule, Verdict
    from lightkeep.analysis.tomography.streaming import StreamingReconstruction

    Float32 = NDArray[np.float32]

_PROJECTION, _FLAT, _DARK = 0, 1, 2
_LEAST: Final = 8
_CENTER_AFTER: Final = 64
"""Projections after which the rotation centre is looked for, where it is not given."""
_SHOWN_PX: Final = 256


class Params(BaseModel, extra="forbid"):
    """What to look at, and what is enough."""

    center: float | None = Field(
        None,
        title="Rotation centre",
        ge=0,
        description="Column where the rotation axis is seen, from 0; found from the data when left out.",
        json_schema_extra={"unit": "px"},
    )
    rows: int = Field(
        16, ge=1, le=64, description="Detector rows that are reconstructed.", json_schema_extra={"unit": "px"}
    )
    planned: int | None = Field(None, ge=8, description="Projections of the whole scan, to tell what was saved.")
    window: int | None = Field(
        None, ge=8, description="Projections that are kept, for a sample that changes; all when left out."
    )
    stop: bool = Field(False, description="Have the detector stop when it is enough; otherwise only say so.")
    quality: float = Field(0.9, gt=0, lt=1, description="Agreement of two halves of the angles that is enough.")
    resolution_px: float = Field(
        3.0, ge=2, description="Smallest period that is to be resolved.", json_schema_extra={"unit": "px"}
    )
    change: float = Field(0.02, gt=0, description="Relative change between two checks that is still at rest.")
    least: int = Field(60, ge=8, description="Projections before which no scan ends.")
    step: int = Field(16, ge=1, le=1000, description="Projections between two checks.")


OUTPUTS = {
    "slices": OutputSpec(("rows", "y", "x"), "1/pixel", "Linear attenuation coefficient", view="stack"),
    "quality": OutputSpec(("projections",), "", "Agreement of two halves of the angles", view="curve"),
    "change": OutputSpec(("projections",), "", "Relative change since the check before", view="curve"),
    "resolution": OutputSpec(
        ("projections",), "pixel", "Period at which the halves agree by one half", view="curve"
    ),
}
RESULTS = ["nexus", "thumbnail"]
SPLIT = None


def accepts(dataset: Dataset) -> bool:
    """A scan that an acquisition recorded, frame by frame."""
    return dataset.kind is DatasetKind.RAW and dataset.format == "nxtomo"


def preflight(source: Source, params: Params) -> Preflight:
    """Say how much memory it takes; refuse what has no angles and kinds of frames."""
    if not {"frames", "image_key", "theta_deg"} <= source.arrays.keys():
        raise InvalidInput(
            f"{source.path.name} has no angle and kind for each frame",
            remedy="record it with an acquisition whose frames have rotation_angle and image_key",
        )
    count, rows, columns = source.arrays["frames"].shape
    if params.center is not None and not params.center <= columns - 1:
        raise InvalidInput(
            f"center {params.center:g} is outside the detector's {columns} columns",
            remedy=f"choose 0 to {columns - 1}, or leave it out",
        )
    known = source.arrays["image_key"][:]
    checks = len(_checks(int((known == _PROJECTION).sum()), params))
    used = min(params.rows, rows)
    kept = min(count, params.window or params.planned or 10_000)
    shapes = dict.fromkeys(OUTPUTS, (checks,))
    return Preflight(
        params=params.model_dump(),
        shapes={**shapes, "slices": (used, columns, columns)},
        dtypes={**dict.fromkeys(OUTPUTS, "float64"), "slices": "float32"},
        length=1,
        memory_bytes=4 * used * columns * kept + 1000 * columns**2 + (64 << 20),
        seconds=2e-7 * min(count, kept) * columns * used,
        piece=1,
    )


def _checks(count: int, params: Params) -> list[int]:
    """Numbers of projections at which the quality of a scan of `count` is looked at."""
    first = max(_LEAST, _CENTER_AFTER if params.center is None else 0)
    return [each for each in range(params.step, count + 1, params.step) if each >= first]


class State:
    """What is known of a scan. Between processes only what was found travels."""

    def __init__(self, source: Source, params: Params) -> None:
        import numpy as np

        self._source = source
        self._params = params
        _, rows, columns = source.arrays["frames"].shape
        self._rows = np.unique(np.linspace(0, rows - 1, min(params.rows, rows)).round().astype(int))
        self._columns = columns
        self._darks: list[Float32] = []
        self._flats: list[Float32] = []
        self._lines: list[Float32] = []
        self._theta: list[float] = []
        self._stream: StreamingReconstruction | None = None
        self._slices: Float32 = np.zeros((len(self._rows), columns, columns), np.float32)
        self.center = params.center
        self.taken = 0
        self.skipped = 0
        self.checks: list[Check] = []
        self.verdict: Verdict | None = None
        self.stopped: Verdict | None = None

    def __getstate__(self) -> dict[str, Any]:
        slices = self.slices()
        left: dict[str, Any] = {
            "_source": None,
            "_stream": None,
            "_lines": [],
            "_theta": [],
            "_flats": [],
            "_darks": [],
        }
        return {**self.__dict__, **left, "_slices": slices}

    @property
    def rule(self) -> StopRule:
        """What the user asked for."""
        from lightkeep.analysis.tomography.stop_rule import StopRule

        names = ("quality", "resolution_px", "change", "least", "step")
        return StopRule(**{name: getattr(self._params, name) for name in names})

    def push(self, frames: NDArray[Any], begin: int) -> None:
        """Take up some frames of any kind."""
        import numpy as np

        keys, theta = self._known(begin, begin + len(frames))
        for frame, key, angle in zip(frames[:, self._rows], keys.tolist(), theta.tolist(), strict=True):
            if key == _DARK and not self.taken:
                self._darks.append(frame.astype(np.float32))
            elif key == _FLAT and not self.taken:
                self._flats.append(frame.astype(np.float32))
            elif key == _PROJECTION and np.isfinite(angle):
                self._lines.append(frame)
                self._theta.append(angle)
                self.taken += 1
                if self.taken % self._params.step == 0:
                    self._look()
            elif key == _PROJECTION:
                self.skipped += 1

    def _known(self, begin: int, end: int) -> tuple[NDArray[Any], NDArray[Any]]:
        import numpy as np

        arrays = self._source.arrays
        keys = np.asarray(arrays["image_key"][begin:end])
        if arrays["theta_deg"].shape[0] >= arrays["image_key"].shape[0]:
            return keys, np.asarray(arrays["theta_deg"][begin:end], float)
        theta = np.full(len(keys), np.nan)  # a finished scan has angles of its projections only
        first = int((np.asarray(arrays["image_key"][:begin]) == _PROJECTION).sum())
        chosen = keys == _PROJECTION
        theta[chosen] = arrays["theta_deg"][first : first + int(chosen.sum())]
        return keys, theta

    def _look(self) -> None:
        """Add what waits, and check."""
        if self.center is None and self.taken < _CENTER_AFTER:
            return
        self._add()
        if self._stream is None or self.taken < _LEAST:
            return
        from lightkeep.analysis.tomography.stop_rule import Check, decide

        found = self._stream.quality()
        rings = found.rings
        check = Check(self.taken, rings.mean(self.rule.resolution_px), found.change, rings.resolution_px())
        self.checks.append(check)
        planned = self._params.planned or self.taken
        self.verdict = decide(self.rule, self.checks, theta_deg=self._stream.theta_deg, planned=planned)
        if self.verdict.stop and self.stopped is None:
            self.stopped = self.verdict

    def _add(self) -> None:
        import numpy as np

        from lightkeep.analysis.tomography import normalise
        from lightkeep.analysis.tomography.streaming import StreamingReconstruction

        if not self._lines:
            return
        shape = (0, len(self._rows), self._columns)
        darks = np.stack(self._darks) if self._darks else np.empty(shape, np.float32)
        flats = np.stack(self._flats) if self._flats else np.empty(shape, np.float32)
        try:
            lines = normalise(np.stack(self._lines), flats, darks)
            if self._stream is None:
                self.center = self._center(lines)
                self._stream = StreamingReconstruction(
                    (len(self._rows), self._columns),
                    center=self.center,
                    window=self._params.window,
                    filter_="hann",
                    threads=1,
                )
            self._stream.add(np.moveaxis(lines, 1, 0), self._theta)
        except ValueError as error:
            raise InvalidInput(
                f"{self._source.path.name}: {error}", remedy="take flats and darks before the projections"
            ) from error
        self._lines, self._theta = [], []

    def _center(self, lines: Float32) -> float:
        from lightkeep.analysis.tomography import find_center

        return (
            find_center(lines[:: max(1, len(lines) // 5)], self._theta).value
            if self.center is None
            else self.center
        )

    def slices(self) -> Float32:
        """Return the images of what is there."""
        if self._lines and (self.center is not None or self.taken >= _LEAST):
            self._add()
        if self._stream is not None:
            self._slices = self._stream.step()
        return self._slices


def start(source: Source, params: Params, begin: int, end: int) -> State:
    """Nothing was seen yet."""
    return State(source, params)


def blocks(source: Source, params: Params) -> Iterator[Any]:
    """Yield all frames."""
    yield from source.arrays["frames"].blocks()  # type: ignore[attr-defined]


def push(state: State, block: Any, begin: int) -> State:
    """Add the frames of a block."""
    state.push(block.frames, begin)
    return state


def merge(a: State, b: State) -> State:
    """Not possible: a scan is followed in one piece."""
    raise InvalidInput(
        "two parts of a live reconstruction cannot be put together", remedy="use tomography instead"
    )


def finish(state: State, params: Params) -> dict[str, Output]:
    """Return slices of all that was measured, and how their quality grew."""
    import numpy as np

    counts = np.array([each.projections for each in state.checks], float)
    values = {
        "quality": [each.quality for each in state.checks],
        "change": [each.change for each in state.checks],
        "resolution": [each.resolution_px for each in state.checks],
    }
    found = {name: np.array(each, float) for name, each in values.items()} | {"slices": state.slices()}
    outputs = {}
    for name, spec in OUTPUTS.items():
        scales = {"projections": counts} if "projections" in spec.axes else {}
        outputs[name] = Output(found[name], spec.axes, spec.unit, spec.label, scales, dict.fromkeys(scales, ""))
    return outputs


def enough(state: State, params: Params) -> Mapping[str, Any]:
    """Return why the scan may end, once it may and is to be ended; empty otherwise."""
    return _told(state.stopped) if params.stop and state.stopped is not None else {}


def _told(verdict: Verdict) -> dict[str, Any]:
    return {
        "reason": verdict.reason,
        "used": verdict.used,
        "planned": verdict.planned,
        "quality": round(verdict.quality, 4),
        "predicted": round(verdict.predicted, 4),
    }


def flags(state: State, params: Params) -> list[str]:
    """Return how the scan ended, and what was wrong with it."""
    found = []
    if state.stopped is not None:
        told = _told(state.stopped)
        verb = "stopped" if params.stop else "could have stopped"
        found.append(
            f"{verb} at {told['used']} of {told['planned']} projections: {told['reason']}; "
            f"{told['predicted']:.3f} is predicted for all of them"
        )
    elif state.verdict is not None:
        found.append(f"not stopped early: {state.verdict.reason}")
    if state.verdict is not None and state.verdict.is_drifting:
        found.append("the quality fell while projections were added: the sample may have moved")
    if state.skipped:
        found.append(f"{state.skipped} projections had no angle and were left out")
    return found


def snapshot(state: State, params: Params) -> dict[str, Any]:
    """Return the quality so far and three orthogonal views, small and JSON-safe."""
    import math

    verdict = state.verdict
    return {
        "technique": "tomography-live",
        "projections": state.taken,
        "planned": params.planned,
        "center": state.center,
        "wanted": params.quality,
        "checks": [
            [
                each.projections,
                round(each.quality, 4),
                round(each.change, 5) if math.isfinite(each.change) else None,
            ]
            for each in state.checks
        ],
        "verdict": {"stop": verdict.stop, **_told(verdict)} if verdict is not None else None,
        "stopped": _told(state.stopped) if state.stopped is not None else None,
        "views": _views(state.slices()) if state.checks else {},
    }


def previews(outputs: Mapping[str, Output]) -> dict[str, Float32]:
    """Return the middle row's slice."""
    import numpy as np

    slices = np.asarray(outputs["slices"].data)
    return {"slices": slices[len(slices) // 2]}


def _views(slices: Float32) -> dict[str, str]:
    """Return PNG files as data URIs, one contrast for all: a slice, and cuts along y and x through its middle."""
    import numpy as np
    from PIL import Image

    rows, size, _ = slices.shape
    low, high = np.percentile(slices, (1, 99.8))
    cuts = {"xy": slices[rows // 2], "xz": slices[:, size // 2], "zy": slices[:, :, size // 2].T}
    shown = {}
    for name, cut in cuts.items():
        grey = np.clip((cut - low) / max(float(high - low), 1e-12) * 255, 0, 255).astype(np.uint8)
        long = min(_SHOWN_PX, size)
        short = max(1, long // 4)  # few rows, spread over the detector
        file = io.BytesIO()
        size_px = {"xy": (long, long), "xz": (long, short), "zy": (short, long)}[name]
        Image.fromarray(grey).resize(size_px).save(file, "PNG")
        shown[name] = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return shown
