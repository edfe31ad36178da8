"""The work of a live run: blocks of a growing file are pushed as they come, and the raw data stored at the end.

    wait for the file ──> preflight ──> push, snapshot, push, ... ──> last frame
        ──> the finished file is opened as any run opens it, and what is left of it pushed
        ──> the state is saved ──> result written ──> result stored ──> raw data ingested

Up to the saved state nothing is kept but the file itself: a run that was killed before reads it from its first
frame again. From there on it is a run of one piece, and ends as every run does: batch gives the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightkeep import formats, techniques
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing import inputs
from lightkeep.lifecycle.processing.pieces import Job, with_inputs
from lightkeep.lifecycle.processing.results import keep_result, write_result
from lightkeep.lifecycle.processing.scratch import Plan, Scratch
from lightkeep.lifecycle.processing.watch import Watch
from lightkeep.model.datasets import Dataset, DatasetState, Metadata
from lightkeep.model.errors import BadFile, Conflict, RunCancelled, SourceError
from lightkeep.model.formats import Source
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import LIVE, Run
from lightkeep.model.techniques import Preflight

ENOUGH = "enough.json"
"""What a technique that has seen enough says, for who can tell the detector."""
_POLL_S = 0.02
_PERIOD_S = 1.0
"""Seconds between two snapshots at least."""
_SHARE = 0.1
"""Of the time that snapshots may take at most."""
_CLOSING_S = 10.0
"""How long a writer may take to close its file after the last frame."""
_ENDLESS = 1 << 24
"""Frames that a run may have when nobody said how many."""


@dataclass(frozen=True)
class Followed:
    """What a live run follows. Saved in its scratch folder before the run is known to anybody."""

    path: str
    """The file that grows, or the folder where it will appear."""
    frames: int | None
    """How many frames there will be; None: the file says it, or its end does."""
    idle_s: float
    """A file without a new frame for so long has ended."""
    wait_s: float
    """How long the first frame is waited for."""

    def save(self, scratch: Scratch) -> None:
        """Write it down."""
        scratch.write("follow.json", json.dumps(asdict(self)).encode())

    @classmethod
    def of(cls, folder: Path) -> Followed:
        """Return what the live run with this scratch folder follows."""
        return cls(**json.loads((folder / "follow.json").read_text("utf-8")))


def make(facility: Facility, run: Run, scratch: Scratch, watch: Watch) -> Dataset:
    """Follow the measurement to its end, store the result and then the raw data; return the result's dataset.

    Raises
    ------
    SourceError: no frame came, or the raw data are still being written. Otherwise as `process.process`.
    """
    what = Followed.of(scratch.folder)
    raw = facility.catalog.view(SERVICE).dataset(run.dataset_id)
    given = inputs.readable(facility, run.technique, run.params, created_by=run.created_by)
    sources = [raw, *given.values()]
    if not scratch.result.is_dir():
        file, name = _found(Path(what.path), _Waiting(what.wait_s, watch))
        reading = inputs.reading(run.technique, run.params, name)
        job = Job(str(file), name, run.technique, str(scratch.folder), reading=reading)
        job = replace(job, inputs=inputs.places(facility, given))
        metadata = None
        if not scratch.is_planned():
            metadata = _Following(run, job, what, scratch=scratch, watch=watch).follow()
        write_result(run, sources, scratch.saved_plan(), job, metadata=metadata)
    plan = scratch.saved_plan()
    watch.change(resolved=plan.params)
    result = keep_result(facility, run, sources, scratch)
    watch.change(result_id=result.id)
    if not plan.is_partial:
        watch.begin("the result is there; storing the raw data", 0.9, 1.0)
        _store_raw(facility, run, raw, what)
    return result


def _store_raw(facility: Facility, run: Run, raw: Dataset, what: Followed) -> None:
    """Ingest what was measured, as `lightkeep ingest` would, into the dataset that was receiving it."""
    if raw.state is DatasetState.COMPLETE:
        return
    stored = ingest(
        facility,
        Path(what.path),
        experiment_id=run.experiment_id,
        principal=SERVICE if run.created_by == SERVICE.id else Principal(run.created_by),
        name=raw.name,
        technique=run.technique,
    )
    if stored.dataset.id != raw.id:
        raise Conflict(
            f"dataset {raw.name} was filled with other data meanwhile; these are in {stored.dataset.name}",
            remedy=f"run {run.technique} on {stored.dataset.name}",
        )


class _Waiting:
    """Asked again and again, until something is there or the time is over."""

    def __init__(self, seconds: float, watch: Watch) -> None:
        self._until = time.monotonic() + seconds
        self._watch = watch

    def more(self) -> bool:
        """Wait a little; False when the time is over. RunCancelled: somebody cancelled."""
        if self._watch.is_set():
            raise RunCancelled("cancelled")
        if time.monotonic() >= self._until:
            return False
        time.sleep(_POLL_S)
        return True


def _found(path: Path, waiting: _Waiting) -> tuple[Path, str]:
    """Return the file to follow and the name of its format, as soon as it is there."""
    while True:
        candidates = [path] if not path.is_dir() else sorted(path.iterdir())
        for each in candidates:
            if each.is_file() and (name := _live_format(each)):
                return each, name
        if not waiting.more():
            raise SourceError(
                f"nothing to follow at {path}: no file of a format that can be followed",
                remedy=f"check the path; these can be followed: {', '.join(live_formats())}",
            )


def live_formats() -> list[str]:
    """Return the names of the formats whose files can be read while they grow."""
    return [name for name in formats.names() if hasattr(formats.get(name), "open_live")]


def _live_format(path: Path) -> str:
    return next((name for name in live_formats() if _can_follow(formats.get(name), path)), "")


def _can_follow(format_: Any, path: Path) -> bool:
    """True for a file of the format, whole or in the making: HDF5 opens one that is written in another way."""
    return bool(format_.matches(path) or (hasattr(format_, "grows") and format_.grows(path)))


class _LongStack:
    """A frame stack with the length that it will have, for a preflight before it has."""

    def __init__(self, frames: Any, count: int) -> None:
        self._frames = frames
        self.shape = (count, *frames.shape[1:])
        self.dtype = frames.dtype

    def __getitem__(self, key: Any) -> Any:
        return self._frames[key]


def _of_length(source: Source, count: int) -> Source:
    return replace(source, arrays={**source.arrays, "frames": _LongStack(source.arrays["frames"], count)})


class _Following:
    """One attempt to follow a measurement, from its first frame to its last."""

    def __init__(self, run: Run, job: Job, what: Followed, *, scratch: Scratch, watch: Watch) -> None:
        self._technique: Any = techniques.get(run.technique)
        self._params = self._technique.Params(**run.params)
        self._job = job
        self._what = what
        self._scratch = scratch
        self._watch = watch
        self._planned: int | None = None
        self._done = 0
        self._state: Any = None
        self._began = 0.0
        self._seen = 0.0
        self._has_asked = False
        self._next = 0.0
        self._shown = 0
        self._took = 0.0
        self._looked = -1

    def follow(self) -> Metadata:
        """Push every frame, then save the state and the plan; return what the file says of the measurement."""
        with self._opened() as live:
            self._planned = self._what.frames or _promised(live)
            wide = _of_length(live, self._planned or _ENDLESS)
            found: Preflight = self._technique.preflight(wide, self._params)
            self._state = self._technique.start(wide, self._params, 0, found.length)
            self._began = time.monotonic()
            stack: Any = live.arrays["frames"]
            for block in stack.follow(
                poll_s=_POLL_S, idle_s=self._what.idle_s, frames=self._planned, until=self._look_up
            ):
                self._seen = time.monotonic()
                self._push(block)
            if self._watch.is_set():
                raise RunCancelled("cancelled")
            if self._scratch.is_asked_to_stop():
                self._save(_of_length(live, self._done), found.length, is_partial=True)
                return live.metadata
            with self._complete() as source:
                for block in source.arrays["frames"].blocks(self._done):  # type: ignore[attr-defined]
                    self._push(block)
                self._save(replace(source, inputs=live.inputs), found.length)
                return source.metadata

    def _look_up(self) -> bool:
        """Between two blocks, and while none comes: show what is new; True when somebody asked to end."""
        if self._done == self._looked and hasattr(self._technique, "idle"):
            self._state = self._technique.idle(self._state)
        self._looked = self._done
        if self._shown < self._done and time.monotonic() >= self._next and not self._is_ending():
            self._show()
        return self._watch.is_set() or self._scratch.is_asked_to_stop()

    def _is_ending(self) -> bool:
        """Whether the last frame would wait for a snapshot that began now: the result is better than it."""
        if self._planned is None or not self._done:
            return False
        rate = self._done / max(time.monotonic() - self._began, 1e-9)
        return (self._planned - self._done) / rate < self._took

    def _opened(self) -> Source:
        """Open the file as soon as it has a frame."""
        waiting = _Waiting(self._what.wait_s, self._watch)
        self._watch.begin("waiting for the first frame", 0.0, 0.0)
        opener: Callable[..., Source] = formats.get(self._job.format).open_live  # type: ignore[attr-defined]
        while True:
            reason = f"{self._job.path} has no frame yet"
            try:
                source = opener(Path(self._job.path), **self._job.reading)
            except (BadFile, SourceError) as error:  # its header may not be written yet
                reason = error.message
            else:
                if source.arrays["frames"].shape[0] > 0:
                    return with_inputs(source, self._job.inputs)
                source.close()
            if not waiting.more():
                raise SourceError(f"no frame came: {reason}", remedy="start the measurement, then follow it again")

    def _complete(self) -> Source:
        """Open the finished file as any run does, as soon as its writer has closed it."""
        waiting = _Waiting(_CLOSING_S, self._watch)
        while True:
            try:
                return self._job.open_alone()
            except (BadFile, SourceError):
                if not waiting.more():
                    raise

    def _push(self, block: Any) -> None:
        self._state = self._technique.push(self._state, block, block.begin)
        self._done = block.begin + block.count
        if not self._has_asked and hasattr(self._technique, "enough"):
            why = self._technique.enough(self._state, self._params)
            if why:
                self._scratch.show(ENOUGH, json.dumps(why).encode())
                self._has_asked = True

    def _show(self) -> None:
        """Publish a snapshot, and say how far it is."""
        before = time.monotonic()
        outputs = self._technique.snapshot(self._state, self._params)
        now = time.monotonic()
        self._took = now - before
        self._next = now + max(_PERIOD_S, self._took / _SHARE)
        rate = self._done / max(now - self._began, 1e-9)
        shown = {
            "frames": self._done,
            "planned": self._planned,
            "rate_hz": round(rate, 3),
            "latency_s": round(now - self._seen, 4),
            "at": datetime.now(UTC).isoformat(),
            "outputs": outputs or None,
        }
        self._shown = self._done
        self._scratch.show("snapshot.json", json.dumps(shown).encode())
        of = f" of {self._planned:,}" if self._planned else ""
        fraction = 0.9 * min(1.0, self._done / self._planned) if self._planned else 0.0
        message = f"{self._done:,}{of} frames, {rate:,.4g} frames/s, {now - self._seen:.2f} s behind"
        self._watch.begin(message, fraction, fraction)

    def _save(self, source: Source, length: int, *, is_partial: bool = False) -> None:
        """Keep the state as the one piece of a run, and then its plan: from here on nothing is followed again."""
        found: Preflight = self._technique.preflight(source, self._params)
        plan = replace(Plan.of(found, cuts=[(0, length)], engine=LIVE), is_partial=is_partial)
        if self._planned is not None and self._done != self._planned:
            ended = f"the measurement ended after {self._done} of {self._planned} frames"
            plan = replace(plan, warnings=[*plan.warnings, ended])
        self._scratch.finish_piece(0, self._state)
        self._scratch.save_plan(plan, with_arrays=False)


def _promised(source: Source) -> int | None:
    found = source.metadata.quantities.get("frames")
    return int(found.value) if found is not None and found.value >= 1 else None
