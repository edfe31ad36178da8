"""What must be true of the media, whatever the program believes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lightkeep.model.stores import UNITS
from lightkeep.testing.stores import Medium


class Violation(AssertionError):
    """The program broke a promise; the message has the seed and the last steps."""


@dataclass(slots=True)
class Acknowledged:
    """Bytes that the program said it keeps."""

    sha256: str
    dataset_id: str
    path: str
    may_go: bool = False
    """Its last copy was given up lawfully: expired, announced, approved by a second person."""
    harmed: bool = False
    """The scheduler destroyed its last good copy: not the program's fault."""


@dataclass(slots=True)
class Oracle:
    """Knows every acknowledged content, and finds its good copies on the media."""

    media: Mapping[str, Medium]
    contents: dict[str, Acknowledged] = field(default_factory=dict)
    """By sha256."""
    _hashes: dict[int, tuple[bytearray, frozenset[str]]] = field(default_factory=dict)
    """id of an object's bytes -> those bytes and the contents found in them. Published bytes never change; the
    scheduler's harm puts other bytes in their place."""

    def acknowledge(self, content: Acknowledged) -> None:
        """Remember what the program said it keeps. Known bytes that come again are kept again."""
        self.contents[content.sha256] = content

    def good_copies(self) -> dict[str, int]:
        """Return how many objects hold each acknowledged content now, trash included."""
        found = dict.fromkeys(self.contents, 0)
        for medium in self.media.values():
            for key, content in medium.objects():
                for sha256 in self._contents_of(key, content):
                    if sha256 in found:
                        found[sha256] += 1
        return found

    def check(self, *, harm_was_done: bool) -> None:
        """Every acknowledged content has a good copy, was given up lawfully, or fell to the scheduler.

        Parameters
        ----------
        harm_was_done: the step just made was the scheduler's own: it flipped bits or lost a medium.

        Raises
        ------
        Violation: a content is gone.
        """
        for sha256, copies in self.good_copies().items():
            content = self.contents[sha256]
            if copies:
                content.harmed = content.may_go = False
            elif harm_was_done:
                content.harmed = True
            elif not (content.harmed or content.may_go):
                raise Violation(f"{content.dataset_id}/{content.path} ({sha256[:12]}) has no good copy left")

    def _contents_of(self, key: str, content: bytearray) -> frozenset[str]:
        known = self._hashes.get(id(content))
        if known is None or known[0] is not content:
            known = content, frozenset(_digests(key, content))
            self._hashes[id(content)] = known
        return known[1]


def _digests(key: str, content: bytearray) -> Iterator[str]:
    yield hashlib.sha256(content).hexdigest()
    if UNITS in key and ".tar" in key:
        try:
            with tarfile.open(fileobj=io.BytesIO(content)) as unit:
                for member in unit:
                    if member.isfile() and (opened := unit.extractfile(member)) is not None:
                        yield hashlib.sha256(opened.read()).hexdigest()
        except tarfile.TarError:
            return
