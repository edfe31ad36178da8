"""One process runs one acquisition: frames to disk, files into the catalogue, statistics, until it is stopped.

    source ── thread ──> files of the spool folder ──┐        nothing of the catalogue is needed up to here
    folder that others write ────────────────────────┴─> settled ──> datasets

Each transaction shows the token of the lease: a process that was paused while another one took over commits
nothing. While the catalogue is away frames go on to disk and files wait; then they catch up.
"""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import socket
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from lightkeep.acquisition.folder import Rules
from lightkeep.acquisition.frames import open_source
from lightkeep.acquisition.options import Bluesky, Folder, Frames, checked
from lightkeep.acquisition.spool import MARK, Recorder
from lightkeep.catalog.changes import Change
from lightkeep.config import Config
from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.acquisitions import live, spooled
from lightkeep.lifecycle.acquisitions.acquire_take import FolderTaker, RunTaker, Target
from lightkeep.lifecycle.acquisitions.following import ENOUGH
from lightkeep.lifecycle.processing.process import check_params, folder_of, process
from lightkeep.model.acquisition import Acquisition, AcquisitionState, FrameSource, Statistics
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, LightkeepError, NotFound, SourceError
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.people import SERVICE, Principal

_LOG = logging.getLogger(__name__)

LEASE: Final = timedelta(seconds=10)
"""After so long without a word from its process an acquisition is another one's to take."""
_RENEW_S: Final = 1.0
_STEP_S: Final = 0.1
_LEAST_S: Final = 0.02
"""Between two looks at a folder whose last step took longer than a step."""
_AGAIN_S: Final = 1.0
"""Pause after something that was away."""
_FINISH_S: Final = 30.0
"""How long a stopped acquisition waits for files that do not settle."""


def holder() -> str:
    """Return the name of this process: host and number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run(facility: Facility, acquisition_id: str, *, ending: threading.Event) -> AcquisitionState:
    """Take an acquisition over and run it until it is stopped; return its state then.

    Parameters
    ----------
    ending: set when this process is to end; the acquisition stays `running`, for the next process.

    Raises
    ------
    Conflict: it is not to run, or another process has it.
    """
    with facility.catalog.change(SERVICE) as tx:
        token = tx.lease_acquisition(acquisition_id, holder=holder(), until=facility.clock.now() + LEASE)
    found = facility.catalog.view(SERVICE).acquisition(acquisition_id)
    return _Running(facility, found, token, ending).run()


class _Running:
    """One process's turn at an acquisition."""

    def __init__(self, facility: Facility, found: Acquisition, token: int, ending: threading.Event) -> None:
        self._facility = facility
        self._found = found
        self._token = token
        self._ending = ending
        self._options = checked(found.kind, found.options)
        self._spooling: _Spooling | None = None
        self._error = ""
        self._renewed = 0.0
        self._is_lost = False
        principal = SERVICE if found.created_by == SERVICE.id else Principal(found.created_by)
        target = Target(facility, found.experiment_id, principal, self._guard, self._options.technique)
        self._taker = self._taker_for(target)

    def _taker_for(self, target: Target) -> FolderTaker:
        options, name = self._options, self._found.name
        if isinstance(options, Folder):
            rules = Rules(
                options.include, options.exclude, options.done, options.quiet_s, options.datasets == "folder"
            )
            return FolderTaker(target, Path(options.path), rules, name=name, complete_s=options.complete_s)
        if isinstance(options, Bluesky):
            folder = Path(options.path)
            return RunTaker(target, folder, below=Path(options.below) if options.below else folder.parent)
        if not isinstance(options, Frames):
            raise InvalidInput(f"acquisition {self._found.id} is of no known kind")
        spool = spooled.folder_of(self._facility, self._found, options)
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._spooling = _Spooling(self._facility, self._found, options, spool, target.principal)
        return FolderTaker(target, spool, Rules(("*.h5",), done=MARK, quiet_s=0.1), name=name)

    def _guard(self, tx: Change) -> None:
        tx.hold_acquisition(self._found.id, self._token)

    def run(self) -> AcquisitionState:
        """Work until there is nothing more to do here."""
        if self._spooling is not None:
            self._spooling.start()
        try:
            with self._taker:
                state = self._work()
                if state is AcquisitionState.STOPPED:
                    self._finish()
                return state
        finally:
            if self._spooling is not None:
                self._spooling.stop()
            if not self._is_lost:
                self._leave()

    def _work(self) -> AcquisitionState:
        began = time.monotonic()
        while not self._ending.wait(max(_LEAST_S, began + _STEP_S - time.monotonic())):
            began = time.monotonic()
            state = self._renew()
            if state is not AcquisitionState.RUNNING:
                return state
            is_written = self._spooling is not None and self._spooling.is_done
            if is_written:
                self._taker.watch.hurry()
            self._step()
            if self._is_lost:
                break
            if self._spooling is not None and is_written and not self._taker.watch.settling:
                self._end(AcquisitionState.FAILED if self._spooling.failed else AcquisitionState.STOPPED)
        return AcquisitionState.RUNNING

    def _step(self) -> None:
        """Take in what is there; what is away is tried again, what will not get better ends the acquisition."""
        if self._spooling is not None and self._spooling.is_asking:
            return
        try:
            self._taker.step()
        except (Forbidden, NotFound, InvalidInput) as error:
            self._fail(error)
        except LightkeepError as error:
            if self._is_over_for_good(error):
                self._fail(error)
                return
            self._note(error)
            self._ending.wait(_AGAIN_S)
        else:
            self._error = ""

    def _is_over_for_good(self, error: LightkeepError) -> bool:
        if not isinstance(error, Conflict):
            return False
        if error.data.get("state") == "taken over":
            self._is_lost = True
            return False
        try:
            experiment = self._facility.catalog.view(SERVICE).experiment(self._found.experiment_id)
        except LightkeepError:
            return False
        return experiment.state is not ExperimentState.OPEN

    def _fail(self, error: LightkeepError) -> None:
        self._note(error)
        self._end(AcquisitionState.FAILED, error.message)

    def _note(self, error: LightkeepError) -> None:
        if error.message != self._error:
            _LOG.warning("acquisition: %s", error.message, extra={"about": {"acquisition": self._found.id}})
        self._error = error.message

    def _end(self, state: AcquisitionState, error: str = "") -> None:
        try:
            with self._facility.catalog.change(SERVICE) as tx:
                self._guard(tx)
                failed = self._spooling.failed if self._spooling is not None else ""
                tx.set_acquisition_state(self._found.id, state, error=error or failed)
        except LightkeepError as why:
            self._note(why)
        self._renewed = 0.0

    def _renew(self) -> AcquisitionState:
        """Keep the lease and tell how it goes, once in a while; return what is wanted."""
        now = time.monotonic()
        if now - self._renewed < _RENEW_S:
            return AcquisitionState.RUNNING
        try:
            with self._facility.catalog.change(SERVICE) as tx:
                state = tx.hold_acquisition(
                    self._found.id,
                    self._token,
                    until=self._facility.clock.now() + LEASE,
                    statistics=self._statistics(),
                )
        except LightkeepError as error:
            self._is_over_for_good(error)
            self._note(error)
            if self._is_lost:
                self._ending.set()
            self._renewed = now
            return AcquisitionState.RUNNING
        self._renewed = now
        return state

    def _statistics(self) -> Statistics:
        before, taken = self._found.statistics, self._taker.taken
        spooled = self._spooling.recorder.counted if self._spooling is not None else None
        failed = (self._spooling.error or self._spooling.recorder.counted.problem) if self._spooling else ""
        return replace(
            before,
            frames=before.frames + (spooled.frames if spooled else 0),
            gaps=before.gaps + (spooled.gaps if spooled else 0),
            files=before.files + taken.files,
            bytes=before.bytes + taken.bytes,
            waiting=self._taker.watch.waiting,
            lag_s=round(taken.lag_s, 3),
            last_error=self._error or failed or taken.last_error,
            at=datetime.now(UTC).isoformat(),
        )

    def _finish(self) -> None:
        """It was stopped: end the series, take in what is left, complete the datasets."""
        if self._spooling is not None:
            self._spooling.stop()
        until = time.monotonic() + _FINISH_S
        while time.monotonic() < until and not self._is_lost:
            try:
                if (self._spooling is None or not self._spooling.is_asking) and self._taker.finish(
                    is_written=self._spooling is not None
                ):
                    return
            except LightkeepError as error:
                self._is_over_for_good(error)
                self._note(error)
            self._renew()
            if self._ending.wait(_STEP_S):
                return

    def _leave(self) -> None:
        """Give the lease back, so that the next process need not wait for its end."""
        try:
            with self._facility.catalog.change(SERVICE) as tx:
                tx.hold_acquisition(self._found.id, self._token, statistics=self._statistics())
                tx.free_acquisition(self._found.id, self._token)
        except LightkeepError as error:
            self._note(error)


class _Spooling:
    """The thread that writes frames to disk. It needs neither the catalogue nor the portal."""

    def __init__(
        self, facility: Facility, found: Acquisition, options: Frames, folder: Path, principal: Principal
    ) -> None:
        self.error = self.failed = ""
        self.is_over = False
        self.recorder = Recorder(
            folder,
            prefix=found.name,
            frames_per_file=options.frames_per_file,
            idle_s=options.idle_s,
            begun=self._begun,
        )
        self._facility = facility
        self._folder = folder
        self._found = found
        self._options = options
        self._principal = principal
        if options.live:
            check_params(options.live, options.params)  # loads what it needs, before there are frames
        self._following: list[BaseProcess] = []
        self._enough: Path | None = None
        self._asking: list[threading.Thread] = []
        self._look_at = 0.0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._record, name="lightkeep-frames", daemon=True)

    @property
    def is_done(self) -> bool:
        """True when no frame will come and every series is as far as it gets."""
        return self.is_over and not self.is_asking

    @property
    def is_asking(self) -> bool:
        """True while a live run is asked for: its series must not be a dataset before the run is known."""
        self._asking = [each for each in self._asking if each.is_alive()]
        return bool(self._asking)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the series and close its file. Again: nothing."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        until = time.monotonic() + _FINISH_S
        for each in self._following:
            each.join(max(0.0, until - time.monotonic()))

    def _record(self) -> None:
        lock = os.open(self._folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while not _is_locked(lock):  # a file without its mark is somebody's work until then
                self.error = f"another process still writes into {self._folder}"
                if self._closing.wait(_AGAIN_S):
                    return
            self.error = ""
            self._work()
        finally:
            os.close(lock)
            self.is_over = True

    def _work(self) -> None:
        self.recorder.salvage()
        while not self._closing.is_set():
            try:
                self._follow()
            except SourceError as error:
                self.error = error.message
            except LightkeepError as error:
                self.failed = self.error = error.message
                break
            else:
                break
            self._closing.wait(_AGAIN_S)

    def _follow(self) -> None:
        """Write what comes until there is no more, or one wants to end."""
        source = open_source(self._options)
        try:
            for message in source.messages():
                self.recorder.take(message)
                if message is not None:
                    self.error = ""
                self._stop_if_enough(source)
                if self._closing.is_set():
                    return
        finally:
            try:
                self.recorder.end()
            finally:
                source.close()

    def _stop_if_enough(self, source: FrameSource) -> None:
        """Tell the detector, once, when the technique that follows the series has seen enough."""
        if self._enough is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _STEP_S
        try:
            why = json.loads(self._enough.read_bytes())
        except FileNotFoundError:
            return
        self._enough = None
        try:
            source.stop(why)
        except SourceError as error:
            self.recorder.counted.problem = error.message
            why = {**why, "error": error.message}
        about = {"acquisition": self._found.id, **why}
        _LOG.info("acquisition: the detector is told to stop: %s", why.get("reason"), extra={"about": about})
        # in another thread: frames do not wait for the catalogue
        threading.Thread(target=self._record_stop, args=(about,), name="lightkeep-stop", daemon=True).start()

    def _record_stop(self, about: dict[str, Any]) -> None:
        try:
            with self._facility.catalog.change(SERVICE) as tx:
                tx.record("acquisition.enough", self._found.id, self._found.experiment_id, about)
        except LightkeepError as error:
            _LOG.warning("acquisition: %s", error.message, extra={"about": about})

    def _begun(self, path: Path) -> None:
        if self._options.live:
            asking = threading.Thread(target=self._ask, args=(path,), name="lightkeep-live", daemon=True)
            self._asking.append(asking)
            asking.start()

    def _ask(self, path: Path) -> None:
        """Have a series followed by a technique, in another process: HDF5 closes no file that its own reads."""
        try:
            run = live.request(
                self._facility,
                path,
                self._options.live,
                self._options.params,
                experiment_id=self._found.experiment_id,
                principal=self._principal,
                idle_s=self._options.idle_s,
            )
        except LightkeepError as error:  # the frames go to disk whatever becomes of this
            self.error = error.message
        else:
            self._enough = folder_of(self._facility, run.id) / ENOUGH
            asked = (self._facility.config, run.id, self._principal)
            following = multiprocessing.get_context("spawn").Process(target=_follow, args=asked, daemon=True)
            following.start()
            self._following.append(following)


def _is_locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _follow(config: Config, run_id: str, principal: Principal) -> None:
    """Perform a live run."""
    with open_facility(config) as facility:
        try:
            process(facility, run_id, principal=principal)
        except LightkeepError as error:  # the run says it as well
            _LOG.warning("acquisition: run %s: %s", run_id, error.message)
