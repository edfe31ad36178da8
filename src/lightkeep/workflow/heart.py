"""A worker's signs of life, and its watch over those of the others.

worker A ── beat, beat, beat ── SIGSTOP ........................ SIGCONT ── beat: no row ──> new life, new id
worker B ── A's beat is 3 ───── still 3 ── lease over: A's row is deleted, its work queued again

One that died on B's own host is known by its lock at once, see `workflow.presence`; the lease is for the others.
B counts the silence by its own clock, and only while it can see the catalogue: a machine whose clock is wrong, a
pause of B itself and a server that was away for all of them make nobody dead. And who is taken for dead wrongly
loses time, not data: see `catalog.workers`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Protocol

from lightkeep.catalog.workers import Fenced
from lightkeep.facility import Facility
from lightkeep.model.errors import LightkeepError
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import Worker
from lightkeep.workflow import presence

_LOG = logging.getLogger(__name__)

_BEATS = 5
"""Signs of life in the time of one lease."""
_TEND_S = 1.0
"""Pause between two looks at what else there is to do."""


class Tend(Protocol):
    """What is done between two looks."""

    def __call__(self, *, is_long: bool) -> None:
        """Do it; `is_long` about once a lease."""
        ...


class Silence:
    """How long the other workers have been silent."""

    def __init__(self, period_s: float) -> None:
        self._most = 2 * period_s
        self._last: float | None = None
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self, workers: list[Worker], now: float) -> dict[str, float]:
        """Return worker id -> seconds of silence.

        Parameters
        ----------
        workers: all that count now.
        now: a clock that never goes back, in seconds. A longer pause between two looks counts as a short one.
        """
        step = 0.0 if self._last is None else min(now - self._last, self._most)
        self._last = now
        seen = {}
        for each in workers:
            beat, age = self._seen.get(each.id, (-1, 0.0))
            seen[each.id] = (each.beat, age + step if beat == each.beat else 0.0)
        self._seen = seen
        return {name: age for name, (_, age) in seen.items()}


class Heart:
    """Two threads of a worker: one beats, one watches. Nothing that takes long delays a beat."""

    def __init__(self, facility: Facility, worker_id: str, *, on_lost: Callable[[], None], tend: Tend) -> None:
        self._facility = facility
        self._catalog = facility.catalog
        self._worker_id = worker_id
        self._lease_s = facility.config.worker.lease_s
        self._on_lost = on_lost
        self._tend = tend
        self._ending = Event()
        self.is_lost = False
        self._threads = [
            Thread(target=self._beat, name="lightkeep-heart", daemon=True),
            Thread(target=self._watch, name="lightkeep-watchdog", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop both."""
        self._ending.set()
        for thread in self._threads:
            thread.join(self._lease_s)

    def _beat(self) -> None:
        while not self._ending.wait(self._lease_s / _BEATS):
            try:
                self._catalog.beat(self._worker_id)
            except Fenced:
                _LOG.warning(
                    "taken for dead: its work was given away", extra={"about": {"worker": self._worker_id}}
                )
                self.is_lost = True
                self._on_lost()
                return
            except LightkeepError as error:  # the next one may come through
                _LOG.warning("no sign of life: %s", error.message, extra={"about": {"worker": self._worker_id}})

    def _watch(self) -> None:
        pause = min(_TEND_S, self._lease_s / _BEATS)
        silence = Silence(self._lease_s / _BEATS)
        long_at = time.monotonic() + self._lease_s
        while not self._ending.wait(pause) and not self.is_lost:
            now = time.monotonic()
            try:
                self._bury(silence, now)
                self._tend(is_long=now >= long_at)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the next look may succeed
                _LOG.warning("watchdog: %s", error, extra={"about": {"worker": self._worker_id}})
                continue
            if now >= long_at:
                long_at = now + self._lease_s

    def _bury(self, silence: Silence, now: float) -> None:
        workers = self._catalog.view(SERVICE).workers()
        ages = silence.look(workers, now)
        for each in workers:
            is_silent = ages[each.id] > self._lease_s
            if each.id != self._worker_id and (is_silent or presence.is_dead(self._facility, each)):
                with self._catalog.change(SERVICE) as tx:
                    tx.lose(each)
