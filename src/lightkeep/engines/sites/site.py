"""Tasks at another facility.

    map ── stage in ──> area        what the site lacks, by content; nothing travels twice
     │  ── submit ────> queue       by name: who is killed here finds the job again
     │  ── follow                   at growing intervals; a cut link is waited out
     │  <─ stage out ── area        what changed, hashed here before it gets its name
     └  ── clean ─────> area        only after that, and only what Lightkeep put there

The state of a map is in one small file beside its tasks (`site.json`): killed at any instruction and called again
with the same key and folder, it goes on where it was.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from lightkeep.engines.sites.job import KEY, READS, WORK
from lightkeep.engines.sites.packing import (
    OBJECTS,
    Packed,
    chunks_of,
    dump,
    load,
    pack,
    regular_files,
    sha256,
    unpack,
    unsealed,
)
from lightkeep.engines.sites.parts import Area, JobIs, Queue, SiteAway, SiteJob
from lightkeep.model.engines import Cancel, Task
from lightkeep.model.errors import Corrupt, LightkeepError, NotFound, RunCancelled, RunFailed

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_TRIES = 3
"""Jobs for one map at most: the first, and replacements of those that were lost."""
_LAG_S = 20.0
"""How long the answer of a job that ended may take to be seen in the staging area."""
_HASHED = 4 << 30
"""Bytes of a file that are hashed for an estimate: some seconds."""
_SLICE_S = 0.1
"""How often a cancel is looked for while waiting."""


@dataclass(frozen=True, slots=True)
class State:
    """How far a map is; kept in `site.json`."""

    name: str
    """The job's name without the number of the try."""
    order: str = ""
    """sha256 of the order; empty: not all is staged yet."""
    key: str = ""
    """What the result must be sealed with."""
    attempt: int = 1
    job_id: str = ""
    """Empty: not known to be submitted."""
    sent: int = 0
    """Bytes that went to the site."""
    fetched: int = 0
    """Bytes that came back."""
    send_s: float = 0.0
    wait_s: float = 0.0
    """From submission to the end, less the computing."""
    compute_s: float = 0.0
    fetch_s: float = 0.0
    is_fetched: bool = False
    """True once everything is here: only cleaning is left."""

    @property
    def run(self) -> str:
        """Name of the job of this try, and of its folder in the area."""
        return f"{self.name}-{self.attempt}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a site is used."""

    python: Sequence[str] = ("python3",)
    """Command at the site that starts a Python with Lightkeep, a container's included."""
    processes: int = 0
    """Tasks that the job does at once; 0: one per core it was given."""
    cores: int = 0
    """Cores of the job, where the batch system does not tell it."""
    poll_s: float = 2.0
    """Seconds between the first two questions about a job; later ones are further apart."""
    longest_poll_s: float = 60.0
    patience_s: float = 86_400.0
    """How long a site may be away before the run fails."""
    keep_days: float = 7.0
    """How long what was sent stays in the area for the next run; a part older than half of it is sent again."""
    rate: float = 0.0
    """Bytes per second to assume until a run has measured it."""


class RemoteSite:
    """An engine whose workers are at another facility. Two maps at once may share an area."""

    name = "site"

    def __init__(self, area: Area, queue: Queue, *, settings: Settings = Settings()) -> None:
        self.area = area
        self.queue = queue
        self.settings = settings

    def workers(self) -> int:
        """How many tasks run at once, as far as the settings tell."""
        return self.settings.processes or self.settings.cores or 1

    def expected_wait_s(self) -> float | None:
        """Return how long a job would wait there now, None when nobody can tell.

        Raises
        ------
        SiteAway: the site cannot be reached. RunFailed: it takes no such job.
        """
        return self.queue.wait_s()

    def state(self) -> str:
        """Say in a line how the site stands."""
        wait_s = self.expected_wait_s()
        return "it answers" if wait_s is None else f"a job would start in {wait_s:.0f} s"

    @property
    def rate(self) -> float:
        """Bytes per second to assume for a transfer that nobody has measured yet."""
        return self.settings.rate

    def map(
        self,
        tasks: Sequence[Task],
        *,
        done: Callable[[int, Any], None] | None = None,
        cancel: Cancel | None = None,
        key: str = "",
        folder: Path | None = None,
    ) -> list[Any]:
        """Run all tasks in one job at the site; see `model.engines.Engine.map`.

        The files that travel are those in `Task.reads`, and those in the folder `Task.works_in`, of which what
        changed comes back. All tasks of a map name the same folder.
        """
        if not tasks:
            return []
        if cancel is not None and cancel.is_set():
            raise RunCancelled("cancelled before the start")
        own = Path(tempfile.mkdtemp(prefix="lightkeep-site-")) if not key or folder is None else None
        try:
            stay = _Stay(self, tasks, key or f"map-{uuid4().hex}", own or folder or Path(), cancel)
            return stay.run(done, is_durable=own is None)
        finally:
            if own is not None:
                shutil.rmtree(own, ignore_errors=True)

    def abandon(self, *, key: str, folder: Path) -> None:
        """Stop the job of a key that its caller left behind, and clear its files at the site away."""
        if (folder / "site.json").exists():
            _Stay(self, [], key, folder, None).leave()

    def held(self, paths: Sequence[str]) -> float:
        """Return how many bytes of these files lie in the area; a file of more than 4 GiB is not looked at.

        Raises
        ------
        SiteAway: the site cannot be reached. SourceError: a file cannot be read.
        """
        chunk, there = self.area.chunk, self.area.listing(OBJECTS)
        files = [Path(path) for path in dict.fromkeys(paths) if there and os.path.getsize(path) <= _HASHED]
        return float(
            sum(
                min(chunk, packed.size - index * chunk)
                for packed in (pack(file, file.name, chunk=chunk) for file in files)
                for index, name in enumerate(packed.chunks)
                if name in there
            )
        )

    def spent(self, folder: Path) -> dict[str, float]:
        """Return what the map of a folder took, in seconds and bytes; empty when it was none of a site."""
        try:
            state = State(**json.loads((folder / "site.json").read_text("utf-8")))
        except FileNotFoundError:
            return {}
        return {
            "wait_s": state.wait_s,
            "transfer_s": state.send_s + state.fetch_s,
            "compute_s": state.compute_s,
            "moved_bytes": float(state.sent + state.fetched),
        }

    def clean(self) -> int:
        """Remove from the area what was sent longer than `keep_days` ago and no run there needs; return how many.

        Nothing else lies under these names: each is the sha256 of its content, and its source is in a store here.
        """
        limit = self.settings.keep_days * 86_400
        if any(entry.age_s < limit for entry in self.area.listing("live").values()):
            return 0  # a run is under way: the next one cleans
        listed = self.area.listing(OBJECTS)
        old = [
            name for name, entry in listed.items() if entry.age_s > limit and re.fullmatch("[0-9a-f]{64}", name)
        ]
        self.area.remove([f"{OBJECTS}/{name}" for name in old])
        return len(old)


class _Stay:
    """One map's stay at a site."""

    def __init__(
        self, site: RemoteSite, tasks: Sequence[Task], key: str, folder: Path, cancel: Cancel | None
    ) -> None:
        self._site = site
        self._area, self._queue = site.area, site.queue
        self._tasks = tasks
        self._folder = folder
        self._cancel = cancel
        self._state = self._saved(key)
        self._work = next((Path(task.works_in) for task in tasks if task.works_in), None)
        self._reads = list(dict.fromkeys(path for task in tasks for path in task.reads))

    def run(self, done: Callable[[int, Any], None] | None, *, is_durable: bool) -> list[Any]:
        """Go through all of it; return the results."""
        try:
            answer = self._answer()
        except Exception:
            with suppress(LightkeepError):
                self.leave()
            raise
        except BaseException:  # this process is being stopped, not the work
            if not is_durable:
                self.leave()
            raise
        with suppress(SiteAway):  # the result is here; `clean` gets what is left there
            self._clear()
            self._site.clean()
        if isinstance(answer, LightkeepError):
            raise answer
        for index, value in enumerate(answer):  # all at once: the way is long
            self._stop_if_cancelled()
            if done is not None:
                done(index, value)
        return list(answer)

    def leave(self) -> None:
        """Cancel the job and clear away what it has at the site."""
        state = self._state
        job_id = state.job_id or (self._queue.find(state.run) if state.order else "")
        if job_id:
            self._queue.cancel(job_id)
        self._clear()

    # ---- the way

    def _answer(self) -> Any:
        while self._state.attempt <= _TRIES:
            if not self._state.is_fetched:
                if not self._state.order:
                    self._stage_in()
                job = self._follow()
                if job.state in (JobIs.FAILED, JobIs.CANCELLED):
                    raise self._failure(job)
                if job.state is JobIs.LOST or not self._stage_out():
                    _LOG.warning("%s: job %s was lost: %s", self._site.name, job.id, job.words)
                    self._next_attempt()
                    continue
            return self._taken()
        raise RunFailed(
            f"{self._site.name} lost the job {_TRIES} times",
            remedy="look at its log there, or take another engine",
        )

    def _next_attempt(self) -> None:
        """Begin again: the order is made anew, for what the site has purged is missing from the listing."""
        self._note(attempt=self._state.attempt + 1, order="", job_id="")

    def _stage_in(self) -> None:
        begun = time.monotonic()
        chunk = self._area.chunk
        for each in (OBJECTS, "runs", "live"):
            self._ask(lambda each=each: self._area.prepare(each))  # type: ignore[misc]
        self._ask(lambda: self._area.put(f"live/{self._state.name}", b"in use"))
        there = self._fresh()
        places = {path: f"{READS}{path}" for path in self._reads}
        if self._work is not None:
            places[str(self._work)] = WORK
        reads = [self._send(Path(path), path.lstrip("/"), there) for path in self._reads]
        files = regular_files(self._work) if self._work is not None else ()
        work = [self._send(file, file.name, there) for file in files if file.name != "site.json"]
        order = {
            "reads": [each.to_json() for each in reads],
            "work": [each.to_json() for each in work],
            "tasks": self._send_bytes(dump(list(self._tasks), places), there),
            "chunk": chunk,
            "processes": self._site.settings.processes,
            "cores": self._site.settings.cores,
            "sys_path": [each for each in sys.path if each],
        }
        name = self._send_bytes(json.dumps(order).encode(), there)
        self._note(order=name, send_s=self._state.send_s + time.monotonic() - begun)

    def _fresh(self) -> set[str]:
        """Return the chunks in the area that will stay there long enough."""
        limit = self._site.settings.keep_days * 43_200
        listed = self._ask(lambda: self._area.listing(OBJECTS))
        return {name for name, entry in listed.items() if entry.age_s < limit}

    def _send(self, file: Path, path: str, there: set[str]) -> Packed:
        packed = pack(file, path, chunk=self._area.chunk)
        for name, read in chunks_of(file, packed, chunk=self._area.chunk):
            if name not in there:
                self._put(name, read())
                there.add(name)
        return packed

    def _send_bytes(self, content: bytes, there: set[str]) -> str:
        if len(content) > self._area.chunk:
            raise RunFailed(
                f"{self._site.name}: what describes the run is larger than {self._area.chunk} bytes",
                remedy="use fewer pieces, or another engine",
            )
        name = sha256(content)
        if name not in there:
            self._put(name, content)
        return name

    def _put(self, name: str, content: bytes) -> None:
        self._ask(lambda: self._area.put(f"{OBJECTS}/{name}", content))
        self._state = replace(self._state, sent=self._state.sent + len(content))

    def _follow(self) -> SiteJob:
        """Submit unless that was done, and wait for the end."""
        begun = time.monotonic()
        folder = f"{self._area.root}/runs/{self._state.run}"
        command = [*self._site.settings.python, "-m", "lightkeep.engines.sites.job"]
        if not self._state.job_id:
            self._ask(lambda: self._area.prepare(f"runs/{self._state.run}"))
            arguments = [self._area.root, self._state.run, self._state.order]
            self._note(
                job_id=self._ask(
                    lambda: self._queue.submit(
                        self._state.run,
                        [*command, *arguments],
                        folder=folder,
                        environment={KEY: self._state.key},
                    )
                )
            )
        pause = self._site.settings.poll_s
        while not (job := self._ask(lambda: self._queue.look(self._state.job_id))).state.is_over:
            self._wait(pause)
            pause = min(pause * 1.3, self._site.settings.longest_poll_s)
        self._note(wait_s=self._state.wait_s + time.monotonic() - begun)
        return job

    def _stage_out(self) -> bool:
        """Bring back what changed; return False when the job left nothing to bring."""
        out = self._out()
        if not out or out["state"] == "lost":
            return False
        begun = time.monotonic()
        try:
            for each in out["changed"]:
                self._bring(Packed.from_json(each), self._work or self._folder)
            self._bring(Packed.from_json(out["answer"]), self._folder)
        except (NotFound, Corrupt) as error:
            _LOG.warning("%s: %s", self._site.name, error.message)
            return False
        computed = out["compute_s"]
        self._note(
            is_fetched=True,
            compute_s=computed,
            wait_s=max(0.0, self._state.wait_s - computed),
            fetch_s=self._state.fetch_s + time.monotonic() - begun,
        )
        return True

    def _out(self) -> dict[str, Any]:
        """Return how the job says that it ended; empty when it said nothing."""
        name = f"runs/{self._state.run}/out.json"
        deadline = time.monotonic() + _LAG_S
        while True:
            try:
                return unsealed(self._ask(lambda: self._area.get(name)), self._state.key)
            except NotFound:
                if time.monotonic() > deadline:
                    return {}
                self._wait(1.0)

    def _bring(self, packed: Packed, folder: Path) -> None:
        def fetch(name: str) -> bytes:
            return self._ask(lambda: self._area.get(f"{OBJECTS}/{name}"))

        target = folder / packed.path
        fetched = unpack(packed, target, fetch, chunk=self._area.chunk, old=target)
        self._state = replace(self._state, fetched=self._state.fetched + fetched)

    def _taken(self) -> Any:
        def resolve(token: str) -> str:
            return (
                token.removeprefix(READS) if token.startswith(READS) else f"{self._work}{token.removeprefix(WORK)}"
            )

        return load((self._folder / "answer").read_bytes(), resolve)

    def _clear(self) -> None:
        """Remove this map's own files at the site. What was sent stays for the next run; see `clean`."""
        runs = [f"runs/{self._state.name}-{number}" for number in range(1, self._state.attempt + 1)]
        self._area.remove([*runs, f"live/{self._state.name}"])

    # ---- what it rests on

    def _failure(self, job: SiteJob) -> RunFailed:
        if job.state is JobIs.CANCELLED:
            return RunFailed(
                f"job {job.id} was cancelled at {self._site.name}", remedy="ask there, then start the run again"
            )
        return RunFailed(
            f"job {job.id} failed at {self._site.name}: {job.words or 'no reason given'}",
            remedy=f"its log is in {self._area.root}/runs/{self._state.run}",
        )

    def _ask(self, call: Callable[[], _T]) -> _T:
        """Return a call's answer, asked again while the site is away and the patience lasts."""
        deadline = time.monotonic() + self._site.settings.patience_s
        pause = 0.2
        while True:
            self._stop_if_cancelled()
            try:
                return call()
            except SiteAway as error:
                if time.monotonic() > deadline:
                    raise
                _LOG.warning("%s: %s", self._site.name, error.message)
                self._wait(float(error.data.get("retry_after_s", pause)))
                pause = min(pause * 2, 30.0)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._stop_if_cancelled()
            time.sleep(min(_SLICE_S, left))

    def _stop_if_cancelled(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise RunCancelled(f"cancelled at {self._site.name}")

    def _saved(self, key: str) -> State:
        with suppress(FileNotFoundError):
            return State(**json.loads((self._folder / "site.json").read_text("utf-8")))
        return State(f"lightkeep-{re.sub('[^A-Za-z0-9_.-]', '-', key)}", key=secrets.token_hex(32))

    def _note(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        part = self._folder / "site.json.part"
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # it holds a key
            json.dump(asdict(self._state), file)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._folder / "site.json")
