"""What must be true of the media, whatever the program believes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from lightkeep.model.stores import UNITS
from lightkeep.testing.stores import Medium

TRASH: Final = ".trash/"
_SKEW: Final = timedelta(hours=3)
"""A clock that is wrong by less is no jump that anybody could see."""


class Violation(AssertionError):
    """The program broke a promise; the message has the seed and the last steps."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A file that the program said it keeps."""

    sha256: str
    dataset_id: str
    experiment_id: str
    path: str


@dataclass(slots=True)
class Promise:
    """What people of an experiment may rely on, as the scheduler remembers it.

    Where a crash leaves open whether something was done, the scheduler remembers what allows the program more.
    """

    last_copy: bool
    """True: the policy lets last copies go."""
    closed_at: datetime | None = None
    """In true time; None: it is open, and nothing expires."""
    holds: set[str] = field(default_factory=set)
    told_at: datetime | None = None
    """When the first mail about it was delivered."""
    is_approved: bool = False
    """A plan that names it was approved by somebody who is not the policy's author."""

    def is_over(self, now: datetime, keep: timedelta) -> bool:
        """Return whether what it holds may be moved out of the way."""
        return self.closed_at is not None and not self.holds and now >= self.closed_at + keep - _SKEW

    def may_be_lost(self, now: datetime, keep: timedelta, notice: timedelta) -> bool:
        """Return whether its last copies may go."""
        told = self.told_at is not None and now >= self.told_at + notice - _SKEW
        return self.last_copy and self.is_over(now, keep) and told and self.is_approved


@dataclass(slots=True)
class Oracle:
    """Knows every file that was acknowledged, and finds its good copies on the media."""

    media: Mapping[str, Medium]
    keep: timedelta
    notice: timedelta
    undo: timedelta
    promises: dict[str, Promise] = field(default_factory=dict)
    """By experiment."""
    contents: dict[str, list[Acknowledged]] = field(default_factory=dict)
    """By sha256."""
    given_up: set[str] = field(default_factory=set)
    """Contents without a copy: lost lawfully, or by the scheduler's own harm."""
    _before: dict[tuple[str, str], bool] = field(default_factory=dict)
    """(medium, sha256) -> True where a copy is in its place, False where it is only in the trash."""
    _trashed_at: dict[tuple[str, str], datetime] = field(default_factory=dict)
    _hashes: dict[int, tuple[bytearray, frozenset[str]]] = field(default_factory=dict)
    """id of an object's bytes -> those bytes and the contents found in them. Published bytes never change; the
    scheduler's harm puts other bytes in their place."""

    def acknowledge(self, content: Acknowledged) -> None:
        """Remember what the program said it keeps. Known bytes that come again are kept again."""
        known = self.contents.setdefault(content.sha256, [])
        if content not in known:
            known.append(content)
        self.given_up.discard(content.sha256)

    def promise(self, experiment_id: str) -> Promise:
        """Return what is remembered of an experiment."""
        return self.promises[experiment_id]

    def check(self, now: datetime, *, harm_was_done: bool, is_emergency: bool) -> None:
        """Look at the media after a step.

        Parameters
        ----------
        now: true time.
        harm_was_done: the step was the scheduler's own: it flipped bits or lost a medium.
        is_emergency: a plan under way may empty its trash at once.

        Raises
        ------
        Violation: a copy went too early, or a file has no good copy left and may not be lost.
        """
        after = self._look()
        if not harm_was_done:
            self._check_moves(after, now, is_emergency)
        copies = {sha256 for _, sha256 in after}
        for sha256, files in self.contents.items():
            if sha256 in copies:
                self.given_up.discard(sha256)
            elif sha256 not in self.given_up:
                if not harm_was_done and not self._any(files, now, last=True):
                    raise Violation(f"{_shown(files)} ({sha256[:12]}) has no good copy left")
                self.given_up.add(sha256)
        self._before = after

    def _check_moves(self, after: Mapping[tuple[str, str], bool], now: datetime, is_emergency: bool) -> None:
        for place, was_there in self._before.items():
            medium, sha256 = place
            files = self.contents.get(sha256)
            if files is None:
                continue
            stands = after.get(place)
            if was_there and not stands:
                if not self._any(files, now, last=False):
                    raise Violation(f"{_shown(files)} left {medium} before its time, or while it was held")
                self._trashed_at[place] = now
            if stands is None:
                since = self._trashed_at.get(place, now)
                if not is_emergency and now < since + self.undo - _SKEW:
                    raise Violation(f"{_shown(files)} was destroyed on {medium} while it could still be undone")

    def _any(self, files: list[Acknowledged], now: datetime, *, last: bool) -> bool:
        """Return whether the bytes may go for one of the files that they are: equal bytes cannot be told apart."""
        found = [self.promises[each.experiment_id] for each in files]
        if last:
            return any(each.may_be_lost(now, self.keep, self.notice) for each in found)
        return any(each.is_over(now, self.keep) for each in found)

    def _look(self) -> dict[tuple[str, str], bool]:
        found: dict[tuple[str, str], bool] = {}
        for name, medium in self.media.items():
            for key, content in medium.objects():
                is_in_place = not key.startswith(TRASH)
                for sha256 in self._contents_of(key, content):
                    if sha256 in self.contents:
                        found[name, sha256] = found.get((name, sha256), False) or is_in_place
        return found

    def _contents_of(self, key: str, content: bytearray) -> frozenset[str]:
        known = self._hashes.get(id(content))
        if known is None or known[0] is not content:
            known = content, frozenset(_digests(key, content))
            self._hashes[id(content)] = known
        return known[1]


def _shown(files: list[Acknowledged]) -> str:
    return f"{files[0].experiment_id} {files[0].dataset_id}/{files[0].path}"


def _digests(key: str, content: bytearray) -> Iterator[str]:
    yield hashlib.sha256(content).hexdigest()
    if UNITS in key and key.endswith(".tar"):
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as unit:
                for member in unit:
                    if member.isfile() and (opened := unit.extractfile(member)) is not None:
                        yield hashlib.sha256(opened.read()).hexdigest()
        except tarfile.TarError:
            return
