"""What a remote site is made of, and how a call to it may fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from lightkeep.model.errors import RunFailed


class SiteAway(RunFailed):
    """The site does not answer now: the link is cut, it is busy, it restarts. Catch it to ask again later."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a staging area."""

    size: int
    """Bytes."""
    age_s: float
    """Seconds since it was written, by the site's clock."""


class JobIs(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    HELD = "held"
    """Waiting, and something must happen before it may start."""
    RUNNING = "running"
    DONE = "done"
    LOST = "lost"
    """Ended through no fault of its own: a node failed, it was preempted and not queued again, it is forgotten."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """True when it will not run any more."""
        return self in (JobIs.DONE, JobIs.LOST, JobIs.FAILED, JobIs.CANCELLED)


@dataclass(frozen=True, slots=True)
class SiteJob:
    """A job at a site."""

    id: str
    state: JobIs
    words: str = ""
    """What the site says about it."""


class Area(Protocol):
    """The staging folder at a site. Names are relative to it, with `/`.

    Every method raises SiteAway while the site cannot be reached, and RunFailed when it refuses.
    """

    root: str
    """Its path at the site."""
    chunk: int
    """Most bytes of one file that it takes."""

    def prepare(self, folder: str) -> None:
        """Make a folder and its parents; one that is there stays."""
        ...

    def listing(self, folder: str) -> dict[str, Entry]:
        """Return the files directly in a folder; none when there is no such folder."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file. MUST show the name only when all bytes are there and their sha256 was found right."""
        ...

    def get(self, name: str) -> bytes:
        """Return a file's content. MUST raise NotFound when the site says that it is not there."""
        ...

    def remove(self, names: Sequence[str]) -> None:
        """Remove files and folders below the area; what is gone already is no error."""
        ...


class Queue(Protocol):
    """The batch system of a site. Every method raises SiteAway while it cannot be reached."""

    def submit(
        self, name: str, command: Sequence[str], *, folder: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Hand a job in; return its id. MUST NOT submit twice for one name, whatever was lost on the way.

        Parameters
        ----------
        name: the job's; the same whenever the same work is submitted.
        command: what it runs.
        folder: absolute path at the site, for what it prints.
        environment: further variables of the job. MUST NOT pass through the staging area: one is a secret.

        Raises
        ------
        RunFailed: refused, in the site's words.
        """
        ...

    def look(self, job_id: str) -> SiteJob:
        """Return where a job is."""
        ...

    def find(self, name: str) -> str:
        """Return the id of the newest job of a name; empty when the site knows none."""
        ...

    def cancel(self, job_id: str) -> None:
        """Stop a job; one that is over stays as it is."""
        ...

    def wait_s(self) -> float | None:
        """Return how long a job handed in now would wait, in seconds; None when the site does not say."""
        ...
