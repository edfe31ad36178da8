"""A run's record in the catalogue while it is worked on."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lightkeep.facility import Facility
from lightkeep.model.engines import Cancel
from lightkeep.model.errors import CatalogUnavailable, Conflict, RunCancelled
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import Run
from lightkeep.model.techniques import Report

if TYPE_CHECKING:
    from lightkeep.lifecycle.processing.scratch import Scratch

_PERIOD_S = 0.25
"""Seconds between two looks at the catalogue during a run."""


class Watch:
    """Progress goes into the catalogue, a cancel comes out.

    An engine asks `is_set` often, in the thread that called it; every _PERIOD_S that look also brings the progress
    of the pieces to the catalogue.
    """

    def __init__(
        self, facility: Facility, run: Run, scratch: Scratch, *, report: Report | None, cancel: Cancel | None
    ) -> None:
        self._facility = facility
        self._run_id = run.id
        self._scratch = scratch
        self._report = report
        self._asked = cancel
        self._stage = ("", 0.0, 0.0)
        self._is_cancelled = False
        self._next_look = 0.0
        self._noted: dict[str, Any] = {}

    def begin(self, message: str, start: float, end: float) -> None:
        """Enter a stage that takes the progress from start to end."""
        self._stage = (message, start, end)
        self._next_look = 0.0
        if self.is_set():
            raise RunCancelled("cancelled")

    def is_set(self) -> bool:
        """True once somebody cancelled the run."""
        if self._asked is not None and self._asked.is_set():
            self._is_cancelled = True
        now = time.monotonic()
        if self._is_cancelled or now < self._next_look:
            return self._is_cancelled
        self._next_look = now + _PERIOD_S
        with suppress(CatalogUnavailable):  # the work goes on; its end is written down when the server is back
            self._is_cancelled = self._facility.catalog.view(SERVICE).run(self._run_id).state.is_over
            if not self._is_cancelled:
                self._show_progress()
        return self._is_cancelled

    def _show_progress(self) -> None:
        message, start, end = self._stage
        is_computing = message == "computing"
        done = float(self._scratch.progress().mean()) if is_computing else 0.0
        fraction = start + (end - start) * done
        self.change(progress=fraction, message=message)
        if self._report is not None:
            self._report(fraction, message)

    def note(self, **values: Any) -> None:
        """Have values written into the run's record with its next change: each change costs a barrier."""
        self._noted |= values

    def change(self, **values: Any) -> bool:
        """Change the run's record; return False when somebody else ended the run: then it stays as it is."""
        try:
            with self._facility.catalog.change(SERVICE) as tx:
                tx.update_run(self._run_id, **{**self._noted, **values})
        except Conflict:
            self._is_cancelled = True
            return False
        self._noted = {}
        return True
